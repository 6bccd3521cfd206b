"""What can be asked of `python -m benchmarks peers` and `peers-setup`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks.checkpoints.catalogue import ShapeName
from benchmarks.markdown import insert_between
from benchmarks.options import (
    LOAD,
    WHAT,
    WHERE,
    EachThreads,
    ExportAgain,
    FiguresTarget,
    MarkdownTarget,
    PlotsTarget,
    Rounds,
    UpdateTarget,
    check_above_zero,
    check_at_least_one,
    numbers,
    several,
)
from benchmarks.peers.catalogue import PEER_NAMES, Peer, PeerName, all_peers
from benchmarks.peers.report import DEFAULT_SHAPE, marks
from benchmarks.peers.workload import Precision, Stage, Workload
from engines.machine import physical_cores

_WORK_DIR = Path("build/peers")
_TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersSetupConfig:
    """Install the peers from package registries, each in an environment of its own."""

    peers: Annotated[
        tuple[PeerName, ...],
        several("which", WHAT),
    ] = PEER_NAMES
    work_dir: Annotated[Path, Parameter(help="where they are set up", group=WHERE)] = _WORK_DIR
    torch: Annotated[
        str, Parameter(help="what pip installs as torch, which most need", group=WHERE)
    ] = _TORCH


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersConfig:
    """Compare this engine with others on one checkpoint, in one run; see peers-setup."""

    shape: Annotated[
        ShapeName, Parameter(help="of the checkpoint that is made below --work-dir", group=WHAT)
    ] = DEFAULT_SHAPE
    checkpoint: Annotated[
        Path | None, Parameter(help="a checkpoint folder instead", group=WHAT)
    ] = None
    peers: Annotated[
        tuple[PeerName, ...],
        several("who takes part", WHAT),
    ] = PEER_NAMES
    precisions: Annotated[
        tuple[Precision, ...],
        several("weights of each peer; latency is ours", WHAT),
    ] = ("int8", "latency", "int4", "bf16", "fp32")
    stages: Annotated[
        tuple[Stage, ...],
        several("speed of the engine alone, over HTTP, with clients in the process", WHAT),
    ] = ("engine", "http", "clients")
    rounds: Rounds = 3
    once: Annotated[
        tuple[PeerName, ...],
        several("who is measured in the first round only, being slow", WHAT),
    ] = ("transformers", "optimum")
    journal: Annotated[
        Path | None,
        Parameter(help="keep every measurement here; the same command goes on", group=WHAT),
    ] = None
    stop_after: Annotated[
        float | None,
        Parameter(
            help="seconds after which no measurement is begun that would not end before; the exit "
            "status is 75 while some are left",
            group=WHAT,
        ),
    ] = None
    work_dir: Annotated[
        Path, Parameter(help="where peers are set up and models kept", group=WHERE)
    ] = _WORK_DIR
    exports: ExportAgain = False
    threads: EachThreads = None
    prefill_tokens: Annotated[int, Parameter(help="tokens of the prompt", group=LOAD)] = 512
    decode_context: Annotated[
        int, Parameter(help="tokens of a stream before decode is timed", group=LOAD)
    ] = 128
    decode_tokens: Annotated[int, Parameter(help="timed tokens of a stream", group=LOAD)] = 64
    streams: Annotated[tuple[int, ...], numbers("numbers of streams", LOAD)] = (1, 8)
    repetitions: Annotated[
        int, Parameter(help="of each measurement in a process; the best counts", group=LOAD)
    ] = 2
    clients: Annotated[int, Parameter(help="that each wait for their answer", group=LOAD)] = 8
    client_requests: Annotated[int, Parameter(help="of all clients", group=LOAD)] = 24
    client_prompt: Annotated[int, Parameter(help="tokens of a client's prompt", group=LOAD)] = 128
    client_tokens: Annotated[int, Parameter(help="tokens of an answer", group=LOAD)] = 64
    json: FiguresTarget = None
    markdown: MarkdownTarget = None
    update: UpdateTarget = None
    plots: PlotsTarget = None

    def __post_init__(self) -> None:
        check_at_least_one(self, ("rounds", "threads"))
        check_above_zero(self, ("stop_after",))
        if not (self.precisions and self.peers and self.stages):
            raise ValueError("precisions, peers and stages must each name at least one")
        if self.checkpoint is not None and not (self.checkpoint / "config.json").exists():
            raise ValueError(f"{self.checkpoint} is no checkpoint: it holds no config.json")
        if self.stop_after is not None and self.journal is None:
            raise ValueError("stop_after was given, so journal must name a file to go on from")
        self.workload()
        if self.update is not None:
            insert_between(
                self.update.read_text(encoding="utf-8"), "", *marks(self.checkpoint_folder.name)
            )

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoint is, or will be made."""
        return (self.checkpoint or self.work_dir / "checkpoints" / self.shape).resolve()

    def workload(self) -> Workload:
        return Workload(
            prefill_tokens=self.prefill_tokens,
            decode_context=self.decode_context,
            decode_tokens=self.decode_tokens,
            streams=tuple(self.streams),
            repetitions=self.repetitions,
            clients=self.clients,
            client_requests=self.client_requests,
            client_prompt=self.client_prompt,
            client_tokens=self.client_tokens,
            num_threads=self.threads or physical_cores(),
        )

    def candidates(self) -> dict[PeerName, Peer]:
        """The peers that were asked for, Enginery first."""
        known = all_peers(self.work_dir, _TORCH)
        return {name: peer for name, peer in known.items() if name in self.peers}
