"""Parts shared by several systems: blocks, feature networks, losses."""
