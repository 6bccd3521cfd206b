"""The threads of a process with several engines, counted in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import os, sys, threading, time
from pathlib import Path
from engines.load import EngineOptions, load_llm_engine, share_threads
from engines.store import find_engines

(folder,) = find_engines(Path(sys.argv[1]))
engines = []

def num_threads():
    for thread in threading.enumerate():  # those that move weights into huge pages
        if thread is not threading.main_thread():
            thread.join()
    counts = [0]
    while len(set(counts[-10:])) > 1 or len(counts) < 11:  # an ended thread is listed a little more
        counts.append(len(os.listdir("/proc/self/task")))
        time.sleep(0.02)
    return counts[-1]

share_threads([folder] * int(sys.argv[2]), 3)
before = num_threads()
for _ in range(2):
    engines.append(load_llm_engine(folder, EngineOptions(num_threads=3)))
    now = num_threads()
    print(now - before)
    before = now
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("num_engines", [1, 2])
def test_several_engines_have_the_threads_of_one(tiny_engine_dir, num_engines):
    command = [sys.executable, "-c", COUNT, str(tiny_engine_dir), str(num_engines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, of_the_second = map(int, done.stdout.split())
    assert of_the_second == (2 if num_engines == 1 else 0)  # a run's own thread is the third
