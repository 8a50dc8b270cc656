"""Pages of trained models: what a score is made of, where it is lost, and what it cost."""
