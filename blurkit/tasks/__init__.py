"""The work of the commands, shared by the command line and the Python API."""
