"""What `aupipe analyse` gives of videos: a table of named columns with times, intervals, and a page with a picture."""
