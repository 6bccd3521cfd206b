"""The peers: where each is set up, how its model is made from a checkpoint, how it is run."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, get_args

from benchmarks.peers.environments import LlamaCppBuild, PythonEnvironment, Setup, llamacpp_setup
from benchmarks.peers.workload import Precision, Stage, Workload

Command = list[str]
PeerName = Literal["enginery", "openvino", "genai", "llamacpp", "transformers", "optimum"]
PEER_NAMES: tuple[PeerName, ...] = get_args(PeerName)
_ADAPTERS = "benchmarks.peers.adapters"


class Peer(Protocol):
    """One way to run a checkpoint on this machine."""

    @property
    def name(self) -> str: ...

    @property
    def precisions(self) -> tuple[Precision, ...]: ...

    @property
    def setup(self) -> Setup | None:
        """What has to be installed or built; None if it is this project."""
        ...

    def label(self, precision: Precision) -> str: ...

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        """Commands that fill the empty folder `target` with the peer's model; may be none."""
        ...

    def run(
        self, model_dir: Path, checkpoint: Path, stage: Stage, workload: Workload
    ) -> Command | None:
        """The adapter's command for a stage but `http`; None if the peer has no such stage."""
        ...

    def serve(self, model_dir: Path, port: int, workload: Workload) -> Command | None:
        """The command of its server with OpenAI's API; None if it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Enginery:
    """This project."""

    name: str = "Enginery"
    precisions: tuple[Precision, ...] = ("int8", "latency", "int4")
    setup: Setup | None = None

    def label(self, precision: Precision) -> str:
        return f"Enginery {precision}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        option = "--optimize" if precision == "latency" else "--precision"
        return [
            [
                *(sys.executable, "-m", "export", "--checkpoint-path", str(checkpoint)),
                *(option, precision, "--output", str(target)),
                *("--name", f"peers-{precision}", "--no-verify", "--quiet"),
            ]
        ]

    def run(
        self, model_dir: Path, checkpoint: Path, stage: Stage, workload: Workload
    ) -> Command | None:
        adapter = [sys.executable, "-m", f"{_ADAPTERS}.enginery"]
        return [*adapter, "--model", str(model_dir), *workload.arguments(stage)]

    def serve(self, model_dir: Path, port: int, workload: Workload) -> Command | None:
        return [
            *(sys.executable, "-m", "server", "--engine-dir", str(model_dir)),
            *("--port", str(port), "--max-num-seqs", str(workload.clients)),
            *("--num-threads", str(workload.num_threads), "--log-level", "warning"),
        ]


@dataclass(frozen=True, slots=True)
class PythonPeer:
    """A peer in a Python of its own, with an adapter of ours."""

    name: str
    adapter: str
    setup: PythonEnvironment
    precisions: tuple[Precision, ...]
    can_batch: bool = False
    commands: dict[str, list[str]] = field(default_factory=dict)  # of `build`, with {} fields

    def label(self, precision: Precision) -> str:
        return f"{self.name} {precision}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        fields = {
            "python": str(self.setup.python),
            "bin": str(self.setup.python.parent),
            "checkpoint": str(checkpoint),
            "target": str(target),
            "precision": precision,
        }
        return [[word.format(**fields) for word in words] for words in self.commands.values()]

    def run(
        self, model_dir: Path, checkpoint: Path, stage: Stage, workload: Workload
    ) -> Command | None:
        if stage == "clients" and not self.can_batch:
            return None
        model = model_dir if self.commands else checkpoint
        adapter = [str(self.setup.python), "-m", f"{_ADAPTERS}.{self.adapter}"]
        return [*adapter, "--model", str(model), *workload.arguments(stage)]

    def serve(self, model_dir: Path, port: int, workload: Workload) -> Command | None:
        return None


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp: its own tools and server, built from the sources inside llama-cpp-python's."""

    setup: LlamaCppBuild
    name: str = "llama.cpp"
    precisions: tuple[Precision, ...] = ("int8", "int4")

    def label(self, precision: Precision) -> str:
        return f"llama.cpp {_LLAMACPP_TYPES[precision]}"

    def build(self, checkpoint: Path, target: Path, precision: Precision) -> list[Command]:
        source, model = str(target / "bf16.gguf"), str(target / "model.gguf")
        python = str(self.setup.converter.python)
        convert = [python, "-m", f"{_ADAPTERS}.llamacpp_convert", str(self.setup.source)]
        return [
            [*convert, str(checkpoint), "--outfile", source, "--outtype", "bf16"],
            [str(self._bin("llama-quantize")), source, model, _LLAMACPP_TYPES[precision]],
        ]

    def run(
        self, model_dir: Path, checkpoint: Path, stage: Stage, workload: Workload
    ) -> Command | None:
        if stage != "engine":
            return None
        return [
            *(sys.executable, "-m", f"{_ADAPTERS}.llamacpp", "--bin-dir", str(self._bin(""))),
            *("--model", str(model_dir / "model.gguf"), *workload.arguments(stage)),
        ]

    def serve(self, model_dir: Path, port: int, workload: Workload) -> Command | None:
        tokens = workload.client_prompt + workload.client_tokens
        cells = workload.clients * -(-2 * tokens // _CELLS) * _CELLS
        threads = str(workload.num_threads)
        return [
            *(str(self._bin("llama-server")), "-m", str(model_dir / "model.gguf")),
            *("--host", "127.0.0.1", "--port", str(port), "-t", threads, "-tb", threads),
            *("-np", str(workload.clients), "-c", str(cells)),
        ]

    def _bin(self, tool: str) -> Path:
        return self.setup.source / "build" / "bin" / tool


_CELLS = 256  # llama.cpp pads the cache of a sequence to a multiple of this
_LLAMACPP_TYPES: dict[Precision, str] = {"int8": "Q8_0", "int4": "Q4_0"}


def all_peers(work_dir: Path, torch: str) -> dict[PeerName, Peer]:
    """Every peer, set up below `work_dir` or not.

    Args:
        work_dir: Where the peers are set up.
        torch: Arguments of pip that stand for torch in their environments.
    """

    def environment(name: str, *requirements: str) -> PythonEnvironment:
        return PythonEnvironment(work_dir / name, (*shlex.split(torch), *requirements))

    return {
        "enginery": Enginery(),
        "openvino": PythonPeer(
            "OpenVINO GenAI",
            "openvino",
            # Its torchvision is of another build than a torch for the CPU, and not needed. Its
            # exporter takes Qwen3.5 beside these releases of transformers alone.
            replace(
                environment(
                    "openvino", "openvino-genai", "optimum-intel", "nncf", "transformers==5.2.*"
                ),
                unwanted=("torchvision",),
            ),
            ("int8", "int4"),
            can_batch=True,
            commands={
                "export": [
                    *("{bin}/optimum-cli", "export", "openvino", "--model", "{checkpoint}"),
                    *("--task", "text-generation-with-past"),
                    *("--weight-format", "{precision}", "{target}"),
                ]
            },
        ),
        "genai": PythonPeer(
            "onnxruntime-genai",
            "genai",
            environment(
                "genai", "onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir", "transformers"
            ),
            ("int8", "int4"),
            commands={
                "build": [
                    *("{python}", "-m", "onnxruntime_genai.models.builder"),
                    *("-i", "{checkpoint}", "-o", "{target}", "-c", "{target}/cache"),
                    *("-p", "{precision}", "-e", "cpu", "--extra_options", "prune_lm_head=true"),
                ]
            },
        ),
        "llamacpp": LlamaCpp(llamacpp_setup(work_dir, torch)),
        "transformers": PythonPeer(
            "transformers",
            "transformers_torch",
            environment("torch", "transformers", "accelerate"),
            ("bf16",),
        ),
        "optimum": PythonPeer(
            "optimum-onnx",
            "optimum_ort",
            environment("optimum", "optimum-onnx", "onnxruntime", "transformers==4.57.*"),
            ("fp32",),
            commands={
                "export": [
                    *("{bin}/optimum-cli", "export", "onnx", "--model", "{checkpoint}"),
                    *("--task", "text-generation-with-past", "{target}"),
                ]
            },
        ),
    }
