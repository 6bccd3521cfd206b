"""Which processor runs an engine: what the caller asked for, held against what it was built for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from engines.errors import EngineIncompatible
from engines.manifest import Target

_DEVICE = re.compile(r"auto|cpu|cuda(?::(\d{1,3}))?")


@dataclass(frozen=True, slots=True)
class Device:
    """The CPU, or the CUDA device of that index."""

    kind: Literal["cpu", "cuda"]
    index: int = 0

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"


CPU = Device("cpu")


def parse_device(text: str) -> Device | None:
    """Read `cpu`, `cuda` (the first GPU) or `cuda:N`; `auto` is None.

    Raises:
        ValueError: It is none of these.
    """
    match = _DEVICE.fullmatch(text)
    if match is None:
        raise ValueError(f"device is {text!r}, but it must be auto, cpu, cuda or cuda:N")
    if text == "auto":
        return None
    return CPU if text == "cpu" else Device("cuda", int(match[1] or 0))


def choose_device(target: Target, requested: Device | None) -> Device:
    """The device that an engine of this target runs on.

    Raises:
        EngineIncompatible: It was built for the other kind of device.
    """
    needed: Literal["cpu", "cuda"] = "cpu" if target == "ort-cpu" else "cuda"
    if requested is None:
        return Device(needed)
    if requested.kind != needed:
        better = "cuda" if requested.kind == "cuda" else "ort-cpu"
        raise EngineIncompatible(
            f"the engine was built for {target}, which runs on {needed}, but the device asked for "
            f"is {requested}: export the checkpoint with --target {better}, or leave --device out"
        )
    return requested
