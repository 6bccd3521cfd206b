"""How each component is drawn for a GPU: which are in half precision, and what in them is not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from export.diffusion.checkpoint import Component, DiffusionCheckpoint
from export.diffusion.gpu.builder import GpuLayout
from export.diffusion.pipelines import Family
from export.errors import ExportError

GpuPrecision = Literal["fp16", "fp32"]

# Sums that grow from layer to layer: in transformers they pass what half precision holds.
_RESIDUAL_SUMS = ("*.sum",)

# By the class of a component: what is float32 in any case. UNets and autoencoders were trained and
# are published in half precision; T5's last layer of each block is known to overflow it.
_WIDE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "CLIPTextModel": _RESIDUAL_SUMS,
        "CLIPTextModelWithProjection": _RESIDUAL_SUMS,
        "T5EncoderModel": (*_RESIDUAL_SUMS, "*.DenseReluDense.wo.*"),
        "UNet2DConditionModel": (),
        "SD3Transformer2DModel": _RESIDUAL_SUMS,
        "FluxTransformer2DModel": _RESIDUAL_SUMS,
        "AutoencoderKL": (),
    }
)


def gpu_layouts(
    checkpoint: DiffusionCheckpoint, precision: GpuPrecision, *, standard_only: bool
) -> dict[str, GpuLayout]:
    """The layout of each component.

    Raises:
        ExportError: There is none for one of them.
    """
    return {
        name: _layout(component, checkpoint.pipeline.family, precision, standard_only)
        for name, component in checkpoint.components.items()
    }


def _layout(
    component: Component, family: Family, precision: GpuPrecision, standard_only: bool
) -> GpuLayout:
    if component.class_name not in _WIDE:
        raise ExportError(
            f"the {component.name} is a {component.class_name}, which is not compiled for GPUs: "
            "its activations exceed what fp16 holds; choose --target ort-cpu"
        )
    # The autoencoder of SDXL exceeds half precision, and its config says so; that of the others
    # leaves the setting at its default, and does not.
    upcast = (
        component.class_name == "AutoencoderKL"
        and family == "stable-diffusion-xl"
        and component.config.get("force_upcast", True)
    )
    return GpuLayout(
        half=precision == "fp16" and not upcast,
        wide=_WIDE[component.class_name],
        standard_only=standard_only,
    )
