"""Features to scores."""
