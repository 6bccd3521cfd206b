"""How each component is drawn for a GPU: which are in half precision, and what in them is not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from export.diffusion.checkpoint import Component, DiffusionCheckpoint
from export.diffusion.gpu.builder import GpuLayout
from export.diffusion.pipelines import Family
from export.errors import ExportError

GpuPrecision = Literal["fp16", "bf16", "fp32"]

# Qwen-Image was trained in bf16, and its activations exceed what fp16 holds.
_NEEDS_BF16: tuple[Family, ...] = ("qwen-image",)

# Sums that grow from layer to layer: in transformers they pass what half precision holds.
_RESIDUAL_SUMS = ("*.sum",)

# By the class of a component: what is float32 in any case. UNets and autoencoders were trained and
# are published in half precision; T5's last layer of each block is known to overflow it.
_WIDE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "CLIPTextModel": _RESIDUAL_SUMS,
        "CLIPTextModelWithProjection": _RESIDUAL_SUMS,
        "T5EncoderModel": (*_RESIDUAL_SUMS, "*.DenseReluDense.wo.*"),
        "Qwen2_5_VLForConditionalGeneration": (*_RESIDUAL_SUMS, "*.rotated.*"),
        "SD3Transformer2DModel": _RESIDUAL_SUMS,
        "FluxTransformer2DModel": _RESIDUAL_SUMS,
        "QwenImageTransformer2DModel": _RESIDUAL_SUMS,
    }
)
_EXACT = ("rope.*",)  # weights: tables of angles


def gpu_precisions(family: Family) -> tuple[GpuPrecision, ...]:
    """What a family is compiled in for GPUs, the default first."""
    return ("bf16", "fp32") if family in _NEEDS_BF16 else ("fp16", "fp32")


def gpu_layouts(
    checkpoint: DiffusionCheckpoint, precision: GpuPrecision, *, standard_only: bool
) -> dict[str, GpuLayout]:
    """The layout of each component.

    Raises:
        ExportError: The family is not compiled in that precision.
    """
    family = checkpoint.pipeline.family
    allowed = gpu_precisions(family)
    if precision not in allowed:
        raise ExportError(
            f"--precision is {precision}, but {family} is compiled for GPUs in "
            f"{' or '.join(allowed)}: choose one"
        )
    return {
        name: GpuLayout(
            precision="fp32" if _is_upcast(component, family) else precision,
            wide=_WIDE.get(component.class_name, ()),
            exact=_EXACT,
            standard_only=standard_only,
        )
        for name, component in checkpoint.components.items()
    }


def _is_upcast(component: Component, family: Family) -> bool:
    """Whether a component is float32 as a whole.

    The autoencoder of SDXL exceeds half precision, and its config says so; that of the others
    leaves the setting at its default, and does not. Convolutions have no bf16 in ONNX's opset 21.
    """
    if component.class_name == "AutoencoderKLQwenImage":
        return True
    return (
        component.class_name == "AutoencoderKL"
        and family == "stable-diffusion-xl"
        and bool(component.config.get("force_upcast", True))
    )
