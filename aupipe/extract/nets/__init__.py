"""Networks that no library has: plain modules whose state-dict keys and shapes are the published ones."""
