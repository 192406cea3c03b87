"""One thread a process: where cores are shared, threads that wait for each other made tiny networks 20 times slower."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; child processes inherit it
