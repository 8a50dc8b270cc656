#!/usr/bin/env bash
# An engineer of a lab sets up a store that many jobs fill, with features of other programs and an encoder of their own.
set -eu

# Has this machine what is needed?
aupipe doctor > doctor.txt || cat doctor.txt
grep -A 1 configuration doctor.txt

# A job array for our batch system.
aupipe init
aupipe cluster script slurm --tasks 2 --cpus 1 -- --cpu > array.sbatch
grep aupipe array.sbatch

# Two jobs of it begin, and the node of one is lost.
aupipe extract --cpu --share > job1.log 2>&1 & lost=$!
aupipe extract --cpu --share > job2.log 2>&1 & other=$!
until compgen -G "features/*/items/*/*" > /dev/null; do sleep 0.1; done
kill -KILL $lost
wait $other && echo "the other job did all that was left"

# Is it all there? For a script of mine.
aupipe status --json > status.json
python - <<'END'
import json

status = json.load(open("status.json"))
for feature, about in status["features"].items():
    print(feature, about["done"], about["failures"])
print(*sorted(run["state"] for run in status["runs"]))
END

# What OpenFace computed last year.
aupipe import openface --name openface --made-by "OpenFace 2.2.0"

# An encoder of our own, as a package.
pip install --quiet ./aupipe-zones
aupipe plugins | grep aupipe-zones
cp aupipe.toml before.toml
cat >> aupipe.toml <<'END'

[[encoder]]
name = "zones"
modality = "visual"
kind = "zones"
n = 2
END

# A disk has flipped a byte in the meantime: is it found, and made again?
file=$(find features/hog@*/items/*/s0.mp4* -path "*/data/c*")
printf '\x55' | dd of="$file" bs=1 seek=1000 conv=notrunc status=none
aupipe store verify || echo "exit code $?"
aupipe store verify --repair || echo "exit code $?"
aupipe extract --cpu
aupipe store verify
aupipe status

# The same folder on another machine, at another place: nothing is computed again there.
cp -R . ../elsewhere
(cd ../elsewhere && aupipe extract --cpu && aupipe store verify --quick)

# The encoder was no good. Away with it, and with what is left of the lost job.
mv before.toml aupipe.toml
aupipe store rm zones --dry-run
aupipe store rm zones --yes
aupipe store gc --grace 0s
aupipe status
