"""Ranks that do not train: each is told how it ends (`raise`, `killed`, `waits`, or its exit status)."""

import os
import signal
import sys
import time

rank = int(os.environ["RANK"])
how = sys.argv[1 + rank]
print(f"rank {rank} {how}", flush=True)
if how == "raise":
    raise ValueError("something is wrong")
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "waits":
    time.sleep(1000)
sys.exit(int(how))
