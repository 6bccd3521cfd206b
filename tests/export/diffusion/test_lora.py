"""LoRA files of every spelling are added to the weights as they are read; nothing is left out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.manifest import read_manifest, write_manifest
from export.config import ExportConfig
from export.diffusion.checkpoint import open_diffusion_checkpoint
from export.diffusion.engine import compile_image_engine, plan_image_engine
from export.diffusion.lora.merge import merge_loras
from export.errors import CheckpointError
from export.lora.option import Lora, pair_loras
from export.report import QuietProgress
from export.verify import VerifyConfig, verify
from tests.export.diffusion.loras import RANK, WEIGHTS, LoraBuilder, apply, weights
from tests.export.diffusion.pictures import (
    CLOSE,
    Reference,
    difference,
    draw,
    make_request,
    open_engine,
    quiet,
)
from tests.export.diffusion.test_engine_folder import run

KOHYA = (".lora_down.weight", ".lora_up.weight")
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
UNET_MODULES = (
    f"{BLOCK}.attn1.to_q",
    f"{BLOCK}.attn2.to_k",
    f"{BLOCK}.attn1.to_out.0",
    f"{BLOCK}.ff.net.0.proj",
    f"{BLOCK}.ff.net.2",
    "down_blocks.0.attentions.0.proj_in",
    "down_blocks.0.attentions.0.proj_out",
    "down_blocks.0.resnets.1.conv1",
    "down_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.0.downsamplers.0.conv",
    "up_blocks.0.upsamplers.0.conv",
    "mid_block.resnets.1.time_emb_proj",
    "time_embedding.linear_2",
    "conv_in",
)
TEXT_MODULES = (
    "encoder.layers.0.self_attn.q_proj",
    "encoder.layers.1.self_attn.out_proj",
    "encoder.layers.1.mlp.fc1",
)


@pytest.fixture
def builder(pipeline):
    def make(name="sd15", seed=0):
        return LoraBuilder(pipeline(name), seed)

    return make


def merged(checkpoint, *loras):
    return merge_loras(open_diffusion_checkpoint(checkpoint, "tiny"), loras)


def assert_merged(checkpoint, expected):
    """The changed weights are as expected, and no other weight changed."""
    for component in checkpoint.components.values():
        if component.name not in WEIGHTS:
            continue
        for name, before in weights(checkpoint.folder, component.name).items():
            found = torch.from_numpy(component.tensors.read(name))
            change = expected.get((component.name, name.removesuffix(".weight")))
            if change is None:
                assert torch.equal(found, before), name
            else:
                assert (change - before).abs().max() > 0.01, name
                assert (found - change).abs().max() < 1e-5, name


def every_module(builder, spell_unet, spell_text, **options):
    for module in UNET_MODULES:
        builder.add("unet", module, spell_unet(module), **options)
    for module in TEXT_MODULES:
        builder.add("text_encoder", module, spell_text(module), **options)


@pytest.mark.parametrize(
    ("spell_unet", "spell_text", "names"),
    [
        (
            lambda module: f"unet.{module}",
            lambda module: f"text_encoder.text_model.{module}",
            (".lora_A.weight", ".lora_B.weight"),
        ),
        (
            lambda module: f"unet.{module}",
            lambda module: f"text_encoder.{module}",
            (".lora_A.default.weight", ".lora_B.default.weight"),
        ),
        (
            lambda module: f"unet.{module}",
            lambda module: f"text_encoder.text_model.{module}",
            (".lora.down.weight", ".lora.up.weight"),
        ),
        (
            lambda module: "lora_unet_" + module.replace(".", "_"),
            lambda module: "lora_te_text_model_" + module.replace(".", "_"),
            KOHYA,
        ),
        (
            lambda module: f"diffusion_model.{module}",
            lambda module: "lora_te1_text_model_" + module.replace(".", "_"),
            KOHYA,
        ),
    ],
    ids=["diffusers", "adapter name", "diffusers before peft", "kohya", "mixed"],
)
def test_every_spelling_is_added_to_the_modules_that_it_names(
    builder, tmp_path, spell_unet, spell_text, names
):
    lora = builder()
    every_module(lora, spell_unet, spell_text, names=names)
    path = lora.save(tmp_path / "lora.safetensors")
    checkpoint = merged(lora.checkpoint, Lora(path, 0.7))
    assert_merged(checkpoint, lora.expected(0.7))
    (source,) = checkpoint.loras
    assert (source.name, source.scale) == ("lora.safetensors", 0.7)
    assert source.num_modules == len(UNET_MODULES) + len(TEXT_MODULES)
    assert len(source.sha256) == 64


def test_attention_processors_and_their_layers_under_old_names(builder, tmp_path):
    lora = builder()
    names = ("_lora.down.weight", "_lora.up.weight")
    for new, old in (("attn1.to_q", "attn1.processor.to_q"), ("attn2.to_out.0", "attn2.to_out")):
        lora.add("unet", f"{BLOCK}.{new}", f"unet.{BLOCK}.{old}", names=names)
    layer = "encoder.layers.0.self_attn"
    for new, old in (("k_proj", "to_k"), ("out_proj", "to_out")):
        key = f"text_encoder.text_model.{layer}.{old}"
        lora.add("text_encoder", f"{layer}.{new}", key, names=names)
    path = lora.save(tmp_path / "lora.safetensors")
    assert_merged(merged(lora.checkpoint, Lora(path)), lora.expected())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_alpha_and_the_type_of_the_file_count(builder, tmp_path, dtype):
    lora = builder()
    every_module(
        lora,
        lambda module: "lora_unet_" + module.replace(".", "_"),
        lambda module: "lora_te_text_model_" + module.replace(".", "_"),
        names=KOHYA,
        alpha=2.0,
    )
    rounded = {key: value.to(dtype) for key, value in lora.tensors.items()}
    save_file(rounded, tmp_path / "lora.safetensors")
    found = merged(lora.checkpoint, Lora(tmp_path / "lora.safetensors", -0.5))
    expected = lora.expected(-0.5)
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    for (component, module), weight in expected.items():
        tensor = found.components[component].tensors.read(f"{module}.weight")
        assert np.abs(tensor - weight.numpy()).max() < tolerance


def test_an_alpha_stored_as_an_integer_is_a_number(builder, tmp_path):
    lora = builder()
    lora.add("unet", "conv_in", "lora_unet_conv_in", names=KOHYA, alpha=6)
    assert lora.tensors["lora_unet_conv_in.alpha"].dtype == torch.int64
    path = lora.save(tmp_path / "lora.safetensors")
    assert_merged(merged(lora.checkpoint, Lora(path)), lora.expected())


def test_convolutions_of_three_matrices(builder, tmp_path):
    lora = builder()
    for module in ("down_blocks.0.resnets.0.conv1", "up_blocks.1.resnets.1.conv2"):
        key = "lora_unet_" + module.replace(".", "_")
        lora.add("unet", module, key, names=KOHYA, tucker=True, alpha=1.5)
    path = lora.save(tmp_path / "lora.safetensors")
    assert_merged(merged(lora.checkpoint, Lora(path, 0.8)), lora.expected(0.8))


# The tiny SDXL has one layer a block.
SDXL_ORIGINALS = {
    "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_v": (
        "input_blocks.3.1.transformer_blocks.1.attn1.to_v"
    ),
    "down_blocks.1.attentions.0.proj_in": "input_blocks.3.1.proj_in",
    "down_blocks.0.resnets.0.conv2": "input_blocks.1.0.out_layers.3",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.2.resnets.0.conv_shortcut": "input_blocks.5.0.skip_connection",
    "mid_block.attentions.0.transformer_blocks.2.ff.net.0.proj": (
        "middle_block.1.transformer_blocks.2.ff.net.0.proj"
    ),
    "mid_block.resnets.1.conv1": "middle_block.2.in_layers.2",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_q": (
        "output_blocks.1.1.transformer_blocks.0.attn2.to_q"
    ),
    "up_blocks.1.resnets.0.time_emb_proj": "output_blocks.2.0.emb_layers.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.2.resnets.1.conv1": "output_blocks.5.0.in_layers.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}


def test_sdxl_under_the_names_of_its_first_publication(builder, tmp_path):
    lora = builder("sdxl")
    for module, original in SDXL_ORIGINALS.items():
        key = "lora_unet_" + original.replace(".", "_")
        lora.add("unet", module, key, names=KOHYA, alpha=2.0)
    for number, component in ((1, "text_encoder"), (2, "text_encoder_2")):
        for module in TEXT_MODULES:
            key = f"lora_te{number}_text_model_" + module.replace(".", "_")
            lora.add(component, module, key, names=KOHYA, alpha=2.0)
    path = lora.save(tmp_path / "lora.safetensors")
    assert_merged(merged(lora.checkpoint, Lora(path)), lora.expected())


TRANSFORMERS = {
    "sd3": ("transformer_blocks.0.attn.add_k_proj", "pos_embed.proj", "proj_out"),
    "flux-dev": ("transformer_blocks.0.ff.net.0.proj", "single_transformer_blocks.0.proj_mlp"),
    "qwen-image": ("transformer_blocks.1.img_mlp.net.2", "transformer_blocks.0.txt_mod.1"),
}


@pytest.mark.parametrize("spelling", ["diffusers", "kohya", "plain"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_transformers_of_flow_models(builder, tmp_path, name, spelling):
    lora = builder(name)
    for module in ("transformer_blocks.0.attn.to_q", *TRANSFORMERS[name]):
        match spelling:
            case "diffusers":
                lora.add("transformer", module, f"transformer.{module}")
            case "kohya":
                key = "lora_unet_" + module.replace(".", "_")
                lora.add("transformer", module, key, names=KOHYA, alpha=1.0)
            case "plain":
                lora.add("transformer", module, module, names=KOHYA, alpha=4.0)
    path = lora.save(tmp_path / "lora.safetensors")
    assert_merged(merged(lora.checkpoint, Lora(path, 0.9)), lora.expected(0.9))


@pytest.mark.parametrize(
    ("key", "modules"),
    [
        (
            "lora_unet_double_blocks_0_img_attn_qkv",
            [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"],
        ),
        (
            "diffusion_model.double_blocks.0.txt_attn.qkv",
            [f"transformer_blocks.0.attn.add_{part}_proj" for part in "qkv"],
        ),
        (
            "lora_unet_single_blocks_0_linear1",
            [
                *(f"single_transformer_blocks.0.attn.to_{part}" for part in "qkv"),
                "single_transformer_blocks.0.proj_mlp",
            ],
        ),
        ("lora_unet_double_blocks_0_img_mod_lin", ["transformer_blocks.0.norm1.linear"]),
    ],
)
def test_one_matrix_of_flux_s_original_stands_for_several(builder, tmp_path, key, modules):
    lora = builder("flux-dev")
    stored = weights(lora.checkpoint, "transformer")
    shapes = [stored[f"{module}.weight"].shape for module in modules]
    down = lora.random(RANK, shapes[0][1])
    up = lora.random(sum(shape[0] for shape in shapes), RANK)
    lora.tensors = {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
    parts = (up @ down).split([shape[0] for shape in shapes])
    lora.deltas = {
        ("transformer", module): part for module, part in zip(modules, parts, strict=True)
    }
    path = lora.save(tmp_path / "lora.safetensors")
    assert_merged(merged(lora.checkpoint, Lora(path)), lora.expected())
    lora.tensors[f"{key}.lora_up.weight"] = up[:-1].contiguous()
    with pytest.raises(CheckpointError, match=f"'{key}', but"):
        merged(lora.checkpoint, Lora(lora.save(tmp_path / "short.safetensors")))


def test_several_files_add_up(builder, tmp_path):
    first, second = builder(seed=1), builder(seed=2)
    first.add("unet", "conv_in", "unet.conv_in")
    first.add("unet", f"{BLOCK}.attn1.to_q", f"unet.{BLOCK}.attn1.to_q")
    second.add("unet", "conv_in", "lora_unet_conv_in", names=KOHYA, rank=2)
    loras = [
        Lora(first.save(tmp_path / "a.safetensors"), 0.5),
        Lora(second.save(tmp_path / "b.safetensors"), 2.0),
    ]
    expected = first.expected(0.5)
    expected["unet", "conv_in"] = expected["unet", "conv_in"] + 2 * second.deltas["unet", "conv_in"]
    assert_merged(merged(first.checkpoint, *loras), expected)


def test_settings_inside_a_file_of_diffusers_say_how_strong_it_is(builder, tmp_path):
    lora = builder()
    for module in ("conv_in", "conv_out"):
        lora.add("unet", module, f"unet.{module}")
    settings = {"unet.lora_alpha": 12, "unet.alpha_pattern": {"conv_out": 3.0}, "unet.r": RANK}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
    path = lora.save(tmp_path / "lora.safetensors", metadata)
    expected = lora.expected(12 / RANK)
    expected["unet", "conv_out"] = lora.expected(3 / RANK)["unet", "conv_out"]
    assert_merged(merged(lora.checkpoint, Lora(path)), expected)


def test_an_adapter_of_peft_has_its_settings_beside_it(builder, tmp_path):
    lora = builder()
    lora.add("unet", "conv_in", "base_model.model.conv_in")
    path = lora.save(tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json has to lie beside it"):
        merged(lora.checkpoint, Lora(path))
    config = {"lora_alpha": 6, "r": RANK, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert_merged(merged(lora.checkpoint, Lora(path)), lora.expected(6 / RANK**0.5))


def test_blocks_of_rows_are_those_of_the_whole(builder, tmp_path):
    lora = builder()
    module = f"{BLOCK}.ff.net.0.proj"
    lora.add("unet", module, f"unet.{module}")
    tensors = (
        merged(lora.checkpoint, Lora(lora.save(tmp_path / "lora.safetensors")))
        .components["unet"]
        .tensors
    )
    name = f"{module}.weight"
    whole, stored = tensors.read(name), tensors.stored(name)
    assert np.array_equal(tensors.read_rows(name, 5, 9), whole[5:9])
    half = stored.rows(len(whole) // 2, len(whole))
    assert np.allclose(half.elements(0, 10), whole[len(whole) // 2].reshape(-1)[:10])
    part = stored.rows(4, 8).reshaped((2, 2, *whole.shape[1:])).rows(1, 2)
    assert np.allclose(part.elements(3, 7), whole[6:8].reshape(-1)[3:10])
    assert np.array_equal(tensors.read(name), whole), "reading must not change what is read again"


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("unet.conv_in.lora_magnitude_vector", r"is a DoRA \('unet.conv_in.lora_magnitude_vector'"),
        ("lora_unet_conv_in.dora_scale", "is a DoRA"),
        ("lora_unet_conv_in.hada_w1_a", "is a LoHa"),
        ("lora_unet_conv_in.lokr_w1", "is a LoKr"),
        ("unet.conv_in.lora_B.bias", "the key 'unet.conv_in.lora_B.bias', which is none that a"),
        ("unet.conv_in.diff", "the key 'unet.conv_in.diff', which is none that a LoRA has"),
        ("unet.conv_out.lora_A.weight", "has no up matrix for 'unet.conv_out'"),
        ("unet.conv_out.alpha", "has no down matrix for 'unet.conv_out'"),
        ("unet.conv_in.lora_down.weight", "has 'unet.conv_in.lora_down.weight' in two spellings"),
    ],
)
def test_a_key_that_is_not_understood_is_refused_by_name(builder, tmp_path, key, sentence):
    lora = builder()
    lora.add("unet", "conv_in", "unet.conv_in")
    lora.tensors[key] = torch.ones(1)
    path = lora.save(tmp_path / "lora.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        merged(lora.checkpoint, Lora(path))


def test_a_layer_of_another_model_is_refused_by_name(builder, tmp_path):
    lora = builder()
    lora.add("unet", "conv_in", "unet.conv_in")
    lora.add("unet", "conv_out", "unet.conv_away")
    with pytest.raises(CheckpointError, match=r"a layer for 'unet\.conv_away', but the checkpoint"):
        merged(lora.checkpoint, Lora(lora.save(tmp_path / "lora.safetensors")))


def test_matrices_of_another_shape_are_refused_with_both(builder, tmp_path):
    lora = builder()
    lora.add("unet", "conv_in", "unet.conv_out")
    sentence = r"\[32, 3, 1, 1\] and \[3, 4, 3, 3\] for 'unet.conv_out', but 'conv_out.weight' of"
    with pytest.raises(CheckpointError, match=sentence):
        merged(lora.checkpoint, Lora(lora.save(tmp_path / "lora.safetensors")))
    lora = builder()
    lora.add("unet", "conv_in", "unet.conv_in")
    lora.tensors["unet.conv_in.lora_A.weight"] = torch.ones(2, 4, 3, 3)
    with pytest.raises(CheckpointError, match="whose product is none"):
        merged(lora.checkpoint, Lora(lora.save(tmp_path / "other.safetensors")))


def test_nan_in_a_file_is_found_when_it_is_read(builder, tmp_path):
    lora = builder()
    lora.add("unet", "conv_in", "unet.conv_in")
    lora.tensors["unet.conv_in.lora_B.weight"][0, 0] = torch.nan
    path = lora.save(tmp_path / "lora.safetensors")
    tensors = merged(lora.checkpoint, Lora(path)).components["unet"].tensors
    with pytest.raises(CheckpointError, match=r"lora\.safetensors holds NaN or infinity"):
        tensors.read("conv_in.weight")


def test_files_that_are_no_safetensors_are_refused(builder, tmp_path):
    checkpoint = builder().checkpoint
    sentences = {
        "lora.bin": "holds pickled weights, which can run code when they are read",
        "lora.pt": "holds pickled weights",
        "lora.safetensors": "is not a safetensors file",
        "absent.safetensors": "there is no LoRA file",
    }
    for name, sentence in sentences.items():
        if "absent" not in name:
            (tmp_path / name).write_bytes(b"\x80\x04" * 20)
        with pytest.raises(CheckpointError, match=sentence):
            merged(checkpoint, Lora(tmp_path / name))
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError, match="holds no LoRA"):
        merged(checkpoint, Lora(tmp_path / "empty.safetensors"))


def test_scales_pair_with_files_and_names_are_asked_for(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    assert pair_loras((a, b), (0.5,)) == (Lora(a, 0.5), Lora(b, 1.0))
    with pytest.raises(
        ValueError, match="--lora-scale is given 2 times, but there are 1 of --lora"
    ):
        ExportConfig(checkpoint_path="x", name="y", lora=(a,), lora_scale=(1.0, 2.0))
    with pytest.raises(ValueError, match="--lora-scale is nan, but it must be between -100 and 1"):
        ExportConfig(checkpoint_path="x", name="y", lora=(a,), lora_scale=(float("nan"),))
    with pytest.raises(ValueError, match="so it needs a name: add --name"):
        ExportConfig(checkpoint_path="x", lora=(a,))


@pytest.fixture(scope="module")
def variant(pipeline, tmp_path_factory):
    """A LoRA for SD 1.5's layout, an engine with it, and its file."""
    folder = tmp_path_factory.mktemp("variant")
    lora = LoraBuilder(pipeline("sd15"))
    every_module(
        lora,
        lambda module: f"unet.{module}",
        lambda module: f"text_encoder.text_model.{module}",
        rank=8,
    )
    path = lora.save(folder / "style.safetensors")
    engine = folder / "engine"
    engine.mkdir()
    plan = plan_image_engine(merged(lora.checkpoint, Lora(path, 0.8)), "tiny-style")
    write_manifest(compile_image_engine(plan, engine, QuietProgress()), engine)
    return lora, path, engine


