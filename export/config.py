"""`ExportConfig`: the options of `python -m export`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from engines.manifest import Target
from export.lora.option import Lora, pair_loras
from export.precision import KVCacheLayout, KVCachePrecision, Layout, Override, parse_override

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Compile a Qwen or a Stable Diffusion checkpoint into an engine."""

    checkpoint_path: Annotated[
        str, Parameter(help="a checkpoint folder, or a hub id such as Qwen/Qwen3-0.6B")
    ]
    output: Annotated[Path, Parameter(help="folder that gets the engine's folder")] = Path(
        "engines/built"
    )
    name: Annotated[
        str | None, Parameter(help="id of the engine; by default the hub id or the folder's name")
    ] = None
    precision: Annotated[
        Layout | None,
        Parameter(
            help="int8: the best speed for many users; int4: the least memory; "
            "by default int8, or what a quantized checkpoint has; for images int8 only where their "
            "quality allows it, and otherwise fp32; "
            "for a GPU bf16 (the default), fp16, or int4 on CUDA"
        ),
    ] = None
    optimize: Annotated[
        Literal["throughput", "latency", "memory"] | None,
        Parameter(
            help="instead of --precision: throughput is int8, the default; latency is int8 for "
            "prompts and int4 for the tokens of answers, in more memory; memory is int4"
        ),
    ] = None
    target: Annotated[
        Target,
        Parameter(help="what will run the engine: the CPU, a GPU through ONNX Runtime or TensorRT"),
    ] = "ort-cpu"
    calibration_prompts: Annotated[
        Path | None,
        Parameter(
            help="file of prompts, one a line, that an image model draws while its activations are "
            "measured for int8, or a language model reads for --smooth and "
            "--kv-cache-precision int8; by default some of many kinds"
        ),
    ] = None
    smooth: Annotated[
        bool,
        Parameter(
            help="of a language model in int8: shift outliers of activations into the weights that "
            "read them, where that lowers the measured error",
            negative="",
        ),
    ] = False
    reduce_range: Annotated[
        bool | None,
        Parameter(
            help="weights in int8 fill 7 bits only, whose products a processor without VNNI adds "
            "up exactly at full speed; by default where this one has none, so that the engine is "
            "best compiled where it will run"
        ),
    ] = None
    override: Annotated[
        tuple[str, ...],
        Parameter(help="another layout for some nodes, such as head=fp32 or layers.0.down=int8"),
    ] = ()
    int4_block_size: Annotated[
        Literal[32, 128] | None,
        Parameter(help="weights that share a scale; by default chosen for each node by its error"),
    ] = None
    task: Annotated[
        Literal["chat", "embedding", "rerank"] | None,
        Parameter(help="what a language model is for; by default what its files say"),
    ] = None
    max_context: Annotated[
        int | None, Parameter(help="tokens of prompt and answer; by default all the model can take")
    ] = None
    kv_cache: Annotated[
        KVCacheLayout,
        Parameter(
            help="of a language model on CUDA: blocks that sequences share, or a slot for each; "
            "auto: blocks where there is a kernel for them"
        ),
    ] = "auto"
    kv_cache_precision: Annotated[
        KVCachePrecision | None,
        Parameter(
            help="of a language model on the CPU; int8: a quarter of the memory, with scales that "
            "are measured at the export; by default fp32"
        ),
    ] = None
    num_inference_steps: Annotated[
        int | None, Parameter(help="steps of a picture where a request names none; by the pipeline")
    ] = None
    guidance_scale: Annotated[
        float | None, Parameter(help="guidance where a request names none; by the pipeline")
    ] = None
    lora: Annotated[
        tuple[Path, ...],
        Parameter(
            help="LoRA (a safetensors file, or PEFT's folder) to add to the weights; needs --name"
        ),
    ] = ()
    lora_scale: Annotated[
        tuple[float, ...],
        Parameter(help="strength of a --lora, in their order; 1.0 for those without"),
    ] = ()
    revision: Annotated[
        str | None, Parameter(help="branch, tag or commit on the hub; by default its main branch")
    ] = None
    force: Annotated[
        bool, Parameter(help="replace an engine of that name; keep one that fails its verification")
    ] = False
    verify: Annotated[bool, Parameter(help="compare the engine with the reference model")] = True
    quiet: Annotated[bool, Parameter(help="print nothing but errors", negative="")] = False
    json: Annotated[bool, Parameter(help="print one JSON object about the engine", negative="")] = (
        False
    )

    def __post_init__(self) -> None:
        if self.max_context is not None and self.max_context < 2:
            raise ValueError(f"--max-context is {self.max_context}, but has to be 2 at least")
        if self.optimize is not None and self.precision is not None:
            raise ValueError(
                f"--optimize {self.optimize} and --precision {self.precision} both choose the "
                "weights: leave one of them out"
            )
        if self.optimize is not None and self.target != "ort-cpu":
            raise ValueError(
                f"--optimize {self.optimize} is for ort-cpu, but --target is {self.target}: choose "
                "a --precision"
            )
        has_no_int8 = self.precision in ("fp32", "fp16", "bf16") and not self.override
        if self.reduce_range is not None and (has_no_int8 or self.target != "ort-cpu"):
            raise ValueError(
                f"--reduce-range is for weights in int8, but --precision is {self.precision} and "
                f"--target is {self.target}: leave it out"
            )
        if self.name is not None:
            check_engine_id(self.name)
        if self.lora and self.name is None:
            raise ValueError(
                "--lora makes another model of the checkpoint, so it needs a name: add --name"
            )
        self.overrides, self.loras  # noqa: B018  (report a malformed one at once)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is shown while the export works."""
        return self.quiet or self.json

    @property
    def loras(self) -> tuple[Lora, ...]:
        """The files of `lora` with their strengths."""
        return pair_loras(self.lora, self.lora_scale)

    @property
    def overrides(self) -> tuple[Override, ...]:
        """The parsed `override`."""
        return tuple(parse_override(text) for text in self.override)


def check_engine_id(engine_id: str) -> None:
    """Refuse an id that would not do in a URL or as a folder's name.

    Raises:
        ValueError: It says which characters may be used.
    """
    if not _NAME.fullmatch(engine_id):
        raise ValueError(
            f"the engine's name {engine_id!r} may hold letters, digits, '.', '_', '-' and one '/': "
            "choose another --name"
        )


def slug(engine_id: str) -> str:
    """The folder's name for an engine id: `Qwen/Qwen3-0.6B` -> `Qwen--Qwen3-0.6B`."""
    return engine_id.replace("/", "--")
