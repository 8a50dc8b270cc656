"""What a media file may ask of a machine: more than this is refused by name, or left out as said. docs/pipeline.md."""

from __future__ import annotations

MAX_PIXELS = 64_000_000  # of one picture, of a video or of an image file: 8000 x 8000
MAX_FRAMES = 10_000_000  # of one video: 111 hours at 25 frames a second
MAX_CLOCK_S = 48 * 3600.0  # between the first frame of a video and its last
MAX_SOUND_S = 24 * 3600.0  # of decoded sound in one recording
MAX_HOLE_S = 3600.0  # a longer jump between two packets of sound is a broken clock
MAX_OVERLAP_S = 1.0  # by which packets of sound overlap at most: beyond that too
MAX_DRIFT = 0.03  # by how much a clock of sound may be fast or slow to be resampled; else it is cut and filled
SOUND_REACH_S = 60.0  # sound this long after the last frame is kept: more than an encoder's window reaches
MAX_ROWS_PER_IMAGE = 100  # frame numbers of a folder of images may run to this many rows for each image it has
FREE_ROWS = 100_000  # and to this many whatever the number of images
