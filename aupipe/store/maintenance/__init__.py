"""Work on a store as a whole: verify, repair, export."""
