"""`python -m afresh` is `afresh`."""

from afresh.faces.cli import main

if __name__ == "__main__":
    main()
