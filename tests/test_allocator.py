"""What a process does with memory it has freed."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, platform, resource, sys
from aupipe.allocator import keep_freed_memory

if platform.libc_ver()[0] != "glibc":
    print("other"); sys.exit()
if sys.argv[1] == "keep":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 64 << 20
def once():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_large_blocks_are_faulted_in_once_and_not_for_every_use():
    kept, given_back = (
        subprocess.run([sys.executable, "-c", SCRIPT, mode], check=True, capture_output=True, text=True).stdout.strip()
        for mode in ("keep", "give back")
    )
    if "other" in (kept, given_back):
        pytest.skip("not glibc: nothing to set")
    assert int(given_back) > 100  # as it is without: 64 MiB anew each time, in pages of whatever size
    assert int(kept) < 20
