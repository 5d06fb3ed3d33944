"""One folder per system."""
