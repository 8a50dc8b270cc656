"""What a process does with memory it has freed."""

import subprocess
import sys

SCRIPT = """
import ctypes, platform, resource, sys
from aupipe.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
if platform.libc_ver()[0] != "glibc":
    print("nothing to set"); sys.exit()
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
    if kept == "nothing to set":  # another C library: calling it did no harm
        return
    assert int(given_back) > 100  # as it is without: 64 MiB anew each time, in pages of whatever size
    assert int(kept) < 20
