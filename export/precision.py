"""Which layout the weights of each node get: a table for each precision, and overrides by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, Protocol, get_args

from export.errors import ExportError

Layout = Literal["fp32", "fp16", "bf16", "int8", "int4"]
KVCacheLayout = Literal["auto", "blocks", "slots"]
KVCachePrecision = Literal["fp32", "int8"]

INT8_MAX = 127  # of weights in int8, the largest
# 255 * 64 twice still fits into 16 bits, in which processors without VNNI add up two products of an
# activation and a weight.
REDUCED_INT8_MAX = 64

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

# A row of the embedding is all that the model sees of a token, and only one is read for each: int8
# costs no time. A head in int4 instead of int8 raises the demo's mean KL from 0.018 to 0.025, and
# saves a quarter of what one stream reads for a token at the 0.5B shape.
DEFAULTS: Mapping[Layout, Mapping[str, Layout]] = MappingProxyType(
    {
        "fp32": {"embedding": "fp32", "attention": "fp32", "mlp": "fp32", "head": "fp32"},
        "int8": {"embedding": "int8", "attention": "int8", "mlp": "int8", "head": "int8"},
        "int4": {"embedding": "int8", "attention": "int4", "mlp": "int4", "head": "int4"},
    }
)

# On a GPU activations have 16 bits, and what is not quantized has as many.
GPU_DEFAULTS: Mapping[Layout, Mapping[str, Layout]] = MappingProxyType(
    {
        "fp32": DEFAULTS["fp32"],
        "fp16": {"embedding": "fp16", "attention": "fp16", "mlp": "fp16", "head": "fp16"},
        "bf16": {"embedding": "bf16", "attention": "bf16", "mlp": "bf16", "head": "bf16"},
        "int4": {"embedding": "bf16", "attention": "int4", "mlp": "int4", "head": "int4"},
    }
)


class LayoutChooser(Protocol):
    """Answers which layout the weights of a node get."""

    @property
    def int8_max(self) -> int:
        """The largest integer of weights in int8."""
        ...

    def layout(self, node: str) -> Layout: ...


@dataclass(frozen=True, slots=True)
class UniformPrecision:
    """The same layout for every node."""

    everywhere: Layout
    int8_max: int = INT8_MAX

    def layout(self, node: str) -> Layout:
        return self.everywhere


@dataclass(frozen=True, slots=True)
class Override:
    """One `PATTERN=LAYOUT`: a node, a class or part of a path, or a glob."""

    pattern: str
    layout: Layout

    def matches(self, node: str) -> bool:
        return (
            fnmatchcase(node, self.pattern)
            or self.pattern in node.split(".")
            or node.startswith(f"{self.pattern}.")
        )


@dataclass(frozen=True, slots=True)
class NodePrecision:
    """Answers which layout a node gets; of several overrides that match, the last one holds.

    Nodes are `embedding`, `head`, `layers.3.attention.o` and the like.
    """

    precision: Layout
    overrides: tuple[Override, ...] = ()
    for_gpu: bool = False
    int8_max: int = INT8_MAX

    def layout(self, node: str) -> Layout:
        for override in reversed(self.overrides):
            if override.matches(node):
                return override.layout
        return self._default(node)

    def check(self, nodes: list[str]) -> None:
        """Refuse an override that no node answers to, or that a node cannot have.

        Raises:
            ExportError: It names the override.
        """
        for override in self.overrides:
            matched = [node for node in nodes if override.matches(node)]
            if not matched:
                raise ExportError(
                    f"--override {override.pattern}={override.layout} matches no node: name "
                    "embedding, head, attention, mlp, or for example down or layers.0"
                )
        if self.layout("embedding") == "int4":
            raise ExportError("the embedding can be fp32 or int8, not int4: see --override")

    def describe(self, nodes: list[str]) -> dict[str, str]:
        """Node class -> layout for the manifest, then the nodes that differ from their class."""
        described: dict[str, str] = dict(self._defaults)
        described |= {
            node: self.layout(node) for node in nodes if self.layout(node) != self._default(node)
        }
        return described

    @property
    def _defaults(self) -> Mapping[str, Layout]:
        return (GPU_DEFAULTS if self.for_gpu else DEFAULTS)[self.precision]

    def _default(self, node: str) -> Layout:
        defaults = self._defaults
        return next(defaults[part] for part in node.split(".") if part in defaults)


def parse_override(text: str) -> Override:
    """Read `PATTERN=LAYOUT`.

    Raises:
        ValueError: It has another form, or names an unknown layout.
    """
    pattern, _, layout = text.partition("=")
    if not pattern or layout not in LAYOUTS:
        raise ValueError(
            f"--override {text} is not of the form NODE=LAYOUT with one of {', '.join(LAYOUTS)}"
        )
    return Override(pattern, layout)
