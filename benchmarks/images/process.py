"""Make the contestants' models and run their adapters; everything happens in child processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.errors import PeerFailed
from benchmarks.images.catalogue import Command, Contestant, Model
from benchmarks.images.workload import Measurement, Workload, read_measurement
from benchmarks.peers.process import child_environment, last_words, run_command


class BuildCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the command that made a model took."""

    seconds: float
    peak_rss_bytes: int


def make_models(
    contestant: Contestant, checkpoint: Path, work_dir: Path, force: bool
) -> tuple[Path, BuildCost | None]:
    """The folder to run, its models made now unless an earlier run made them, and what it took.

    A model is made under a temporary name, so an interrupted build is never taken for one.

    Args:
        contestant: Whose models.
        checkpoint: A folder in diffusers' layout, and what is run where nothing is made.
        work_dir: Where models are kept.
        force: Make the last model again.

    Raises:
        PeerFailed: A command failed.
    """
    made_dir = work_dir / checkpoint.resolve().name
    folder, cost = checkpoint, None
    models = contestant.models(checkpoint, made_dir)
    for model in models:
        folder = made_dir / model.folder
        cost_file = folder.with_name(f"{folder.name}.cost.json")
        if not folder.exists() or (force and model is models[-1]):
            made = _make(model, folder)
            cost_file.write_bytes(msgspec.json.encode(made))
        cost = None
        if cost_file.exists():
            cost = msgspec.json.decode(cost_file.read_bytes(), type=BuildCost)
    return folder, cost


def _make(model: Model, folder: Path) -> BuildCost:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    cost = run_with_cost(model.build(partial))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return cost


def run_with_cost(command: Command) -> BuildCost:
    """Run a command that must succeed; seconds and the peak of its memory.

    Raises:
        PeerFailed: It cannot be started or failed.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=child_environment()
            )
        except OSError as error:
            raise PeerFailed(f"`{' '.join(command)}` cannot be started: {error}") from None
        # Of this child alone: RUSAGE_CHILDREN would be the largest of all before it too.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode != 0:
            output.seek(0)
            words = last_words(output.read().decode(errors="replace"))
            raise PeerFailed(
                f"`{' '.join(command)}` ended with status {process.returncode}: {words}"
            )
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return BuildCost(seconds=seconds, peak_rss_bytes=usage.ru_maxrss * unit)


def measure(contestant: Contestant, model_dir: Path, workload: Workload) -> Measurement:
    """Run the contestant's adapter once.

    Raises:
        PeerFailed: It failed, or printed no measurement.
    """
    command = contestant.run(model_dir, workload)
    stdout = run_command(command)
    measurement = read_measurement(stdout)
    if measurement is None:
        raise PeerFailed(f"`{' '.join(command)}` printed no measurement: {last_words(stdout)}")
    return measurement
