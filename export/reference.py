"""The models that an engine is verified against: transformers in fp32, or an fp32 engine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from engines.backends.ort import OrtCpuRunner
from engines.llm.runner import Batch
from engines.machine import usable_cores
from export.agreement import FloatArray
from export.checkpoint import Checkpoint
from export.compile import compile_engine
from export.compile_plan import CompileOptions, plan_compilation
from export.lora.adapter import merged_names
from export.quantized.tensors import QuantizedTensorFiles
from export.qwen.families import find_family
from export.report import QuietProgress

Sequences = Sequence[list[int]]


def has_transformers() -> bool:
    """Whether the reference implementation is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def knows_family(family: str) -> bool:
    """Whether the reference implementation is installed and has this family."""
    return has_transformers() and find_family(family).in_transformers


def transformers_name() -> str:
    return f"transformers {metadata.version('transformers')} fp32"


def transformers_logits(
    checkpoint: Checkpoint, sequences: Sequences, num_tokens: int
) -> Iterator[FloatArray]:
    """Logits of every position by the reference implementation, [S, num_tokens] a sequence."""
    import torch

    transformers: Any = importlib.import_module("transformers")  # it has no types
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = _load(transformers, checkpoint).eval()
    with torch.inference_mode():
        for name in merged_names(checkpoint):
            parameter = model.get_parameter(name.replace("model.language_model.", "model."))
            parameter.copy_(torch.from_numpy(checkpoint.tensors.read(name)))
        for ids in sequences:
            yield model(torch.tensor([ids])).logits[0, :, :num_tokens].numpy()


def _load(transformers: Any, checkpoint: Checkpoint) -> Any:
    """The model in fp32; the weights of a quantized checkpoint are expanded by our own reader."""
    import torch

    tensors, folder = checkpoint.tensors, checkpoint.folder
    settings: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True}
    if not isinstance(tensors, QuantizedTensorFiles):
        settings |= {"use_safetensors": True, "trust_remote_code": False}
        return transformers.AutoModelForCausalLM.from_pretrained(folder, **settings)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    del config.quantization_config
    weights = {name: torch.from_numpy(tensors.read(name)) for name in tensors.plain_names}
    with torch.device("meta"):
        kind = type(transformers.AutoModelForCausalLM.from_config(config))
    return kind.from_pretrained(None, config=config, state_dict=weights, **settings)


def fp32_engine_logits(
    checkpoint: Checkpoint, scratch: Path, sequences: Sequences
) -> Iterator[FloatArray]:
    """The same by an engine of full precision, which is compiled into the folder `scratch`."""
    length = max(map(len, sequences))
    options = CompileOptions(engine_id="reference", precision="fp32", max_context=length)
    plan = plan_compilation(checkpoint, options)
    spec = compile_engine(plan, scratch, QuietProgress()).chat
    assert spec is not None
    runner = OrtCpuRunner(scratch / spec.graph, spec, 1, length, usable_cores())
    for ids in sequences:
        rows = np.arange(len(ids))
        output = runner.run(Batch(0, np.array([ids]), np.zeros(1, np.int32), rows))
        yield np.stack([output.logits(row) for row in range(len(ids))])
    runner.close()
