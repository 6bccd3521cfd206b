"""What LoRA files call the modules of a checkpoint: dotted, with underscores, or as the original.

All spellings are made from the modules that there are, so that underscores need no guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from export.diffusion.checkpoint import DiffusionCheckpoint
from export.diffusion.lora.original_names import Names, flux_names, unet_names
from export.diffusion.pipelines import TEXT_ENCODER
from export.lora.files import PEFT_PREFIX
from export.tensor_files import TensorFiles

_WEIGHT = ".weight"
_TEXT_MODEL = "text_model."
_DENOISER_PREFIXES = ("", PEFT_PREFIX, "diffusion_model.", "model.diffusion_model.")
_KOHYA_DENOISER = "lora_unet_"
# As diffusers' attention processors called their layers, and those of text encoders.
_OLD_LAYERS = (
    (".to_out.0", ".to_out"),
    (".q_proj", ".to_q"),
    (".k_proj", ".to_k"),
    (".v_proj", ".to_v"),
    (".out_proj", ".to_out"),
)


@dataclass(frozen=True, slots=True)
class Target:
    """A tensor that a layer is added to.

    `rows` (half-open) are the layer's rows that it takes, where a layer stands for several tensors.
    """

    component: str
    tensor: str
    rows: tuple[int, int] | None = None


OriginalNames = Callable[[dict[str, str], dict[str, Any]], Names]


def spell_modules(checkpoint: DiffusionCheckpoint) -> dict[str, tuple[Target, ...]]:
    """Every name that a module may have in a LoRA file."""
    spellings: dict[str, tuple[Target, ...]] = {}
    for component in checkpoint.components.values():
        modules = _modules(component.tensors)
        prefixes = _prefixes(component.name, checkpoint.pipeline.denoiser)
        for module, tensor in modules.items():
            target = (Target(component.name, tensor),)
            for prefix, has_dots in prefixes:
                for spelled in _variants(module):
                    name = spelled if has_dots else spelled.replace(".", "_")
                    spellings.setdefault(prefix + name, target)
        if component.class_name in _ORIGINALS:
            original = _ORIGINALS[component.class_name]
            for module, parts in original(modules, component.config).items():
                targets = tuple(_targets(component.name, component.tensors, parts))
                for prefix, has_dots in prefixes:
                    name = module if has_dots else module.replace(".", "_")
                    spellings.setdefault(prefix + name, targets)
    return spellings


def normalize(module: str) -> str:
    """The name of a module without what only says where its matrices were kept."""
    return module.replace(".processor.", ".")


def _modules(tensors: TensorFiles) -> dict[str, str]:
    """Module -> tensor, for every matrix and every convolution."""
    return {
        name.removesuffix(_WEIGHT).removeprefix(_TEXT_MODEL): name
        for name in tensors
        if name.endswith(_WEIGHT) and len(tensors.shape(name)) > 1
    }


def _prefixes(component: str, denoiser: str) -> list[tuple[str, bool]]:
    """What stands before a module's name, and whether the name keeps its dots."""
    prefixes = [(f"{component}.", True)]
    if component == denoiser:
        prefixes += [(prefix, True) for prefix in _DENOISER_PREFIXES]
        prefixes += [(_KOHYA_DENOISER, False)]
    elif component.startswith(TEXT_ENCODER):
        number = component.removeprefix(TEXT_ENCODER).removeprefix("_") or "1"
        encoders = ["te1", "te"] if number == "1" else [f"te{number}"]
        for start in (f"{component}.", *(f"lora_{encoder}_" for encoder in encoders)):
            is_dotted = start.endswith(".")
            prefixes += [(start, is_dotted)]
            prefixes += [(start + (_TEXT_MODEL if is_dotted else "text_model_"), is_dotted)]
    return prefixes


def _variants(module: str) -> Iterator[str]:
    yield module
    for new, old in _OLD_LAYERS:
        if module.endswith(new):
            yield module.removesuffix(new) + old


def _targets(component: str, tensors: TensorFiles, parts: tuple[str, ...]) -> Iterator[Target]:
    """The tensors that lie behind each other in an original's one."""
    start = 0
    for tensor in parts:
        stop = start + tensors.shape(tensor)[0]
        yield Target(component, tensor, (start, stop) if len(parts) > 1 else None)
        start = stop


_ORIGINALS: Mapping[str, OriginalNames] = MappingProxyType(
    {"UNet2DConditionModel": unet_names, "FluxTransformer2DModel": flux_names}
)
