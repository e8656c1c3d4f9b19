"""What the verbs do, one a file and without a word: the command line and the Python API are thin over these."""
