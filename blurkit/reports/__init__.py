"""Progress, tables and figures: what the commands show of their results."""
