"""`python -m afresh` is `afresh`."""

from afresh.cli import main

if __name__ == "__main__":
    main()
