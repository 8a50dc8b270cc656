"""How an item's files are laid out, one module per format."""
