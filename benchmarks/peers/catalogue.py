"""The peers: where each is found, how its model is made from a checkpoint and how it is run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.peers.workload import Precision, Workload

ADAPTERS = Path(__file__).parent
Command = list[str]


class Peer(Protocol):
    """One way to run a checkpoint on this machine."""

    @property
    def name(self) -> str: ...

    @property
    def reuses_models(self) -> bool:
        """Whether a model that an earlier run made may be used again."""
        ...

    def missing(self) -> str | None:
        """The sentence that says why this peer is left out; None if it can run."""
        ...

    def label(self, precision: Precision) -> str: ...

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        """Commands that fill the empty folder `target` with the peer's model."""
        ...

    def run(self, model_dir: Path, workload: Workload) -> Command:
        """The adapter's command; it prints a `Measurement` (see `workload`)."""
        ...


@dataclass(frozen=True, slots=True)
class Enginery:
    """This project; its engine is exported anew each time, because the exporter is under test."""

    name: str = "Enginery"
    reuses_models: bool = False

    def missing(self) -> str | None:
        return None

    def label(self, precision: Precision) -> str:
        return f"Enginery {precision}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        return [
            [
                *(sys.executable, "-m", "export", "--checkpoint-path", str(checkpoint)),
                *("--precision", precision, "--output", str(target)),
                *("--name", f"peers-{precision}", "--no-verify", "--quiet"),
            ]
        ]

    def run(self, model_dir: Path, workload: Workload) -> Command:
        module = ("-m", "benchmarks.peers.enginery")
        return [sys.executable, *module, "--model", str(model_dir), *workload.arguments()]


@dataclass(frozen=True, slots=True)
class Genai:
    """onnxruntime-genai in a Python of its own, its builder's defaults and a pruned head."""

    python: Path | None
    name: str = "onnxruntime-genai"
    reuses_models: bool = True

    def missing(self) -> str | None:
        if self.python is None:
            return "onnxruntime-genai is left out: name a Python that has it with --genai-python"
        if not self.python.exists():
            return f"onnxruntime-genai is left out: {self.python} does not exist"
        probe = [str(self.python), "-c", "import onnxruntime_genai"]
        if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
            return f"onnxruntime-genai is left out: {self.python} cannot import it"
        return None

    def label(self, precision: Precision) -> str:
        return f"onnxruntime-genai {precision}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        return [
            [
                *(str(self.python), "-m", "onnxruntime_genai.models.builder"),
                *("-i", str(checkpoint), "-o", str(target), "-c", str(target / "cache")),
                *("-p", precision, "-e", "cpu", "--extra_options", "prune_lm_head=true"),
            ]
        ]

    def run(self, model_dir: Path, workload: Workload) -> Command:
        script = ADAPTERS / "genai.py"
        return [
            *(str(self.python), str(script), "--model", str(model_dir)),
            *workload.arguments(),
        ]


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp: a source folder with its tools built in `build/bin`."""

    folder: Path | None
    python: Path  # runs the conversion to GGUF; needs what llama.cpp's script imports
    name: str = "llama.cpp"
    reuses_models: bool = True

    def missing(self) -> str | None:
        if self.folder is None:
            return "llama.cpp is left out: name its folder with --llamacpp-dir"
        for path in (self._convert, *(self._bin(tool) for tool in _LLAMACPP_TOOLS)):
            if not path.exists():
                return f"llama.cpp is left out: {path} does not exist"
        return None

    def label(self, precision: Precision) -> str:
        return f"llama.cpp {_LLAMACPP_TYPES[precision]}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        source, model = str(target / "bf16.gguf"), str(target / "model.gguf")
        convert = [str(self.python), str(self._convert), str(checkpoint), "--outfile", source]
        return [
            [*convert, "--outtype", "bf16"],
            [str(self._bin("llama-quantize")), source, model, _LLAMACPP_TYPES[precision]],
        ]

    def run(self, model_dir: Path, workload: Workload) -> Command:
        return [
            *(sys.executable, "-m", "benchmarks.peers.llamacpp"),
            *("--bin-dir", str(self._bin("")), "--model", str(model_dir / "model.gguf")),
            *workload.arguments(),
        ]

    @property
    def _convert(self) -> Path:
        return (self.folder or Path()) / "convert_hf_to_gguf.py"

    def _bin(self, tool: str) -> Path:
        return (self.folder or Path()) / "build" / "bin" / tool


_LLAMACPP_TOOLS = ("llama-bench", "llama-batched-bench", "llama-quantize")
_LLAMACPP_TYPES: dict[Precision, str] = {"int8": "Q8_0", "int4": "Q4_0"}
