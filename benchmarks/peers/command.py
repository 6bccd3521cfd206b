"""`python -m benchmarks peers`: make the models, measure all peers in turns, report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.checkpoints.catalogue import SHAPES
from benchmarks.checkpoints.writer import make_chat_checkpoint
from benchmarks.comparison import shown_pictures, write_comparison
from benchmarks.errors import PeerFailed
from benchmarks.machine import OthersMeter, describe_machine
from benchmarks.markdown import hide_paths, own_command
from benchmarks.peers.catalogue import Command, Peer, PeerName
from benchmarks.peers.config import PeersConfig
from benchmarks.peers.http import free_port, measure_server
from benchmarks.peers.journal import Entry, Journal
from benchmarks.peers.process import build_model, measure
from benchmarks.peers.report import Comparison, Contestant, markdown, marks
from benchmarks.peers.workload import ClientsMeasurement, EngineMeasurement, Precision, Stage

UNFINISHED = 75  # exit status: run the same command again
_UNKNOWN_S = 45.0  # what a measurement takes, before one was made
_SHOWN_PORT = 8000


@dataclass(frozen=True, slots=True)
class _Runner:
    """One peer at one precision, with its model."""

    name: PeerName
    peer: Peer
    precision: Precision
    model_dir: Path
    checkpoint: Path

    @property
    def label(self) -> str:
        return self.peer.label(self.precision)

    def command(self, config: PeersConfig, stage: Stage, port: int) -> Command | None:
        """What runs in a stage; None if this peer has no such stage."""
        if stage == "http":
            return self.peer.serve(self.model_dir, port, config.workload())
        return self.peer.run(self.model_dir, self.checkpoint, stage, config.workload())


class _Run:
    """One call of the command."""

    def __init__(self, config: PeersConfig) -> None:
        self.config = config
        self.console = Console(stderr=True, soft_wrap=True)
        self.start = time.perf_counter()
        self.left_out: list[str] = []
        self.failures: list[str] = []
        self.checkpoint = config.checkpoint_folder
        asked = {**asdict(config.workload()), "checkpoint": self.checkpoint.name}
        self.journal = Journal(config.journal, msgspec.json.encode(asked).decode())
        self._failed: set[tuple[Stage, str]] = set()

    def runners(self) -> list[_Runner]:
        """Everybody who takes part, with models made; the others get a sentence."""
        config = self.config
        if not self.checkpoint.exists():
            self.console.print(f"making {self.checkpoint}", highlight=False)
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            make_chat_checkpoint(self.checkpoint, SHAPES[config.shape])
        found = []
        for name, peer in config.candidates().items():
            missing = None if peer.setup is None else peer.setup.missing()
            if missing is not None:
                self._leave_out(f"{peer.name} is left out: {missing}")
                continue
            for precision in (p for p in config.precisions if p in peer.precisions):
                found += self._make(name, peer, precision)
        return found

    def _make(self, name: PeerName, peer: Peer, precision: Precision) -> list[_Runner]:
        force = self.config.exports and name == "enginery"
        label = peer.label(precision)
        try:
            with self.console.status(f"making the model of {label}"):
                folder = build_model(
                    peer, self.config.work_dir, self.checkpoint, precision, force=force
                )
        except PeerFailed as error:
            self._leave_out(f"{label} is left out: {error}")
            return []
        return [_Runner(name, peer, precision, folder, self.checkpoint)]

    def measure_all(self, runners: Sequence[_Runner]) -> bool:
        """Measure what is not in the journal; False when time ran out before the end."""
        for number in range(1, self.config.rounds + 1):
            for stage in self.config.stages:
                for runner in runners:
                    if number > 1 and runner.name in self.config.once:
                        continue
                    if not self._goes_on(stage, runner, number):
                        return False
                    self._measure_one(stage, runner, number)
        return True

    def _goes_on(self, stage: Stage, runner: _Runner, number: int) -> bool:
        """Whether there is time for a measurement, if it has to be made."""
        limit = self.config.stop_after
        if limit is None or (stage, runner.label, number) in self.journal.entries:
            return True
        took = [entry.seconds for entry in self.journal.of(stage, runner.label)]
        elapsed_s = time.perf_counter() - self.start
        return elapsed_s + 1.2 * max(took, default=_UNKNOWN_S) < limit

    def _measure_one(self, stage: Stage, runner: _Runner, number: int) -> None:
        key = (stage, runner.label, number)
        port = free_port()
        command = runner.command(self.config, stage, port)
        if command is None or key in self.journal.entries or key[:2] in self._failed:
            return
        start, others = time.perf_counter(), OthersMeter()
        engine: EngineMeasurement | None = None
        clients: ClientsMeasurement | None = None
        try:
            with self.console.status(f"round {number}, {stage}: {runner.label}"):
                if stage == "engine":
                    engine = measure(command, EngineMeasurement)
                elif stage == "clients":
                    clients = measure(command, ClientsMeasurement)
                else:
                    clients = measure_server(command, port, self.config.workload(), number)
        except PeerFailed as error:
            self._failed.add((stage, runner.label))
            self.failures.append(hide(self, f"{runner.label}: {error}"))
            self.console.print(f"failed: {error}", markup=False, highlight=False)
            return
        entry = Entry(
            settings=self.journal.settings,
            stage=stage,
            label=runner.label,
            round=number,
            seconds=time.perf_counter() - start,
            others_share=others.share(),
            engine=engine,
            clients=clients,
        )
        self.journal.add(entry)
        self.console.print(f"round {number} {runner.label}: {one_line(entry)}", highlight=False)

    def _leave_out(self, sentence: str) -> None:
        self.left_out.append(hide(self, sentence))
        self.console.print(sentence, markup=False, highlight=False)


def run_peers(config: PeersConfig) -> int:
    """Run the comparison; the exit status is 1 when a peer that was found failed."""
    run = _Run(config)
    runners = run.runners()
    is_whole = run.measure_all(runners)
    comparison = _collect(run, runners)
    pictures: list[str] = []
    if config.plots is not None:
        from benchmarks.plots.peers import write_peer_plots  # only now: it loads matplotlib

        captions = write_peer_plots(comparison, config.plots)
        pictures = shown_pictures(config.plots, captions, config.update)
    report = markdown(comparison, pictures)
    write_comparison(config, comparison, report, *marks(comparison.checkpoint))
    if not is_whole:
        run.console.print("some measurements are left: run the same command again")
        return UNFINISHED
    return 1 if run.failures else 0


def _collect(run: _Run, runners: Sequence[_Runner]) -> Comparison:
    config = run.config
    contestants = []
    for runner in runners:
        commands = {
            stage: hide(run, shlex.join(command))
            for stage in config.stages
            if (command := runner.command(config, stage, _SHOWN_PORT)) is not None
        }
        pieces = {stage: run.journal.of(stage, runner.label) for stage in config.stages}
        contestants.append(
            Contestant(
                peer=runner.peer.name,
                precision=runner.precision,
                label=runner.label,
                commands=commands,
                engine=[e.engine for e in pieces.get("engine", []) if e.engine is not None],
                http=[e.clients for e in pieces.get("http", []) if e.clients is not None],
                clients=[e.clients for e in pieces.get("clients", []) if e.clients is not None],
            )
        )
    shares = [entry.others_share for entry in run.journal.entries.values()]
    return Comparison(
        checkpoint=run.checkpoint.name,
        date=date.today().isoformat(),
        machine=describe_machine(),
        workload=config.workload(),
        command=hide(run, own_command("peers")),
        contestants=contestants,
        left_out=run.left_out,
        failures=run.failures,
        others_share=[share for share in shares if share is not None],
    )


def hide(run: _Run, text: str) -> str:
    """A text without the folders of this machine."""
    config = run.config
    root = Path(__file__).parents[2]
    names: dict[Path | None, str] = {
        run.checkpoint: "CHECKPOINT",
        config.work_dir.absolute(): "WORK_DIR",
        Path(sys.executable): "python",
        root: ".",
    }
    for path in (config.json, config.markdown, config.update, config.journal, config.plots):
        names |= {path: path.name} if path is not None else {}
    return hide_paths(text, names)


def one_line(entry: Entry) -> str:
    """What a measurement gave, in short."""
    if entry.engine is not None:
        speeds = sorted(entry.engine.decode.items())
        decode = ", ".join(f"{n} x {speed / n:.1f}" for n, speed in speeds)
        return f"prefill {entry.engine.prefill:.0f} tokens/s, decode {decode} tokens/s"
    clients = entry.clients
    assert clients is not None
    return (
        f"{entry.stage} {clients.output_tokens_per_s:.0f} tokens/s, first token "
        f"{clients.ttft_p50_ms:.0f} ms, longest gap {clients.longest_gap_ms:.0f} ms"
    )
