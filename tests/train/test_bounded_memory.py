"""A corpus three times larger than the memory that training may add to a process trains, in both backends."""

import os
import subprocess
import sys

import pytest

CAP_MIB = 32

FIT = f"""
import sys, threading, time
from pathlib import Path
import numpy as np
from aupipe.store import create_store, open_store
from aupipe.tasks import AU_NAMES, OFFICIAL
from aupipe.train.fit import fit
from aupipe.train.fit_config import FitConfig, FitData
from aupipe.train.recipe import load_recipe
from aupipe.types import FeatureSpec, Labels, Recording

CAP = {CAP_MIB} << 20
folder, backend = Path(sys.argv[1]), sys.argv[2]
spec = FeatureSpec("x", "visual", "x", 1)
recordings = [Recording(f"clip{{n}}") for n in range(14)]
random = np.random.default_rng(0)
rows = random.standard_normal((8000, 512), np.float32).astype(np.float16)
rows[:7] = np.nan
store = create_store(folder / "store", backend)
for recording in recordings:
    store.publish(recording.id, spec, rows)
size = sum(record.nbytes for record in store.all_published())
assert size > 3 * CAP
targets = (random.random((8000, 12)) < 0.3).astype(np.float32)
labels = {{recording.id: Labels(OFFICIAL["au"], AU_NAMES, targets, targets >= 0) for recording in recordings}}
del rows
store.close()

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) << 10

def train(name, count):
    recipe = load_recipe("baseline", ["epochs=1", "window=64", "hop=64", "batch=8"])
    data = FitData(recordings[:count], recordings[-2:], labels, {{"x": spec.id}})
    fit(open_store(folder / "store"), data, FitConfig(recipe, OFFICIAL["au"], memory_limit=0), folder / name)

peak, done = [0], threading.Event()
def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], status("RssAnon"))
thread = threading.Thread(target=watch, daemon=True)
thread.start()
train("first", 2)  # what the libraries and two recordings take
before, peak[0] = peak[0], 0
train("whole", 12)
done.set()
thread.join()
print(f"{{backend}}: corpus {{size >> 20}} MiB, cap {{CAP >> 20}} MiB, RssAnon {{before >> 20}} MiB with two "
      f"recordings, {{peak[0] >> 20}} MiB with all")
assert peak[0] - before < CAP
"""


@pytest.mark.parametrize("backend", ["zarr", pytest.param("hdf5", marks=pytest.mark.slow)])
def test_a_corpus_three_times_the_memory_limit_trains(tmp_path, backend):
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}  # what glibc keeps for each thread is not what is measured
    command = [sys.executable, "-c", FIT, str(tmp_path), backend]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    print(found.stdout)
