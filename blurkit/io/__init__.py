"""Records and where they are read and written: images, shards, streams."""
