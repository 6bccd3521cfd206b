"""What can be asked of `python -m benchmarks peers` and `peers-setup`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from benchmarks.checkpoints.catalogue import ShapeName
from benchmarks.markdown import insert_between
from benchmarks.options import REPORT, PlotsTarget, check_above_zero, check_at_least_one, numbers
from benchmarks.peers.catalogue import PEER_NAMES, Peer, PeerName, all_peers
from benchmarks.peers.report import DEFAULT_SHAPE, marks
from benchmarks.peers.workload import Precision, Stage, Workload
from engines.machine import physical_cores

_WHAT = Group("What to compare", sort_key=1)
_WHERE = Group("Where the peers are", sort_key=2)
_LOAD = Group("Workload", sort_key=3)
_WORK_DIR = Path("build/peers")
_TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersSetupConfig:
    """Install the peers from package registries, each in an environment of its own."""

    peers: Annotated[
        tuple[PeerName, ...],
        Parameter(help="which", consume_multiple=True, negative="", group=_WHAT),
    ] = PEER_NAMES
    work_dir: Annotated[Path, Parameter(help="where they are set up", group=_WHERE)] = _WORK_DIR
    torch: Annotated[
        str, Parameter(help="what pip installs as torch, which most need", group=_WHERE)
    ] = _TORCH


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersConfig:
    """Compare this engine with others on one checkpoint, in one run; see peers-setup."""

    shape: Annotated[
        ShapeName, Parameter(help="of the checkpoint that is made below --work-dir", group=_WHAT)
    ] = DEFAULT_SHAPE
    checkpoint: Annotated[
        Path | None, Parameter(help="a checkpoint folder instead", group=_WHAT)
    ] = None
    peers: Annotated[
        tuple[PeerName, ...],
        Parameter(help="who takes part", consume_multiple=True, negative="", group=_WHAT),
    ] = PEER_NAMES
    precisions: Annotated[
        tuple[Precision, ...],
        Parameter(
            help="weights of each peer; latency is ours",
            consume_multiple=True,
            negative="",
            group=_WHAT,
        ),
    ] = ("int8", "latency", "int4", "bf16", "fp32")
    stages: Annotated[
        tuple[Stage, ...],
        Parameter(
            help="speed of the engine alone, over HTTP, with clients in the process",
            consume_multiple=True,
            negative="",
            group=_WHAT,
        ),
    ] = ("engine", "http", "clients")
    rounds: Annotated[int, Parameter(help="turns of all; medians count", group=_WHAT)] = 3
    once: Annotated[
        tuple[PeerName, ...],
        Parameter(
            help="who is measured in the first round only, being slow",
            consume_multiple=True,
            negative="",
            group=_WHAT,
        ),
    ] = ("transformers", "optimum")
    journal: Annotated[
        Path | None,
        Parameter(help="keep every measurement here; the same command goes on", group=_WHAT),
    ] = None
    stop_after: Annotated[
        float | None,
        Parameter(
            help="seconds after which no measurement is begun that would not end before; the exit "
            "status is 75 while some are left",
            group=_WHAT,
        ),
    ] = None
    work_dir: Annotated[
        Path, Parameter(help="where peers are set up and models kept", group=_WHERE)
    ] = _WORK_DIR
    exports: Annotated[
        bool,
        Parameter(
            help="export our engines again, though they are there", negative="", group=_WHERE
        ),
    ] = False
    threads: Annotated[
        int | None, Parameter(help="of each; default: the physical cores", group=_LOAD)
    ] = None
    prefill_tokens: Annotated[int, Parameter(help="tokens of the prompt", group=_LOAD)] = 512
    decode_context: Annotated[
        int, Parameter(help="tokens of a stream before decode is timed", group=_LOAD)
    ] = 128
    decode_tokens: Annotated[int, Parameter(help="timed tokens of a stream", group=_LOAD)] = 64
    streams: Annotated[tuple[int, ...], numbers("numbers of streams", _LOAD)] = (1, 8)
    repetitions: Annotated[
        int, Parameter(help="of each measurement in a process; the best counts", group=_LOAD)
    ] = 2
    clients: Annotated[int, Parameter(help="that each wait for their answer", group=_LOAD)] = 8
    client_requests: Annotated[int, Parameter(help="of all clients", group=_LOAD)] = 24
    client_prompt: Annotated[int, Parameter(help="tokens of a client's prompt", group=_LOAD)] = 128
    client_tokens: Annotated[int, Parameter(help="tokens of an answer", group=_LOAD)] = 64
    json: Annotated[Path | None, Parameter(help="write all figures here", group=REPORT)] = None
    markdown: Annotated[Path | None, Parameter(help="write the report here", group=REPORT)] = None
    update: Annotated[
        Path | None,
        Parameter(help="put the report between the marks of this document", group=REPORT),
    ] = None
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
