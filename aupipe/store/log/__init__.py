"""What was published: one append-only journal per writer, and the index made of them."""
