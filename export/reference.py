"""The models that an engine is verified against: transformers in fp32, or an fp32 engine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from engines.backends.ort import OrtCpuRunner
from engines.llm.runner import Batch
from engines.load import physical_cores
from engines.manifest import ChatSpec
from export.agreement import FloatArray
from export.checkpoint import open_checkpoint
from export.compile import CompileOptions, compile_engine, plan_compilation
from export.report import QuietProgress

Prompts = Sequence[Sequence[int]]


def has_transformers() -> bool:
    """Whether the reference implementation is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def transformers_name() -> str:
    return f"transformers {metadata.version('transformers')} fp32"


def transformers_logits(checkpoint: Path, prompts: Prompts, num_tokens: int) -> list[FloatArray]:
    """Logits of every position by the reference implementation, [S, num_tokens] a prompt."""
    import torch

    transformers: Any = importlib.import_module("transformers")  # it has no types
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    ).eval()
    with torch.inference_mode():
        return [
            model(torch.tensor([list(ids)])).logits[0, :, :num_tokens].numpy().copy()
            for ids in prompts
        ]


def fp32_engine_logits(checkpoint: Path, scratch: Path, prompts: Prompts) -> list[FloatArray]:
    """The same by an engine of full precision, which is compiled into the folder `scratch`."""
    options = CompileOptions(engine_id="reference", precision="fp32", max_context=longest(prompts))
    plan = plan_compilation(open_checkpoint(checkpoint, "reference"), options)
    manifest = compile_engine(plan, scratch, QuietProgress())
    assert manifest.chat is not None
    return engine_logits(scratch, manifest.chat, prompts)


def engine_logits(engine_dir: Path, spec: ChatSpec, prompts: Prompts) -> list[FloatArray]:
    """Logits of every position by a compiled engine, [S, num_tokens] a prompt."""
    runner = OrtCpuRunner(engine_dir / spec.graph, spec, 1, longest(prompts), physical_cores())
    logits = []
    for ids in prompts:
        output = runner.run(
            Batch(
                first_slot=0,
                input_ids=np.array([ids], np.int64),
                past_lens=np.zeros(1, np.int32),
                logit_indices=np.arange(len(ids)),
            )
        )
        logits.append(np.stack([output.logits(row) for row in range(len(ids))]))
    runner.close()
    return logits


def longest(prompts: Prompts) -> int:
    return max(map(len, prompts))
