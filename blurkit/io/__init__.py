"""Records and everything they are read from and written to: images, shards, streams."""
