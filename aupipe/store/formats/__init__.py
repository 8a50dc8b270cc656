"""The file formats of items, one module each."""
