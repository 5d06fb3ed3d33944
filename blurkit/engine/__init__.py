"""Running any network on any image: device, precision, tiles, recovery."""
