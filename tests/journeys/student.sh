#!/usr/bin/env bash
# A student has a folder of videos from phones and cameras, and wants features for pandas, as CSV, and pictures.
set -eu

# What have I got?
ls -1 videos

# Let aupipe look at the folder.
aupipe init

# How much is there to do?
aupipe extract --cpu --dry-run

# Compute all of it.
aupipe extract --cpu || echo "exit code $?"

# One of the two that failed is a text file. The other has no sound, which is all right: keep its rows.
rm videos/notes.mp4
aupipe extract --retry-failed --cpu --on-missing-audio mask

# Is anything odd about my videos?
aupipe status --damaged --notes
aupipe check

# Was the face found in the phone clip, which was filmed upright?
aupipe preview "phone upright.mov" --tiles 6
aupipe overlay "phone upright.mov" --height 160

# A file for each feature, for Excel.
aupipe store export tables --format csv --feature geometry,mfcc
head -n 2 tables/geometry.csv | cut -d , -f 1-6

# All in one table, in pandas.
python - <<'END'
import aupipe

table = aupipe.open_store("features").to_frame(["geometry", "mfcc"])
print(table.groupby("recording").count()[["frame", "geometry.x_nose", "mfcc.mfcc_0"]].to_string())
END

# Once more: nothing is computed again.
aupipe extract --cpu --on-missing-audio mask
