"""Training again on a schedule: when, why, what came of it; one tick at a time, whoever calls it and however often."""
