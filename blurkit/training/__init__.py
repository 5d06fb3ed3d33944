"""One training loop; one recipe per published method."""