def test_pictures_are_those_of_a_checkpoint_with_the_sums_in_it(
    variant, image_engine, own_pipeline
):
    lora, _, folder = variant
    request = make_request(folder)
    engine, plain = open_engine(folder), open_engine(image_engine("sd15"))
    (picture,), (other,) = draw(engine, request), draw(plain, request)
    engine.close()
    plain.close()
    reference = Reference(apply(own_pipeline("sd15"), lora.expected(0.8)))
    assert difference(picture, reference.draw(request)) <= CLOSE
    assert difference(picture, other) > 10


def test_pictures_are_those_of_diffusers_with_the_lora_fused(variant, pipeline):
    _, path, folder = variant
    request = make_request(folder)
    engine = open_engine(folder)
    (picture,) = draw(engine, request)
    engine.close()
    reference = Reference(pipeline("sd15"))
    with quiet():
        reference.pipeline.load_lora_weights(path.parent, weight_name=path.name)
        reference.pipeline.fuse_lora(lora_scale=0.8)
    assert difference(picture, reference.draw(request)) <= CLOSE


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_kohya_weights_are_those_of_diffusers_with_the_lora_fused(builder, tmp_path, name):
    lora = builder(name)
    modules = SDXL_ORIGINALS if name == "sdxl" else {module: module for module in UNET_MODULES}
    for module, spelled in modules.items():
        key = "lora_unet_" + spelled.replace(".", "_")
        lora.add("unet", module, key, names=KOHYA, alpha=2.0)
    path = lora.save(tmp_path / "lora.safetensors")
    reference = Reference(lora.checkpoint).pipeline
    with quiet():
        reference.load_lora_weights(tmp_path, weight_name=path.name)
        reference.fuse_lora(lora_scale=0.6)
    reference.unload_lora_weights()
    fused = reference.unet.state_dict()
    found = merged(lora.checkpoint, Lora(path, 0.6)).components["unet"].tensors
    for tensor in found:
        assert np.abs(found.read(tensor) - fused[tensor].numpy()).max() < 1e-5, tensor


