"""What can be asked of `python -m benchmarks peers`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from benchmarks.machine import num_cores
from benchmarks.peers.catalogue import Enginery, Genai, LlamaCpp, Peer
from benchmarks.peers.comparison import insert_between_marks
from benchmarks.peers.workload import Precision, Workload

PeerName = Literal["enginery", "genai", "llamacpp"]

_WHAT = Group("What to compare", sort_key=1)
_WHERE = Group("Where the peers are", sort_key=2)
_LOAD = Group("Workload", sort_key=3)
_REPORT = Group("Report", sort_key=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersConfig:
    """Compare this engine with llama.cpp and onnxruntime-genai on one checkpoint, in one run."""

    checkpoint: Annotated[Path, Parameter(help="checkpoint folder", group=_WHAT)]
    precisions: Annotated[
        tuple[Precision, ...],
        Parameter(help="weights of each peer", consume_multiple=True, negative="", group=_WHAT),
    ] = ("int8", "int4")
    peers: Annotated[
        tuple[PeerName, ...],
        Parameter(help="who takes part", consume_multiple=True, negative="", group=_WHAT),
    ] = (
        "enginery",
        "genai",
        "llamacpp",
    )
    rounds: Annotated[int, Parameter(help="turns of all peers; medians count", group=_WHAT)] = 5
    work_dir: Annotated[Path, Parameter(help="where models are made and kept", group=_WHERE)] = (
        Path("build/peers")
    )
    genai_python: Annotated[
        Path | None, Parameter(help="a Python that has onnxruntime-genai", group=_WHERE)
    ] = None
    llamacpp_dir: Annotated[
        Path | None, Parameter(help="llama.cpp's source, built in build/bin", group=_WHERE)
    ] = None
    llamacpp_python: Annotated[
        Path | None,
        Parameter(help="runs llama.cpp's converter; default: --genai-python", group=_WHERE),
    ] = None
    threads: Annotated[
        int | None, Parameter(help="threads of each peer; default: all cores", group=_LOAD)
    ] = None
    prefill_tokens: Annotated[int, Parameter(help="tokens of the prompt", group=_LOAD)] = 512
    decode_context: Annotated[
        int, Parameter(help="tokens of a stream before decode is timed", group=_LOAD)
    ] = 128
    decode_tokens: Annotated[int, Parameter(help="timed tokens of a stream", group=_LOAD)] = 64
    streams: Annotated[
        tuple[int, ...],
        Parameter(help="numbers of streams", consume_multiple=True, negative="", group=_LOAD),
    ] = (1, 8)
    repetitions: Annotated[
        int, Parameter(help="of each measurement in a process; the best counts", group=_LOAD)
    ] = 2
    json: Annotated[Path | None, Parameter(help="write all figures here", group=_REPORT)] = None
    markdown: Annotated[Path | None, Parameter(help="write the report here", group=_REPORT)] = None
    update: Annotated[
        Path | None,
        Parameter(help="put the report between the marks of this document", group=_REPORT),
    ] = None

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}, but it must be at least 1")
        if not self.precisions or not self.peers:
            raise ValueError("precisions and peers must each name at least one")
        if not (self.checkpoint / "config.json").exists():
            raise ValueError(f"{self.checkpoint} is no checkpoint: it holds no config.json")
        self.workload()
        if self.update is not None:
            insert_between_marks(self.update.read_text(encoding="utf-8"), "")

    def workload(self) -> Workload:
        return Workload(
            prefill_tokens=self.prefill_tokens,
            decode_context=self.decode_context,
            decode_tokens=self.decode_tokens,
            streams=tuple(self.streams),
            repetitions=self.repetitions,
            num_threads=self.threads or num_cores(),
        )

    def candidates(self) -> list[Peer]:
        """The peers that were asked for, Enginery first."""
        python = self.llamacpp_python or self.genai_python or Path(sys.executable)
        known: dict[PeerName, Peer] = {
            "enginery": Enginery(),
            "genai": Genai(self.genai_python),
            "llamacpp": LlamaCpp(self.llamacpp_dir, python),
        }
        return [peer for name, peer in known.items() if name in self.peers]
