"""The tensors that a layer of each kind has in a checkpoint, by name."""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]


def convolution_shapes(name: str, num_in: int, num_out: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (num_out, num_in, kernel, kernel), f"{name}.bias": (num_out,)}


def linear_shapes(name: str, num_in: int, num_out: int, *, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (num_out, num_in)}
    return weight | {f"{name}.bias": (num_out,)} if bias else weight


def norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}
