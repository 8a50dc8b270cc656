"""What is asked for, from what it is computed, and what is missing. No torch is loaded."""
