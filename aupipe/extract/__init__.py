"""Media to features."""
