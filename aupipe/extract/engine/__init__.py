"""What is computed for one video, in one process and on one device."""
