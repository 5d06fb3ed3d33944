"""Tables and figures made from measured results."""
