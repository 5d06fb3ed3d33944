"""Running networks on whole images: tiles, padding, precision."""
