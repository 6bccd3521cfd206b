"""Measures OpenVINO; run by the Python that has it installed.

OPENVINO_PYTHON -m benchmarks.images.openvino_cpu --model DIR [--threads N ...]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import openvino as ov  # type: ignore[import-not-found,unused-ignore]

from benchmarks.images.adapter import ImageModel, run_adapter


class OpenVinoModel(ImageModel):
    """The components that `openvino_build` made, each compiled for any size."""

    def __init__(self, folder: Path, num_threads: int, compute: str) -> None:
        told = json.loads((folder / "shapes.json").read_text())
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": num_threads,
            "INFERENCE_PRECISION_HINT": compute,
        }

        def open_component(name: str) -> ov.InferRequest:
            model = core.compile_model(folder / f"{name}.xml", "CPU", settings)
            return model.create_infer_request()

        self._text_encoder = open_component("text_encoder")
        self._unet = open_component("unet")
        self._vae_decoder = open_component("vae_decoder")
        self._channels, self._scale = told["latent_channels"], told["latent_scale"]
        length, width = told["context_length"], told["context_width"]
        rng = np.random.default_rng(0)
        self._rng = rng
        self._token_ids = np.ones((2, length), np.int64)  # [2, length]
        self._context = rng.standard_normal((2, length, width), np.float32)  # [2, length, width]
        self.version = f"OpenVINO {ov.__version__.partition('-')[0]}"

    def encode_texts(self) -> None:
        self._text_encoder.infer([self._token_ids])

    def guided_step(self, size: int) -> None:
        sample = self._latents(2, size)
        self._unet.infer([sample, np.full(2, 500.0, np.float32), self._context])

    def decode(self, size: int) -> None:
        self._vae_decoder.infer([self._latents(1, size)])

    def _latents(self, rows: int, size: int) -> np.ndarray:
        side = size // self._scale
        return self._rng.standard_normal((rows, self._channels, side, side), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compute", choices=("f32", "bf16"), default="f32")
    run_adapter(lambda args: OpenVinoModel(args.model, args.threads, args.compute), parser)


if __name__ == "__main__":
    main()
