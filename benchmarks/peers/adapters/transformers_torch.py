"""Measures transformers: `TORCH_PYTHON -m benchmarks.peers.adapters.transformers_torch ...`"""

import argparse
from typing import Any

import torch
import transformers

from benchmarks.peers.adapters.adapter import run_adapter
from benchmarks.peers.adapters.torch_models import TorchModel


class TransformersModel(TorchModel):
    """The model as published, eager, with the head of the last token only."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.set_num_threads(args.threads)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            args.model, dtype=torch.bfloat16
        )
        version = f"transformers {transformers.__version__} on torch {torch.__version__}"
        super().__init__(model.eval(), version)

    def _more(self) -> dict[str, Any]:
        return {"logits_to_keep": 1}


if __name__ == "__main__":
    run_adapter(TransformersModel, argparse.ArgumentParser(description=__doc__))
