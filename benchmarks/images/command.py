"""`python -m benchmarks images`: make the models, run all contestants in turns, report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from rich.console import Console

from benchmarks.comparison import write_comparison
from benchmarks.errors import PeerFailed
from benchmarks.images.catalogue import Contestant, ContestantName
from benchmarks.images.checkpoint import make_checkpoint
from benchmarks.images.comparison import BEGIN_MARK, END_MARK, Comparison, Variant, markdown
from benchmarks.images.config import CheckpointConfig, ImagesConfig
from benchmarks.images.process import BuildCost, make_models, measure
from benchmarks.images.workload import Measurement
from benchmarks.machine import OthersMeter, describe_machine
from benchmarks.markdown import hide_paths, own_command


@dataclass(frozen=True, slots=True)
class _Entry:
    name: ContestantName
    contestant: Contestant
    model_dir: Path
    build: BuildCost | None
    rounds: list[Measurement]


def run_checkpoint(config: CheckpointConfig) -> int:
    """Make the checkpoint."""
    make_checkpoint(config.output, seed=config.seed)
    print(config.output)
    return 0


def run_images(config: ImagesConfig) -> int:
    """Run the whole comparison; the exit status is 1 when a contestant that was found failed."""
    console = Console(stderr=True, soft_wrap=True)
    left_out: list[str] = []
    failures: list[str] = []
    entries = _make_all(config, left_out, failures, console)
    others = _run_rounds(config, entries, failures, console)
    comparison = _collect(config, entries, left_out, failures, others)
    write_comparison(config, comparison, markdown(comparison), BEGIN_MARK, END_MARK)
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    return 1 if failures else 0


def _make_all(
    config: ImagesConfig, left_out: list[str], failures: list[str], console: Console
) -> list[_Entry]:
    entries: list[_Entry] = []
    exported: set[str] = set()
    for name, contestant in config.candidates().items():
        reason = contestant.missing()
        if reason is not None:
            left_out.append(_hide_paths(config, reason))
            console.print(reason)
            continue
        # Two contestants may run one engine.
        planned = {model.folder for model in contestant.models(config.checkpoint, config.work_dir)}
        force = config.exports and name.startswith("enginery") and not planned & exported
        try:
            with console.status(f"making the model of {contestant.label}"):
                found = make_models(contestant, config.checkpoint, config.work_dir, force)
        except PeerFailed as error:
            failures.append(_hide_paths(config, str(error)))
            continue
        exported |= planned
        console.print(f"{contestant.label}: model ready")
        entries.append(_Entry(name, contestant, *found, []))
    return entries


def _run_rounds(
    config: ImagesConfig, entries: Sequence[_Entry], failures: list[str], console: Console
) -> list[float]:
    """Measure all entries in turns; return what others used of the machine meanwhile."""
    shares: list[float] = []
    seconds: dict[ContestantName, float] = {}  # what a measurement took, of those that succeeded
    start = time.perf_counter()
    for number in range(1, config.rounds + 1):
        for entry in entries:
            begun = time.perf_counter()
            if number > 1 and not _goes_on(config, entry, seconds, begun - start):
                continue
            label, others = entry.contestant.label, OthersMeter()
            try:
                with console.status(f"round {number} of {config.rounds}: {label}"):
                    measured = measure(entry.contestant, entry.model_dir, config.workload())
            except PeerFailed as error:
                seconds.pop(entry.name, None)
                failures.append(_hide_paths(config, str(error)))
                continue
            seconds[entry.name] = time.perf_counter() - begun
            share = others.share()
            shares += [] if share is None else [share]
            entry.rounds.append(measured)
            console.print(f"round {number} {label}: {_one_line(measured)}", highlight=False)
    return shares


def _goes_on(
    config: ImagesConfig, entry: _Entry, seconds: dict[ContestantName, float], elapsed_s: float
) -> bool:
    """Whether a contestant takes part in a round after the first."""
    if entry.name in config.once or entry.name not in seconds:
        return False
    ends_s = elapsed_s + seconds[entry.name]
    return config.max_minutes is None or ends_s <= 60 * config.max_minutes


def _collect(
    config: ImagesConfig,
    entries: Sequence[_Entry],
    left_out: list[str],
    failures: list[str],
    others: list[float],
) -> Comparison:
    workload = config.workload()
    variants = [
        Variant(
            name=entry.name,
            label=entry.contestant.label,
            command=_hide_paths(
                config, shlex.join(entry.contestant.run(entry.model_dir, workload))
            ),
            rounds=entry.rounds,
            build=entry.build,
        )
        for entry in entries
    ]
    return Comparison(
        checkpoint=config.checkpoint.resolve().name,
        date=date.today().isoformat(),
        machine=describe_machine(),
        workload=asdict(workload),
        command=_hide_paths(config, own_command("images")),
        variants=variants,
        left_out=left_out,
        failures=failures,
        others_share=others,
    )


def _hide_paths(config: ImagesConfig, text: str) -> str:
    names: dict[Path | None, str] = {
        config.checkpoint: "CHECKPOINT",
        config.work_dir: "WORK_DIR",
        config.openvino_python: "OPENVINO_PYTHON",
        Path(sys.executable): "python",
        Path(__file__).parents[2]: ".",
    }
    reports = (config.json, config.markdown, config.update)
    names |= {path: path.name for path in reports if path is not None}
    return hide_paths(text, names)


def _one_line(measured: Measurement) -> str:
    steps = ", ".join(f"{size} px {seconds:.2f} s" for size, seconds in measured.step_s.items())
    return f"a step {steps}; loaded in {measured.load_s:.1f} s"
