"""The contestants that need no other Python, on a tiny checkpoint."""

import json

import pytest

from benchmarks.errors import BenchmarkFailed
from benchmarks.images.catalogue import Diffusers, Enginery
from benchmarks.images.checkpoint import CheckpointShape, make_checkpoint
from benchmarks.images.process import make_models, measure
from benchmarks.images.workload import Workload

SHAPE = CheckpointShape(
    vocab_size=600,
    text_encoder={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 16,
        "hidden_act": "quick_gelu",
        "projection_dim": 32,
    },
    unet={
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    },
    vae={
        "sample_size": 32,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 8,
    },
)
WORKLOAD = Workload(sizes=(16, 32), steps=2, cached_steps=4, cache_interval=2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    make_checkpoint(folder, SHAPE)
    return folder


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def check(measured):
    assert set(measured.step_s) == {16, 32}
    assert min(measured.step_s.values()) > 0
    assert min(measured.text_s, measured.load_s, measured.peak_rss_bytes) > 0


def test_the_published_shape_is_that_of_stable_diffusion_15():
    shape = CheckpointShape()
    assert shape.unet["block_out_channels"] == (320, 640, 1280, 1280)
    assert shape.unet["cross_attention_dim"] == shape.text_encoder["hidden_size"] == 768
    assert shape.vocab_size == 49_408


def test_a_checkpoint_holds_half_precision_and_a_whole_tokenizer(checkpoint):
    config = json.loads((checkpoint / "unet" / "config.json").read_text())
    assert tuple(config["block_out_channels"]) == SHAPE.unet["block_out_channels"]
    weights = (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}
    vocabulary = json.loads((checkpoint / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(SHAPE.vocab_size))
    assert vocabulary["<|endoftext|>"] == SHAPE.vocab_size - 1


def test_a_folder_that_exists_is_not_overwritten(checkpoint):
    with pytest.raises(BenchmarkFailed, match="exists already: name a new folder"):
        make_checkpoint(checkpoint, SHAPE)


@pytest.mark.parametrize("is_cached", [False, True])
def test_our_engine_is_exported_and_measured_in_a_process_of_its_own(
    checkpoint, work_dir, is_cached
):
    contestant = Enginery("fp32", is_cached=is_cached)
    folder, cost = make_models(contestant, checkpoint, work_dir, force=False)
    assert cost is not None
    measured = measure(contestant, folder, WORKLOAD)
    check(measured)
    assert set(measured.decode_s) == (set() if is_cached else {16, 32})
    assert measured.version.startswith("Enginery ")


def test_diffusers_is_measured_on_the_checkpoint_itself(checkpoint, work_dir):
    contestant = Diffusers("bfloat16")
    assert contestant.missing() is None
    folder, cost = make_models(contestant, checkpoint, work_dir, force=False)
    assert (folder, cost) == (checkpoint, None)
    measured = measure(contestant, folder, WORKLOAD)
    check(measured)
    assert set(measured.decode_s) == {16, 32}
    assert measured.version.startswith("diffusers ")
