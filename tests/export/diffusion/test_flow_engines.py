"""What the export of SD3 and FLUX checkpoints says of the engine, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from engines.image.schedulers.schedule import NoiseSchedule
from engines.manifest import read_manifest
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine
from export.errors import CheckpointError
from tests.checkpoints import edit_json
from tests.export.diffusion.tiny_pipelines import (
    FLOW_VAE,
    FLUX,
    SD3,
    SD3_TEXT_ENCODER,
    T5_LENGTH,
    make_t5,
)


def spec_of(folder):
    return plan_image_engine(open_diffusion_checkpoint(folder, "tiny"), "tiny").spec


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        spec_of(folder)
    return str(caught.value)


def test_the_spec_says_how_the_texts_of_sd3_are_put_together(pipeline):
    spec = spec_of(pipeline("sd3"))
    assert spec.pipeline == "stable-diffusion-3"
    encoders = spec.text_encoders
    assert [encoder.context for encoder in encoders] == ["beside", "beside", "behind"]
    assert [encoder.gives_pooled for encoder in encoders] == [True, True, False]
    assert [encoder.max_length for encoder in encoders] == [77, 77, T5_LENGTH]
    assert [encoder.tokenizer for encoder in encoders] == [
        "tokenizer.json",
        "tokenizer_2.json",
        "tokenizer_3.json",
    ]
    t5 = encoders[2]
    assert (t5.prefix_token_ids, t5.suffix_token_ids, t5.pad_token_id) == ((), (1,), 0)
    assert (spec.context_width, spec.num_empty_rows) == (None, 0)
    assert (spec.guidance, spec.takes_negative_prompt) == ("classifier-free", True)
    assert (spec.default_num_inference_steps, spec.default_guidance_scale) == (28, 7.0)
    assert (spec.latent_scale, spec.size_multiple, spec.max_side) == (2, 4, 17 * 2 * 2)
    assert (spec.default_height, spec.default_width) == (32, 32)
    assert spec.denoiser == "transformer.onnx"


def test_an_sd3_without_t5_has_rows_of_zeros_in_its_place(pipeline):
    spec = spec_of(pipeline("sd3.5"))
    assert len(spec.text_encoders) == 2
    assert (spec.context_width, spec.num_empty_rows) == (SD3["joint_attention_dim"], 256)


@pytest.mark.parametrize(
    ("name", "guidance", "defaults"),
    [("flux-dev", "distilled", (50, 3.5)), ("flux-schnell", "none", (4, 1.0))],
)
def test_the_spec_says_what_a_flux_is(pipeline, image_engine, name, guidance, defaults):
    spec = spec_of(pipeline(name))
    assert spec.pipeline == "flux"
    clip, t5 = spec.text_encoders
    assert (clip.context, clip.gives_pooled) == ("none", True)
    assert (t5.context, t5.gives_pooled, t5.max_length) == ("beside", False, T5_LENGTH)
    assert (spec.guidance, spec.guidance_width) == (guidance, None)
    assert not spec.takes_negative_prompt
    assert spec.takes_guidance_scale == (guidance == "distilled")
    assert (spec.default_num_inference_steps, spec.default_guidance_scale) == defaults
    assert (spec.latent_channels, spec.size_multiple, spec.max_side) == (4, 4, None)
    assert spec.default_height == spec.default_width == 256  # 128 latents
    assert read_manifest(image_engine(name)).image == spec
    schedule = NoiseSchedule.read(image_engine(name) / spec.scheduler)
    assert schedule.config["even_steps"] is True


@pytest.mark.parametrize(
    ("has_guidance", "longest"), [(True, 512), (False, 256)], ids=["dev", "schnell"]
)
def test_flux_reads_as_much_text_as_it_was_trained_on(own_pipeline, has_guidance, longest):
    folder = own_pipeline("flux-dev" if has_guidance else "flux-schnell")
    edit_json(folder / "tokenizer_2" / "tokenizer_config.json", model_max_length=1e30)
    assert spec_of(folder).text_encoders[1].max_length == longest


@pytest.mark.parametrize("component", ["text_encoder_2", "transformer", "tokenizer_2"])
def test_a_missing_component_is_named(own_pipeline, component):
    folder = own_pipeline("flux-dev")
    shutil.rmtree(folder / component)
    assert refusal(folder) == (
        f"model_index.json names the component {component}, but there is no folder "
        f"{folder / component}"
    )


def test_a_t5_without_its_tokenizer_is_not_taken_for_one_that_was_left_out(own_pipeline):
    folder = own_pipeline("sd3")
    edit_json(folder / "model_index.json", tokenizer_3=[None, None])
    assert refusal(folder) == (
        f"{folder / 'model_index.json'} names no tokenizer_3, which the pipeline needs"
    )


def test_a_component_of_another_class_is_refused(own_pipeline):
    folder = own_pipeline("sd3")
    edit_json(folder / "model_index.json", text_encoder_3=["transformers", "UMT5EncoderModel"])
    assert refusal(folder) == (
        "model_index.json names the class UMT5EncoderModel for text_encoder_3, but only "
        "T5EncoderModel is supported"
    )


def sd3(**changes):
    return lambda: SD3Transformer2DModel(**SD3 | changes)


def flux(**changes):
    return lambda: FluxTransformer2DModel(**FLUX | {"guidance_embeds": True} | changes)


@pytest.mark.parametrize(
    ("name", "component", "make", "sentence"),
    [
        (
            "sd3",
            "transformer",
            sd3(joint_attention_dim=40),
            "joint_attention_dim = 40, but the other components' configs have text rows of 64",
        ),
        (
            "sd3",
            "transformer",
            sd3(pooled_projection_dim=40),
            "pooled_projection_dim = 40, but the other components' configs have projected text "
            "of 24",
        ),
        (
            "sd3.5",
            "text_encoder",
            lambda: CLIPTextModelWithProjection(
                CLIPTextConfig(**SD3_TEXT_ENCODER | {"hidden_size": 64})
            ),
            "joint_attention_dim = 64, but the other components' configs have text rows of 80",
        ),
        (
            "sd3",
            "vae",
            lambda: AutoencoderKL(**FLOW_VAE | {"latent_channels": 8}),
            "in_channels = 4, but the other components' configs have latent channels of 8",
        ),
        (
            "flux-dev",
            "transformer",
            flux(pooled_projection_dim=24),
            "pooled_projection_dim = 24, but the other components' configs have projected text "
            "of 32",
        ),
        (
            "flux-dev",
            "transformer",
            flux(in_channels=64),
            "in_channels = 64, but the other components' configs have packed latent channels of 16",
        ),
        (
            "flux-dev",
            "text_encoder_2",
            lambda: make_t5(d_model=32),
            "joint_attention_dim = 64, but the other components' configs have text rows of 32",
        ),
    ],
    ids=["context", "pooled", "left out", "latents", "flux pooled", "packed", "flux context"],
)
def test_components_that_do_not_fit_each_other_are_refused(
    own_pipeline, name, component, make, sentence
):
    folder = own_pipeline(name)
    shutil.rmtree(folder / component)
    make().save_pretrained(folder / component)
    assert refusal(folder) == f"transformer/config.json has {sentence}"


def test_a_tokenizer_in_its_old_form_is_refused_with_what_to_do(own_pipeline):
    folder = own_pipeline("flux-dev") / "tokenizer_2"
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    assert refusal(folder.parent) == (
        f"{folder} holds spiece.model, but no tokenizer.json: save it as one, with "
        "T5TokenizerFast.from_pretrained(FOLDER).save_pretrained(FOLDER)"
    )
    (folder / "spiece.model").unlink()
    assert refusal(folder.parent) == f"{folder} holds no tokenizer.json"


def test_a_tokenizer_that_knows_more_than_its_encoder_is_refused(own_pipeline):
    folder = own_pipeline("flux-dev")
    shutil.rmtree(folder / "text_encoder_2")
    make_t5(vocab_size=100).save_pretrained(folder / "text_encoder_2")
    assert "but its text encoder has only 100" in refusal(folder)


def test_a_scheduler_that_is_not_supported_is_refused(own_pipeline):
    folder = own_pipeline("flux-dev")
    path = folder / "scheduler" / "scheduler_config.json"
    edit_json(path, _class_name="FlowMatchHeunDiscreteScheduler")
    assert "the scheduler of the checkpoint is FlowMatchHeunDiscreteScheduler" in refusal(folder)
    assert "even_steps" not in json.loads(path.read_text())
