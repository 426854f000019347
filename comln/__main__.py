"""`python -m comln` is the command `comln`."""

from comln.cli.main import main

if __name__ == "__main__":
    main()
