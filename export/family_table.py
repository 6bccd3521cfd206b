"""Which models can be compiled, in which precisions and for what: the table that README has.

`python -m export --list-families` prints it. Architectures, precisions and targets come from the
tables that the exporter works with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engines.manifest import Target
from export.diffusion.build import INT8_FAMILIES
from export.diffusion.gpu.layouts import gpu_precisions
from export.diffusion.pipelines import PIPELINES
from export.qwen.families import FAMILIES, Family
from export.qwen.target import PRECISIONS

_TITLES = ("family", "architectures", "models", "targets and precisions", "verified")
_TARGETS: Mapping[Target, str] = MappingProxyType(
    {"ort-cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}
)
_BY_TRANSFORMERS = (
    "tiny random weights against transformers: fp32 within 1e-4, prefill and 32 steps"
)
_BY_DIFFUSERS = "tiny random weights against diffusers: fp32 within 2 levels of 255"

# Of each family as the manifest names it: the models that were published, and what was compared.
_MODELS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "qwen": (
            "Qwen-1.8B, 7B, 14B, 72B, and their Chat",
            "tiny random weights against a torch model of our own: fp32 within 1e-4, prefill and "
            "32 steps; ids of 10,000 texts against tiktoken",
        ),
        "qwen2": (
            "Qwen1.5, 2, 2.5 (dense), QwQ",
            f"{_BY_TRANSFORMERS}; the 0.5B shape exported and served",
        ),
        "qwen3": ("Qwen3 (dense), 2507, Embedding, Reranker", _BY_TRANSFORMERS),
        "qwen3-next": ("Qwen3-Next-80B-A3B", _BY_TRANSFORMERS),
        "qwen3.5": ("Qwen3.5, 3.6 (dense, text)", _BY_TRANSFORMERS),
        "qwen3.5-moe": (
            "Qwen3.5-35B-A3B, 122B-A10B, 397B-A17B, Qwen3.6-35B-A3B (text)",
            _BY_TRANSFORMERS,
        ),
        "qwen2-moe": ("Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B", _BY_TRANSFORMERS),
        "qwen3-moe": ("Qwen3-30B-A3B, 235B-A22B, 2507, Coder", _BY_TRANSFORMERS),
        "stable-diffusion": (
            "Stable Diffusion 1.5, 2.1",
            f"{_BY_DIFFUSERS}; 1.5 at its true size",
        ),
        "stable-diffusion-xl": ("SDXL base, Turbo", _BY_DIFFUSERS),
        "stable-diffusion-3": ("Stable Diffusion 3, 3.5", _BY_DIFFUSERS),
        "flux": ("FLUX.1 dev, schnell", _BY_DIFFUSERS),
        "qwen-image": ("Qwen-Image", _BY_DIFFUSERS),
    }
)
NEVER_ON_A_DEVICE = (
    "What is for CUDA or TensorRT was tested without a device, and never ran on one."
)


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """One line of the table, in the order of its columns."""

    family: str
    architectures: str
    models: str
    targets: str
    verified: str


def family_rows() -> Iterator[FamilyRow]:
    """Language models, then image models."""
    for family in dict.fromkeys(FAMILIES.values()):
        architectures = (name for name, found in FAMILIES.items() if found is family)
        yield _row(family.name, architectures, _language_targets(family))
    for name in dict.fromkeys(pipeline.family for pipeline in PIPELINES.values()):
        classes = (kind for kind, pipeline in PIPELINES.items() if pipeline.family == name)
        precisions = "int8, fp32" if name in INT8_FAMILIES else "fp32"
        on_gpus = ", ".join(gpu_precisions(name))
        yield _row(name, classes, f"CPU: {precisions}; CUDA and TensorRT: {on_gpus}")


def render() -> str:
    """The table as Markdown."""
    rows = [_TITLES, ("---",) * len(_TITLES)]
    rows += [
        (row.family, row.architectures, row.models, row.targets, row.verified)
        for row in family_rows()
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([*lines, "", NEVER_ON_A_DEVICE, ""])


def _row(name: str, architectures: Iterator[str], targets: str) -> FamilyRow:
    models, verified = _MODELS[name]
    spelled = ", ".join(f"`{architecture}`" for architecture in architectures)
    return FamilyRow(name, spelled, models, targets, verified)


def _language_targets(family: Family) -> str:
    taken: tuple[Target, ...] = ("ort-cpu", "cuda", "tensorrt")
    if family.is_hybrid:
        taken = ("ort-cpu",)
    elif family.has_experts:
        taken = ("ort-cpu", "cuda")
    return "; ".join(f"{_TARGETS[target]}: {', '.join(PRECISIONS[target])}" for target in taken)
