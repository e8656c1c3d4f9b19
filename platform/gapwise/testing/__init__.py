"""Contract suites that implementations inherit, ours and other people's. Needs pytest only when a suite is run."""