def test_the_verification_adds_the_lora_to_its_reference(variant):
    lora, path, folder = variant
    with_lora = VerifyConfig(
        engine_dir=folder, checkpoint_path=lora.checkpoint, lora=(path,), lora_scale=(0.8,)
    )
    report = verify(read_manifest(folder), with_lora).image_report
    assert report.max_difference <= CLOSE
    assert max(component.relative_error for component in report.components) < 1e-5


def test_the_command_names_the_variant_and_records_the_file(variant, tmp_path):
    lora, path, _ = variant
    options = ["--checkpoint-path", lora.checkpoint, "--output", tmp_path, "--no-verify"]
    options += ["--precision", "fp32"]
    options += ["--lora", path, "--lora-scale=-0.5", "--lora", path, "--name", "tiny-style"]
    done = run("export", *options)
    assert done.returncode == 0, done.stderr
    assert f"style.safetensors x -0.5, in {len(lora.deltas)} modules" in done.stdout
    manifest = read_manifest(tmp_path / "tiny-style")
    assert manifest.id == "tiny-style"
    assert [(source.name, source.scale) for source in manifest.source.loras] == [
        ("style.safetensors", -0.5),
        ("style.safetensors", 1.0),
    ]
    assert str(path.parent) not in (tmp_path / "tiny-style" / "engine.json").read_text()


def test_an_image_lora_is_no_adapter_of_a_language_model(checkpoint, variant, tmp_path):
    options = ["--checkpoint-path", checkpoint("qwen3"), "--output", tmp_path / "out"]
    done = run("export", *options, "--lora", variant[1], "--name", "x")
    assert done.returncode == 1
    assert "but the checkpoint has no such module: it was made for another model" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_lora_beside_half_precision_weights_is_added_in_full(builder, own_pipeline, tmp_path):
    lora = builder()
    lora.add("unet", "conv_in", "unet.conv_in")
    checkpoint = own_pipeline("sd15")
    path = checkpoint / "unet" / WEIGHTS["unet"]
    half = {name: tensor.half() for name, tensor in load_file(path).items()}
    save_file(half, path, {"format": "pt"})
    file = shutil.copy(lora.save(tmp_path / "a.safetensors"), tmp_path / "lora.safetensors")
    tensors = merged(checkpoint, Lora(file)).components["unet"].tensors
    expected = half["conv_in.weight"].float() + lora.deltas["unet", "conv_in"]
    assert np.abs(tensors.read("conv_in.weight") - expected.numpy()).max() < 1e-6
