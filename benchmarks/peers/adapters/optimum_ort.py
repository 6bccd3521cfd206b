"""Measures optimum-onnx: `OPTIMUM_PYTHON -m benchmarks.peers.adapters.optimum_ort --model DIR`."""

import argparse
from importlib.metadata import version

import onnxruntime
from optimum.onnxruntime import (  # type: ignore[import-not-found,unused-ignore]
    ORTModelForCausalLM,
)

from benchmarks.peers.adapters.adapter import run_adapter
from benchmarks.peers.adapters.torch_models import TorchModel


class OptimumModel(TorchModel):
    """Its exported graph in fp32 through ONNX Runtime."""

    def __init__(self, args: argparse.Namespace) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        model = ORTModelForCausalLM.from_pretrained(args.model, session_options=options)
        packages = f"optimum-onnx {version('optimum-onnx')} on onnxruntime {version('onnxruntime')}"
        super().__init__(model, packages)


if __name__ == "__main__":
    run_adapter(OptimumModel, argparse.ArgumentParser(description=__doc__))
