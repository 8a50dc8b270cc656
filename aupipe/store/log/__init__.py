"""The record of what was published: a journal per writer, and the index over all journals."""
