"""`python -m gapwise`: the command line where its script is not on the PATH, as in a job on a cluster."""

from gapwise.cli.main import main

main()
