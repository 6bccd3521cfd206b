"""Stand-ins for OpenVINO and NNCF: modules with the calls that the benchmarks make."""

from __future__ import annotations

import json
from pathlib import Path

SHAPES = {"context_length": 6, "context_width": 5, "latent_channels": 4, "latent_scale": 8}
COMPONENTS = ("text_encoder", "unet", "vae_decoder")

_OPENVINO = '''
"""openvino; refuses what the real one would refuse. A model is the text in its file."""
__version__ = "2030.1.0-123-abc"

class Core:
    def read_model(self, path):
        return path.read_text()
    def compile_model(self, path, device, settings):
        assert device == "CPU"
        assert settings["INFERENCE_NUM_THREADS"] == 3
        if settings["INFERENCE_PRECISION_HINT"] == "bf16":
            raise RuntimeError("this machine has no bf16")
        return CompiledModel(path.stem, path.read_text())

class CompiledModel:
    def __init__(self, name, text):
        self.name, self.text = name, text
    def create_infer_request(self):
        return self
    def infer(self, inputs):
        shapes = [array.shape for array in inputs]
        side = shapes[0][-1]
        expected = {
            "text_encoder": [(2, 6)],
            "unet": [(2, 4, side, side), (2,), (2, 6, 5)],
            "vae_decoder": [(1, 4, side, side)],
        }
        assert shapes == expected[self.name], shapes
        assert self.name == "text_encoder" or side in (2, 4)

InferRequest = CompiledModel

def save_model(model, path, compress_to_fp16):
    assert not compress_to_fp16
    path.write_text(model)
'''
_NNCF = '''
"""nncf; marks what it was given."""
class QuantizationPreset:
    MIXED = "mixed"

class ModelType:
    TRANSFORMER = "transformer"

class AdvancedQuantizationParameters:
    def __init__(self, disable_bias_correction):
        pass

class Dataset:
    def __init__(self, samples):
        self.samples = samples

def compress_weights(model):
    return model + " with small weights"

def quantize(model, dataset, preset, subset_size, fast_bias_correction, model_type,
             advanced_parameters):
    assert subset_size == len(dataset.samples) > 0
    return f"{model} in int8, seen {len(dataset.samples)} samples of {len(dataset.samples[0])}"
'''


def make_modules(folder: Path) -> Path:
    """A folder for PYTHONPATH."""
    folder.mkdir()
    (folder / "openvino.py").write_text(_OPENVINO)
    (folder / "nncf.py").write_text(_NNCF)
    return folder


def make_f32_model(folder: Path) -> Path:
    """What the conversion from torch leaves."""
    folder.mkdir(parents=True)
    for name in COMPONENTS:
        (folder / f"{name}.xml").write_text(name)
    (folder / "shapes.json").write_text(json.dumps(SHAPES))
    return folder
