"""Keep the memory of an update for the next one, on CPUs. No torch.

glibc hands blocks of more than some megabytes back to the system as soon as they are free, and the next update pays for them
again, a page fault for every 4 kB: 90,000 an update at paper width and 2 x 25 frames, 640,000 at 8 x 25, where a third of the
CPU time was the system's (1.7 to 3.0 of 8.4 s). With its heap kept there are none, and the process is 4 % larger.
`benchmarks/bench_pretrain.py` and its `--system-memory` print both; measured on 26 November 2026, glibc 2.36, torch 2.15.0, one thread.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's mallopt: bytes free at the heap's end before it shrinks; most blocks outside the heap."""


def keep_memory() -> bool:
    """Tell glibc to keep what this process frees; False where there is no glibc. DataLoader workers inherit it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all((mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1)))
