"""The training loop, which runs the recipe of any published method."""
