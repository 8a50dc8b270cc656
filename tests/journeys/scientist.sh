#!/usr/bin/env bash
# A behavioural scientist has recorded interviews. She does not program, and wants a table, and tiers for ELAN.
set -eu

# My recordings.
ls -1 interviews

# A table of all of them.
aupipe analyse interviews --out table.csv

# What do its columns mean?
head -n 4 table.columns.csv

# The same as a workbook for Excel, and as tiers for ELAN.
aupipe analyse interviews --out table.xlsx --out tiers.eaf || echo "exit code $?"

# I have the pictures already. Nothing is computed again.
aupipe analyse interviews --out table.xlsx --out tiers.eaf --no-picture

# Once more, by mistake: nothing of mine is replaced.
aupipe analyse interviews --out table.csv || echo "exit code $?"

# Which files do I have now?
ls -1

# A colleague opens the tables.
python - <<'END'
import pandas as pd

table = pd.read_csv("table.csv")
print(table.groupby("recording")[["face_subject", "speech", "time_s"]].agg("count").to_string())
print(table.shape == pd.read_excel("table.xlsx").shape)
END

# Another colleague opens the tiers.
python - <<'END'
import pympi

for name in ("Anna_Müller", "Bernd"):
    tiers = pympi.Elan.Eaf(f"tiers-{name}.eaf")
    for tier in tiers.get_tier_names():
        print(name, tier, len(tiers.get_annotation_data_for_tier(tier)))
END
