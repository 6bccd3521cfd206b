"""Makes OpenVINO's models; run by the Python that has it installed, imports nothing of ours.

OPENVINO_PYTHON benchmarks/images/openvino_build.py --checkpoint DIR --output DIR
OPENVINO_PYTHON benchmarks/images/openvino_build.py --f32 DIR --weights int8 --output DIR

The first form converts the torch modules and needs torch, diffusers and transformers. The second
quantizes what the first made, and needs nncf: `int8-weights` stores weights by channel and computes
in floats, `int8` computes convolutions and matmuls in int8, calibrated on noise.
"""

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov  # type: ignore[import-not-found,unused-ignore]

COMPONENTS = ("text_encoder", "unet", "vae_decoder")
CALIBRATION_PIXELS = 256
CALIBRATION_TIMESTEPS = (1.0, 250.0, 500.0, 750.0, 999.0)
TRACE_LATENT_SIZE = 16


def main() -> None:
    args = parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.f32 is None:
        convert(args.checkpoint, args.output)
    else:
        quantize(args.f32, args.output, args.weights)


def convert(checkpoint: Path, output: Path) -> None:
    """From torch, in fp32 and for any batch and size."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    class TextEncoder(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor) -> Any:
            return self.model(input_ids).last_hidden_state

    class Unet(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(
            self, sample: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor
        ) -> Any:
            return self.model(sample, timestep, context, return_dict=False)[0]

    class VaeDecoder(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, latents: torch.Tensor) -> Any:
            return self.model.decode(latents, return_dict=False)[0]

    def load(kind: Any, folder: str) -> Any:
        return kind.from_pretrained(checkpoint, subfolder=folder).float().eval()

    size = TRACE_LATENT_SIZE
    text_encoder = load(CLIPTextModel, "text_encoder")
    width = text_encoder.config.hidden_size
    length = text_encoder.config.max_position_embeddings
    ids = torch.ones(1, length, dtype=torch.int64)
    save(TextEncoder(text_encoder), (ids,), [[-1, length]], output / "text_encoder.xml")
    unet = load(UNet2DConditionModel, "unet")
    channels = unet.config.in_channels
    inputs = (torch.randn(2, channels, size, size), torch.ones(2), torch.randn(2, length, width))
    shapes = [[-1, channels, -1, -1], [-1], [-1, length, width]]
    save(Unet(unet), inputs, shapes, output / "unet.xml")
    del unet
    vae = VaeDecoder(load(AutoencoderKL, "vae"))
    latents = torch.randn(1, channels, size, size)
    save(vae, (latents,), [[-1, channels, -1, -1]], output / "vae_decoder.xml")
    told = {
        "context_length": length,
        "context_width": width,
        "latent_channels": channels,
        "latent_scale": 2 ** (len(vae.model.config.block_out_channels) - 1),
    }
    (output / "shapes.json").write_text(json.dumps(told))


def save(module: Any, inputs: tuple[Any, ...], shapes: list[list[int]], path: Path) -> None:
    import torch

    with torch.no_grad():
        model = ov.convert_model(module.eval(), example_input=inputs)
    model.reshape({port: ov.PartialShape(s) for port, s in zip(model.inputs, shapes, strict=True)})
    ov.save_model(model, path, compress_to_fp16=False)


def quantize(source: Path, output: Path, weights: str) -> None:
    """The UNet and the VAE decoder; the text encoder runs once a picture and stays as it is."""
    import nncf  # type: ignore[import-not-found,unused-ignore]

    core = ov.Core()
    rng = np.random.default_rng(0)
    told = json.loads((source / "shapes.json").read_text())
    for name in COMPONENTS:
        model = core.read_model(source / f"{name}.xml")
        if weights == "int8-weights":
            model = nncf.compress_weights(model)
        elif name != "text_encoder":
            samples = list(calibration(name, told, rng))
            model = nncf.quantize(
                model,
                nncf.Dataset(samples),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(samples),
                fast_bias_correction=True,
                model_type=nncf.ModelType.TRANSFORMER,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    disable_bias_correction=True  # moves biases only: no matter for speed
                ),
            )
        ov.save_model(model, output / f"{name}.xml", compress_to_fp16=False)
    shutil.copy(source / "shapes.json", output / "shapes.json")


def calibration(
    name: str, told: dict[str, int], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, ...]]:
    size = CALIBRATION_PIXELS // told["latent_scale"]
    for timestep in CALIBRATION_TIMESTEPS:
        latents = rng.standard_normal((1, told["latent_channels"], size, size), np.float32)
        if name == "vae_decoder":
            yield (latents,)
            return
        context = rng.standard_normal(
            (1, told["context_length"], told["context_width"]), np.float32
        )
        yield latents, np.full(1, timestep, np.float32), context


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--f32", type=Path)
    parser.add_argument("--weights", choices=("int8-weights", "int8"))
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if (args.checkpoint is None) == (args.f32 is None):
        parser.error("name either --checkpoint or --f32")
    if (args.f32 is None) != (args.weights is None):
        parser.error("--weights goes with --f32")
    return args


if __name__ == "__main__":
    main()
