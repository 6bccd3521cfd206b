"""Whole tiny pipelines: every graph that is planned compiles, fits the others and says so."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.compile import compile_component, plan_graphs
from tests.export.diffusion.graphs import FP32, CompiledGraph, assert_close, random
from tests.export.diffusion.tiny_pipelines import EOS_TOKEN_ID

TIMESTEP = 601.0


class CompiledPipeline:
    """All graphs of a checkpoint and what was told about their files."""

    def __init__(self, checkpoint, folder) -> None:
        self.folder = folder
        self.files, self.parts, self.plans = {}, {}, plan_graphs(checkpoint)
        for graph in self.plans:
            told = self.parts[graph.name] = []
            self.files |= compile_component(graph, folder, FP32, told.append)
        self.graphs = {
            graph.name: CompiledGraph(folder / f"{graph.name}.onnx") for graph in self.plans
        }

    def predict(self, ids, latents):
        """The prompt's rows and what the UNet makes of them, as the engine will run it."""
        encoders = [name for name in self.graphs if name.startswith("text_encoder")]
        found = [self.graphs[name].run(input_ids=ids) for name in encoders]
        context = torch.cat([outputs["hidden_states"] for outputs in found], dim=-1)
        inputs = {name: value for name, value in found[-1].items() if name == "text_embeds"}
        if inputs:
            inputs["time_ids"] = TIME_IDS.repeat(len(ids), 1)
        timestep = torch.full((len(ids),), TIMESTEP)
        unet = self.graphs["unet"]
        return unet.run(sample=latents, timestep=timestep, encoder_hidden_states=context, **inputs)[
            "model_output"
        ]


TIME_IDS = torch.tensor([[64.0, 48, 8, 0, 64, 64]])


@pytest.fixture(scope="module")
def compiled(pipeline, tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            checkpoint = open_diffusion_checkpoint(pipeline(name), name)
            made[name] = CompiledPipeline(checkpoint, tmp_path_factory.mktemp(f"compiled-{name}"))
        return made[name]

    return get


def token_ids():
    ids = torch.randint(3, 200, (2, 77), generator=torch.Generator().manual_seed(5))
    ids[0, 9:], ids[1, 30:] = EOS_TOKEN_ID, EOS_TOKEN_ID
    return ids


@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_a_prompt_goes_through_text_encoder_and_unet_as_in_diffusers(compiled, pipeline, name):
    reference = StableDiffusionPipeline.from_pretrained(pipeline(name))
    ids, latents = token_ids(), random(2, 4, 8, 8)
    with torch.inference_mode():
        rows = reference.text_encoder(ids)[0]
        expected = reference.unet(latents, TIMESTEP, rows).sample
    assert_close(compiled(name).predict(ids, latents), expected)


def test_a_prompt_goes_through_two_text_encoders_and_unet_as_in_diffusers(compiled, pipeline):
    reference = StableDiffusionXLPipeline.from_pretrained(pipeline("sdxl"), add_watermarker=False)
    ids, latents = token_ids(), random(2, 4, 8, 8)
    with torch.inference_mode():
        found = [
            encoder(ids, output_hidden_states=True)
            for encoder in (reference.text_encoder, reference.text_encoder_2)
        ]
        rows = torch.cat([outputs.hidden_states[-2] for outputs in found], dim=-1)
        added = {"text_embeds": found[1][0], "time_ids": TIME_IDS.repeat(2, 1)}
        expected = reference.unet(latents, TIMESTEP, rows, added_cond_kwargs=added).sample
    assert_close(compiled("sdxl").predict(ids, latents), expected)


def test_latents_are_in_the_units_of_the_denoiser(compiled, pipeline):
    reference = StableDiffusionXLPipeline.from_pretrained(pipeline("sdxl"), add_watermarker=False)
    latents = 0.1 * random(1, 4, 8, 8)
    with torch.inference_mode():
        expected = reference.vae.decode(latents / 0.13025).sample
    assert_close(compiled("sdxl").graphs["vae_decoder"].run(latents=latents)["images"], expected)


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_files_are_described_as_they_are(compiled, name):
    built = compiled(name)
    assert {path.name for path in built.folder.iterdir()} == set(built.files)
    for file, entry in built.files.items():
        content = (built.folder / file).read_bytes()
        assert entry.size == len(content)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl"])
def test_the_progress_comes_as_often_as_it_was_promised(compiled, name):
    built = compiled(name)
    for graph in built.plans:
        assert len(built.parts[graph.name]) == graph.num_parts
        assert len(set(built.parts[graph.name])) == graph.num_parts


def test_sizes_and_batch_are_left_open(compiled):
    inputs = compiled("sdxl").graphs["unet"].inputs
    assert inputs["sample"] == ["batch", 4, "height", "width"]
    assert inputs["timestep"] == ["batch"]
    assert inputs["encoder_hidden_states"] == ["batch", "num_tokens", 80]
    assert inputs["text_embeds"] == ["batch", 24]
    assert inputs["time_ids"] == ["batch", 6]


def test_drawing_needs_neither_torch_nor_diffusers():
    script = (
        "import sys; import export.diffusion.compile; "
        "print({'torch', 'diffusers', 'transformers', 'onnxruntime'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
