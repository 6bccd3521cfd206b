"""Adapters in PEFT's layout, merged into language models as these are compiled."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.manifest import read_manifest
from export.checkpoint import open_checkpoint
from export.command import export_engine
from export.config import ExportConfig
from export.lora.adapter import merge_adapters
from export.lora.option import Lora
from export.report import QuietProgress
from export.verify import VerifyConfig, verify
from tests.export.qwen1 import load_qwen1, make_qwen1_checkpoint
from tests.export.test_parity import TOLERANCE, engine_logits, random_ids, reference_logits
from tests.export.test_refusals import refusal  # noqa: F401  (a fixture)

RANK = 4
LAYER = "model.layers.1"
MODULES = (f"{LAYER}.self_attn.q_proj", f"{LAYER}.self_attn.o_proj", f"{LAYER}.mlp.down_proj")


def make_adapter(folder, checkpoint, modules=MODULES, seed=0, rank=RANK, **settings):
    """Write an adapter as PEFT saves it; return its folder and what its products are."""
    folder.mkdir()
    torch.manual_seed(seed)
    weights = load_file(checkpoint / "model.safetensors")
    tensors, products = {}, {}
    for module in modules:
        num_rows, width = weights[f"{module}.weight"].shape
        a, b = torch.randn(rank, width) / 8, torch.randn(num_rows, rank) / 4
        key = f"base_model.model.{module}"
        tensors |= {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}
        products[f"{module}.weight"] = b @ a
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": sorted({module.rpartition(".")[2] for module in modules}),
        "bias": "none",
        "use_dora": False,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | settings))
    return folder, products


def merged_copy(folder, checkpoint, *additions):
    """A checkpoint whose weights are the sums, (products, factor) for each adapter."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    for products, factor in additions:
        for name, product in products.items():
            weights[name] += factor * product
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def export(checkpoint, output, *loras, **options):
    settings = {
        "lora": tuple(lora.path for lora in loras),
        "lora_scale": tuple(lora.scale for lora in loras),
    }
    config = ExportConfig(
        checkpoint_path=str(checkpoint), output=output, name="variant", **(settings | options)
    )
    return export_engine(config, QuietProgress())


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 8 / RANK),
        ({"use_rslora": True}, 8 / math.sqrt(RANK)),
        ({"lora_alpha": 3}, 3 / RANK),
        ({"alpha_pattern": {"[qo]_proj": 8, "down_proj": 8}, "lora_alpha": 1}, 8 / RANK),
    ],
)
def test_the_weights_are_the_sums_that_peft_gives(checkpoint, tmp_path, settings, factor):
    base = checkpoint("qwen3")
    adapter, products = make_adapter(tmp_path / "a", base, **settings)
    merged = merge_adapters(open_checkpoint(base, "tiny"), [Lora(adapter, 0.5)])
    for name, weight in load_file(base / "model.safetensors").items():
        expected = weight + 0.5 * factor * products.get(name, 0)
        assert np.abs(merged.tensors.read(name) - expected.numpy()).max() < 1e-5
    assert merged.loras[0].num_modules == len(MODULES)


def test_an_engine_answers_as_the_merged_model_and_names_its_adapters(checkpoint, tmp_path):
    base = checkpoint("qwen2.5")
    first, products = make_adapter(tmp_path / "style", base)
    second, others = make_adapter(tmp_path / "facts", base, MODULES[:1], seed=1, rank=2)
    summary = export(base, tmp_path / "out", Lora(first, 0.8), Lora(second, -0.5), precision="fp32")
    manifest = read_manifest(tmp_path / "out" / "variant")
    assert manifest == summary.manifest
    assert [(lora.name, lora.scale, lora.num_modules) for lora in manifest.source.loras] == [
        ("style", 0.8, 3),
        ("facts", -0.5, 1),
    ]
    # Verified against transformers with the same sums, which are not those of the base.
    assert manifest.verification.reference.startswith("transformers")
    assert manifest.verification.max_logit_error < TOLERANCE
    merged = merged_copy(tmp_path / "m", base, (products, 0.8 * 2), (others, -0.5 * 4))
    result = verify(
        manifest, VerifyConfig(engine_dir=tmp_path / "out" / "variant", checkpoint_path=merged)
    )
    assert result.report.max_logit_error < TOLERANCE
    result = verify(
        manifest, VerifyConfig(engine_dir=tmp_path / "out" / "variant", checkpoint_path=base)
    )
    assert result.report.max_logit_error > 100 * TOLERANCE


def test_the_fused_projection_of_the_first_qwen_takes_an_adapter(compiled, tmp_path):
    base = make_qwen1_checkpoint(tmp_path / "base")
    modules = ("transformer.h.0.attn.c_attn", "transformer.h.1.mlp.w2")
    adapter, products = make_adapter(tmp_path / "a", base, modules)
    export(base, tmp_path / "out", Lora(adapter), precision="fp32", verify=False)
    merged = merged_copy(tmp_path / "m", base, (products, 2.0))
    token_ids = random_ids(56)
    with torch.inference_mode():
        expected = load_qwen1(merged)(torch.tensor(token_ids)).numpy()
    from tests.export.slots import SlotDecoder

    found = engine_logits(SlotDecoder(tmp_path / "out" / "variant"), token_ids)
    assert np.abs(found - expected).max() < TOLERANCE


def test_a_quantized_variant_is_verified_against_the_sums(checkpoint, tmp_path):
    base = checkpoint("qwen3")
    adapter, _ = make_adapter(tmp_path / "a", base)
    report = export(base, tmp_path / "out", Lora(adapter)).manifest.verification
    assert report.relative_logit_error < 0.1


def test_the_file_may_be_named_instead_of_its_folder(checkpoint, tmp_path):
    base = checkpoint("qwen3")
    adapter, _ = make_adapter(tmp_path / "a", base)
    merged = merge_adapters(
        open_checkpoint(base, "tiny"), [Lora(adapter / "adapter_model.safetensors")]
    )
    assert merged.loras[0].name == "adapter_model.safetensors"
    assert reference_logits(base, [1, 2]).shape == (2, 512)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "has use_dora"),
        ({"bias": "all"}, "trained biases (bias = 'all')"),
        ({"lora_bias": True}, "trained biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = ['lm_head'], which cannot be merged"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ],
)
def test_what_is_more_than_matrices_is_refused_by_name(
    refusal,  # noqa: F811
    checkpoint,
    tmp_path,
    settings,
    words,
):
    base = checkpoint("qwen3")
    adapter, _ = make_adapter(tmp_path / "a", base, **settings)
    assert words in refusal(base, lora=(adapter,), name="variant")


def test_an_adapter_that_does_not_belong_to_the_model_is_refused(refusal, checkpoint, tmp_path):  # noqa: F811
    base = checkpoint("qwen3")
    other, _ = make_adapter(tmp_path / "a", checkpoint("qwen2.5"), (f"{LAYER}.self_attn.q_proj",))
    assert "has the shape [128, 64]" in refusal(base, lora=(other,), name="variant")
    deeper, _ = make_adapter(tmp_path / "b", base)
    small = checkpoint("qwen3", num_hidden_layers=1)
    assert "no such module" in refusal(small, lora=(deeper,), name="variant")
    (deeper / "adapter_config.json").unlink()
    assert "holds no adapter_config.json" in refusal(base, lora=(deeper,), name="variant")
    assert "there is no LoRA file" in refusal(base, lora=(tmp_path / "none",), name="variant")
    with pytest.raises(ValueError, match="add --name"):
        ExportConfig(checkpoint_path=str(base), lora=(other,))
