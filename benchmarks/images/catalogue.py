"""The contestants: what each needs, how its model is made and how it is run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from benchmarks.images.workload import Workload

Command = list[str]
ContestantName = Literal[
    "openvino-f32",
    "enginery-fp32",
    "enginery-int8",
    "openvino-bf16",
    "openvino-int8-weights",
    "openvino-int8",
    "enginery-fp32-cached",
    "enginery-int8-cached",
    "diffusers-fp32",
    "diffusers-bf16",
]
CONTESTANT_NAMES: tuple[ContestantName, ...] = get_args(ContestantName)


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is made once: its folder's name and the command that fills a folder."""

    folder: str
    build: Callable[[Path], Command]


class Contestant(Protocol):
    """One way to run a checkpoint on this machine."""

    @property
    def label(self) -> str: ...

    def missing(self) -> str | None:
        """The sentence that says why it is left out; None if it can run."""
        ...

    def models(self, checkpoint: Path, made_dir: Path) -> list[Model]:
        """What is made below `made_dir`, in order; the last is run, or the checkpoint if none."""
        ...

    def run(self, model_dir: Path, workload: Workload) -> Command:
        """The adapter's command; it prints a `Measurement` (see `workload`)."""
        ...


@dataclass(frozen=True, slots=True)
class Enginery:
    """This project, through `ImageEngine.step()`."""

    precision: str
    is_cached: bool = False

    @property
    def label(self) -> str:
        return f"Enginery {self.precision}" + (", step caching" if self.is_cached else "")

    def missing(self) -> str | None:
        return None

    def models(self, checkpoint: Path, made_dir: Path) -> list[Model]:
        def export(target: Path) -> Command:
            return [
                *(sys.executable, "-m", "export", "--checkpoint-path", str(checkpoint)),
                *("--precision", self.precision, "--output", str(target)),
                *("--name", f"images-{self.precision}", "--no-verify", "--quiet"),
            ]

        return [Model(f"enginery-{self.precision}", export)]

    def run(self, model_dir: Path, workload: Workload) -> Command:
        interval = ["--cache-interval", str(workload.cache_interval)] if self.is_cached else []
        return [
            *(sys.executable, "-m", "benchmarks.images.enginery", "--model", str(model_dir)),
            *(*workload.arguments(is_cached=self.is_cached), *interval),
        ]


@dataclass(frozen=True, slots=True)
class Diffusers:
    """diffusers' modules on torch, as the checkpoint holds them."""

    dtype: Literal["float32", "bfloat16"]

    @property
    def label(self) -> str:
        return f"diffusers {_SHORT_NAMES[self.dtype]}"

    def missing(self) -> str | None:
        return _missing_imports(self.label, Path(sys.executable), "torch, diffusers, transformers")

    def models(self, checkpoint: Path, made_dir: Path) -> list[Model]:
        return []

    def run(self, model_dir: Path, workload: Workload) -> Command:
        return [
            *(sys.executable, "-m", "benchmarks.images.diffusers_torch"),
            *("--model", str(model_dir), "--dtype", self.dtype, *workload.arguments()),
        ]


@dataclass(frozen=True, slots=True)
class OpenVino:
    """OpenVINO in a Python of its own: weights as stored, and what the rest is computed in."""

    python: Path | None
    weights: Literal["f32", "int8-weights", "int8"] = "f32"
    compute: Literal["f32", "bf16"] = "f32"

    @property
    def label(self) -> str:
        return f"OpenVINO {_OPENVINO_NAMES[self.weights, self.compute]}"

    def missing(self) -> str | None:
        if self.python is None:
            return f"{self.label} is left out: name a Python that has it with --openvino-python"
        return _missing_imports(self.label, self.python, "openvino")

    def models(self, checkpoint: Path, made_dir: Path) -> list[Model]:
        build = [str(self.python), "-m", "benchmarks.images.openvino_build"]
        source = ["--checkpoint", str(checkpoint)]
        models = [Model("openvino-f32", lambda to: [*build, *source, "--output", str(to)])]
        if self.weights != "f32":
            f32 = ["--f32", str(made_dir / "openvino-f32"), "--weights", self.weights]
            name = f"openvino-{self.weights}"
            models.append(Model(name, lambda to: [*build, *f32, "--output", str(to)]))
        return models

    def run(self, model_dir: Path, workload: Workload) -> Command:
        return [
            *(str(self.python), "-m", "benchmarks.images.openvino_cpu"),
            *("--model", str(model_dir), "--compute", self.compute, *workload.arguments()),
        ]


_SHORT_NAMES = {"float32": "fp32", "bfloat16": "bf16"}
_OPENVINO_NAMES = {
    ("f32", "f32"): "f32",
    ("f32", "bf16"): "bf16",
    ("int8-weights", "f32"): "f32, int8 weights",
    ("int8", "f32"): "int8",
}


def contestant(name: ContestantName, openvino_python: Path | None) -> Contestant:
    """The contestant of that name."""
    known: dict[ContestantName, Contestant] = {
        "enginery-fp32": Enginery("fp32"),
        "enginery-int8": Enginery("int8"),
        "enginery-fp32-cached": Enginery("fp32", is_cached=True),
        "enginery-int8-cached": Enginery("int8", is_cached=True),
        "diffusers-fp32": Diffusers("float32"),
        "diffusers-bf16": Diffusers("bfloat16"),
        "openvino-f32": OpenVino(openvino_python),
        "openvino-bf16": OpenVino(openvino_python, compute="bf16"),
        "openvino-int8-weights": OpenVino(openvino_python, weights="int8-weights"),
        "openvino-int8": OpenVino(openvino_python, weights="int8"),
    }
    return known[name]


def _missing_imports(label: str, python: Path, modules: str) -> str | None:
    if not python.exists():
        return f"{label} is left out: {python} does not exist"
    probe = [str(python), "-c", f"import {modules}"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return f"{label} is left out: {python} cannot import {modules}"
    return None
