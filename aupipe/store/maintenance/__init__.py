"""Work on a store as a whole: verify, repair, collect garbage, purge, migrate, export."""
