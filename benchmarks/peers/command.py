"""`python -m benchmarks peers`: make the models, run all peers in turns, report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.errors import PeerFailed
from benchmarks.machine import busy_share, describe_machine
from benchmarks.markdown import hide_paths, own_command
from benchmarks.peers.catalogue import Peer
from benchmarks.peers.comparison import Comparison, Variant, insert_between_marks, markdown
from benchmarks.peers.config import PeersConfig
from benchmarks.peers.process import build_model, measure
from benchmarks.peers.workload import Measurement, Precision

BUSY_SAMPLE_S = 1.0  # how long the machine is watched before each measurement


@dataclass(frozen=True, slots=True)
class _Entry:
    peer: Peer
    precision: Precision
    model_dir: Path
    rounds: list[Measurement]

    @property
    def label(self) -> str:
        return self.peer.label(self.precision)


def run_peers(config: PeersConfig) -> int:
    """Run the whole comparison; the exit status is 1 when a peer that was found failed."""
    console = Console(stderr=True, soft_wrap=True)
    candidates = config.candidates()
    left_out = [sentence for peer in candidates if (sentence := peer.missing()) is not None]
    for sentence in left_out:
        console.print(sentence)
    failures: list[str] = []
    present = [peer for peer in candidates if peer.missing() is None]
    entries = _build_models(config, present, failures, console)
    busy = _run_rounds(config, entries, failures, console)
    comparison = _collect(config, entries, left_out, failures, busy)
    _write(config, comparison)
    for failure in failures:
        console.print(f"failed: {failure}", markup=False)
    return 1 if failures else 0


def _build_models(
    config: PeersConfig, present: Sequence[Peer], failures: list[str], console: Console
) -> list[_Entry]:
    entries = []
    for precision in config.precisions:
        for peer in present:
            with console.status(f"making the model of {peer.label(precision)}"):
                try:
                    folder = build_model(peer, config.work_dir, config.checkpoint, precision)
                except PeerFailed as error:
                    failures.append(_hide_paths(config, str(error)))
                    continue
            console.print(f"{peer.label(precision)}: model ready")
            entries.append(_Entry(peer, precision, folder, []))
    return entries


def _run_rounds(
    config: PeersConfig, entries: Sequence[_Entry], failures: list[str], console: Console
) -> list[float]:
    """Measure all entries in turns; return how busy the machine was before each turn."""
    busy: list[float] = []
    failed: set[str] = set()
    for number in range(1, config.rounds + 1):
        for entry in entries:
            if entry.label in failed:
                continue
            share = busy_share(BUSY_SAMPLE_S)
            busy += [] if share is None else [share]
            try:
                with console.status(f"round {number} of {config.rounds}: {entry.label}"):
                    measured = measure(entry.peer, entry.model_dir, config.workload())
            except PeerFailed as error:
                failed.add(entry.label)
                failures.append(_hide_paths(config, str(error)))
                continue
            entry.rounds.append(measured)
            console.print(f"round {number} {entry.label}: {_one_line(measured)}", highlight=False)
    return busy


def _collect(
    config: PeersConfig,
    entries: Sequence[_Entry],
    left_out: list[str],
    failures: list[str],
    busy: list[float],
) -> Comparison:
    workload = config.workload()
    variants = [
        Variant(
            peer=entry.peer.name,
            precision=entry.precision,
            label=entry.label,
            command=_hide_paths(config, shlex.join(entry.peer.run(entry.model_dir, workload))),
            rounds=entry.rounds,
        )
        for entry in entries
    ]
    return Comparison(
        checkpoint=config.checkpoint.resolve().name,
        date=date.today().isoformat(),
        machine=describe_machine(),
        workload=asdict(workload),
        command=_hide_paths(config, own_command("peers")),
        variants=variants,
        left_out=[_hide_paths(config, sentence) for sentence in left_out],
        failures=failures,
        busy_share=busy,
    )


def _write(config: PeersConfig, comparison: Comparison) -> None:
    report = markdown(comparison)
    print(report)
    if config.json is not None:
        encoded = msgspec.json.format(msgspec.json.encode(comparison), indent=2)
        config.json.write_bytes(encoded + b"\n")
    if config.markdown is not None:
        config.markdown.write_text(report, encoding="utf-8")
    if config.update is not None:
        document = config.update.read_text(encoding="utf-8")
        config.update.write_text(insert_between_marks(document, report), encoding="utf-8")


def _hide_paths(config: PeersConfig, text: str) -> str:
    names: dict[Path | None, str] = {
        config.checkpoint: "CHECKPOINT",
        config.work_dir: "WORK_DIR",
        config.genai_python: "GENAI_PYTHON",
        config.llamacpp_python: "LLAMACPP_PYTHON",
        config.llamacpp_dir: "LLAMACPP_DIR",
        Path(sys.executable): "python",
        Path(__file__).parents[2]: ".",
    }
    reports = (config.json, config.markdown, config.update)
    names |= {path: path.name for path in reports if path is not None}
    return hide_paths(text, names)


def _one_line(measured: Measurement) -> str:
    decode = ", ".join(f"{n} x {speed / n:.1f}" for n, speed in sorted(measured.decode.items()))
    return f"prefill {measured.prefill:.0f} tokens/s, decode {decode} tokens/s"
