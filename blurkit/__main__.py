"""Entry point of `python -m blurkit` and of the `blurkit` script."""

from blurkit.cli.app import main

if __name__ == "__main__":
    main()
