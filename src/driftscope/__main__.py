"""`python -m driftscope`: the command line."""

from driftscope.cli import main

if __name__ == "__main__":
    main()
