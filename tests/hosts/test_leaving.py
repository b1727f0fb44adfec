"""How a rank's process ends: with its exit status, its output written, and what was registered done."""

import subprocess
import sys


def test_a_process_leaves_with_its_status_and_its_output():
    code = """
import atexit, sys
from titan_aioli.hosts.leaving import leave
class Crashes:
    def __del__(self):
        print("taken apart")
kept = Crashes()
atexit.register(print, "registered")
print("printed")
print("an error", file=sys.stderr)
leave(3)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "printed\nregistered\n", "an error\n")
