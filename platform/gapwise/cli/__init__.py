"""The command line: one file a verb, each thin. Results go to stdout, everything else to stderr."""
