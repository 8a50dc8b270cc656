"""Media files: frames, images, sound and words, with their times and a report of what was found."""
