"""How much of one recording is decoded at most: a file of a few bytes may claim anything."""

from __future__ import annotations

MAX_PIXELS = 64_000_000  # of one picture, of a video or of an image file: 8000 x 8000
MAX_FRAMES = 10_000_000  # of one video: 111 hours at 25 frames a second
MAX_CLOCK_S = 48 * 3600.0  # between the first frame of a video and its last
