"""Pictures of results, and reports: a study or a registered name as one HTML file."""
