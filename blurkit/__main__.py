"""`python -m blurkit` and the `blurkit` script."""

from blurkit.cli.app import main

if __name__ == "__main__":
    main()
