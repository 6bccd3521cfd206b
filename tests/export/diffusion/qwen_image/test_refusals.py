"""What of a Qwen-Image checkpoint cannot be compiled, and how that is said."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import load_file, save_file

from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import plan_image_engine
from export.errors import CheckpointError
from tests.checkpoints import edit_json
from tests.export.diffusion.qwen_image.tiny import make_transformer

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(own_pipeline):
    return own_pipeline("qwen-image")


def refusal(folder):
    with pytest.raises(CheckpointError) as caught:
        plan_image_engine(open_diffusion_checkpoint(folder, "tiny"), "tiny")
    return str(caught.value)


@pytest.mark.parametrize(
    ("component", "field", "value", "sentence"),
    [
        ("transformer", "patch_size", 1, "patch_size = 1, but only 2 is supported"),
        ("transformer", "guidance_embeds", True, "guidance_embeds = true, but only false is"),
        ("transformer", "zero_cond_t", True, "zero_cond_t = true, but only false is supported"),
        ("transformer", "use_layer3d_rope", True, "use_layer3d_rope = true, but only false is"),
        ("transformer", "use_additional_t_cond", True, "use_additional_t_cond = true"),
        ("transformer", "axes_dims_rope", [4, 4, 4], "not three even numbers that add up to"),
        ("transformer", "axes_dims_rope", [3, 5, 8], "not three even numbers that add up to"),
        ("transformer", "out_channels", 3, "in patches of 2 x 2 make 12"),
        ("transformer", "num_layers", 0, "num_layers = 0, which is not an integer of 1 or more"),
        ("vae", "attn_scales", [0.5], "attn_scales = [0.5], but only [] "),
        ("vae", "temperal_downsample", [True], "but its 3 levels need 2 entries"),
        ("vae", "latents_mean", [1.0], "1 numbers in latents_mean, but 4 latent channels"),
        ("vae", "latents_std", [1.0, 0.0, 1.0, 1.0], "latents_std with 0.0, which is not above 0"),
        ("vae", "latents_std", [1.0, "a", 1.0, 1.0], '"a" in latents_std, which is not a number'),
        ("vae", "input_channels", 4, "pictures of 4 channels, but only 3 are supported"),
        ("vae", "z_dim", None, "4 numbers in latents_mean, but 16 latent channels"),
    ],
)
def test_a_setting_that_is_not_supported_is_named(folder, component, field, value, sentence):
    edit_json(folder / component / "config.json", **{field: value})
    if component == "vae" and field == "input_channels":
        for name in ("encoder.conv_in", "decoder.conv_out"):
            widen(folder / "vae" / WEIGHTS, name)
    found = refusal(folder)
    assert found.startswith(f"{component}/config.json has ")
    assert sentence in found


def widen(path, name):
    """Give a convolution between pictures and channels a fourth channel of the picture."""
    tensors = load_file(path)
    axis = 1 if name.startswith("encoder") else 0
    weight = tensors[f"{name}.weight"]
    tensors[f"{name}.weight"] = weight.take([0, 1, 2, 2], axis=axis).copy()
    if axis == 0:
        tensors[f"{name}.bias"] = tensors[f"{name}.bias"].take([0, 1, 2, 2])
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("file", "tensor", "component"),
    [
        (f"transformer/{WEIGHTS}", "transformer_blocks.1.attn.norm_added_k.weight", "transformer"),
        (f"vae/{WEIGHTS}", "decoder.mid_block.attentions.0.to_qkv.weight", "vae"),
        (f"vae/{WEIGHTS}", "encoder.down_blocks.1.resample.1.bias", "vae"),
        (f"vae/{WEIGHTS}", "decoder.up_blocks.0.resnets.0.norm1.gamma", "vae"),
        ("text_encoder/model.safetensors", "model.layers.1.self_attn.q_proj.bias", "text_encoder"),
    ],
)
def test_a_missing_tensor_is_named_with_its_component(folder, file, tensor, component):
    tensors = load_file(folder / file)
    del tensors[tensor]
    save_file(tensors, folder / file)
    assert refusal(folder) == f"{component}: the checkpoint has no tensor {tensor!r}"


def test_a_tensor_of_another_shape_is_named(folder):
    path = folder / "vae" / WEIGHTS
    tensors = load_file(path)
    tensors["decoder.conv_in.weight"] = tensors["decoder.conv_in.weight"][:, :, :1].copy()
    save_file(tensors, path)
    assert "'decoder.conv_in.weight'" in refusal(folder)


def test_a_transformer_that_reads_other_rows_than_the_text_encoder_gives_is_refused(folder):
    make_transformer(joint_attention_dim=48).save_pretrained(folder / "transformer")
    assert refusal(folder) == (
        "transformer/config.json has joint_attention_dim = 48, but the other components' configs "
        "have text rows of 32"
    )


def test_another_text_encoder_is_refused(folder):
    index = json.loads((folder / "model_index.json").read_text())
    edit_json(folder / "model_index.json", text_encoder=["transformers", "Qwen3ForCausalLM"])
    assert index["text_encoder"][1] == "Qwen2_5_VLForConditionalGeneration"
    assert "only Qwen2_5_VLForConditionalGeneration is supported" in refusal(folder)
