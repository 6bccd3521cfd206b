"""Make the peers' models and run their adapters; everything happens in child processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import benchmarks
from benchmarks.errors import PeerFailed
from benchmarks.peers.catalogue import Command, Peer
from benchmarks.peers.workload import AnswerT, Precision, read_answer
from engines.cli import ENV_PREFIX

_NUM_LAST_LINES = 3  # of a failed command's output are shown


def model_folder(peer: Peer, work_dir: Path, checkpoint: Path, precision: Precision) -> Path:
    slug = peer.name.lower().replace(".", "").replace(" ", "-")
    return work_dir / "models" / checkpoint.resolve().name / f"{slug}-{precision}"


def build_model(
    peer: Peer, work_dir: Path, checkpoint: Path, precision: Precision, *, force: bool = False
) -> Path:
    """The folder of the peer's model, made now unless an earlier one may be used again.

    The model is made under a temporary name, so an interrupted build is never taken for one.

    Raises:
        PeerFailed: A command failed.
    """
    folder = model_folder(peer, work_dir, checkpoint, precision)
    if folder.exists() and not force:
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for command in peer.build(checkpoint, partial, precision):
        run_command(command)
    for intermediate in ("bf16.gguf", "cache"):
        path = partial / intermediate
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    partial.rename(folder)
    return folder


def measure(command: Command, answer_type: type[AnswerT]) -> AnswerT:
    """Run an adapter once.

    Raises:
        PeerFailed: It failed, or printed no measurement.
    """
    stdout = run_command(command)
    measurement = read_answer(stdout, answer_type)
    if measurement is None:
        raise PeerFailed(f"`{' '.join(command)}` printed no measurement: {last_words(stdout)}")
    return measurement


def run_command(command: Command) -> str:
    """Standard output of a command that must succeed."""
    environment = child_environment()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
    except OSError as error:
        raise PeerFailed(f"`{' '.join(command)}` cannot be started: {error}") from None
    if done.returncode != 0:
        words = last_words(done.stderr) or last_words(done.stdout)
        raise PeerFailed(f"`{' '.join(command)}` ended with status {done.returncode}: {words}")
    return done.stdout


def child_environment() -> dict[str, str]:
    """Ours, with this package to be found and without the settings of this command.

    They must not become settings of the exporter or of an adapter.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    paths = [str(Path(benchmarks.__file__).parents[1]), inherited.get("PYTHONPATH", "")]
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def last_words(output: str) -> str:
    """The last lines that a command printed, as one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return "; ".join(lines[-_NUM_LAST_LINES:])
