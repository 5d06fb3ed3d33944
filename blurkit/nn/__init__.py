"""Parts that several systems share: blocks, feature networks, losses, sizes."""
