"""What a command does, once, for the command line and for Python alike."""
