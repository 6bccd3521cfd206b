"""Outliers shifted into weights: exact in fp32, nearer in int8, left alone without a gain."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load_file, save_file

from engines.manifest import read_manifest, write_manifest
from export.calibration import CALIBRATION_TEXTS
from export.checkpoint import open_checkpoint
from export.command import export_engine
from export.compile import compile_engine
from export.compile_plan import CompileOptions, plan_compilation
from export.config import ExportConfig
from export.errors import ExportError
from export.precision import parse_override
from export.report import QuietProgress
from export.smoothing.factors import choose_factors, smoothing_factors
from export.smoothing.groups import find_groups
from export.smoothing.measure import measure_activations
from export.smoothing.tensors import Scaling, scale, scale_all
from export.tensor_files import open_tensor_files
from tests.export.slots import SlotDecoder
from tests.export.test_parity import random_ids

TEXTS = CALIBRATION_TEXTS[:6]
READERS_OF_NORMS = tuple(f"{kind}_proj.weight" for kind in ("q", "k", "v", "gate", "up"))


@pytest.fixture
def with_outliers(own_checkpoint):
    """A checkpoint three of whose channels are a hundred times as large behind every norm."""

    def make(family="qwen2.5"):
        folder = own_checkpoint(family)
        tensors = load_file(folder / "model.safetensors")
        for name, tensor in tensors.items():
            if name.endswith("layernorm.weight"):
                tensor[[1, 7, 20]] *= 100
            elif name.endswith(READERS_OF_NORMS):
                tensor[:, [1, 7, 20]] /= 50
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def logits_of(engine):
    return np.stack([engine.decoder.prefill(0, random_ids(48, seed=seed)) for seed in range(4)])


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_engines_of_activations_with_outliers_come_nearer_to_fp32(family, with_outliers, compiled):
    folder = with_outliers(family)
    exact = logits_of(compiled(folder))
    plain = compiled(folder, precision="int8")
    smoothed = compiled(folder, precision="int8", smooth=True, calibration_texts=TEXTS)
    error = relative_error(logits_of(smoothed), exact)
    assert error < 0.6 * relative_error(logits_of(plain), exact)
    report = read_manifest(smoothed.folder).chat.smoothing
    assert report.num_smoothed >= report.num_groups / 3
    assert report.smoothed_error < 0.5 * report.error


def test_any_factors_leave_what_is_computed_in_fp32(checkpoint, tmp_path):
    source = open_checkpoint(checkpoint("qwen2.5"), "tiny")
    plan = plan_compilation(source, CompileOptions(engine_id="tiny", precision="int8"))
    rng, scalings = np.random.default_rng(0), {}
    for group in find_groups(plan.config, plan.node_precision):
        width = plan.checkpoint.tensors.shape(group.readers[0])[1]
        factors = np.exp(rng.normal(size=width)).astype(np.float32)
        old = scalings.get(group.maker, Scaling())
        scalings[group.maker] = Scaling(1 / factors, old.columns)
        for reader in group.readers:
            scalings[reader] = Scaling(scalings.get(reader, Scaling()).rows, factors)
    engines = []
    for name, tensors in (
        ("plain", plan.checkpoint.tensors),
        ("scaled", scale_all(plan.checkpoint.tensors, scalings)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        options = CompileOptions(engine_id="tiny", precision="fp32")
        again = plan_compilation(replace(source, tensors=tensors), options)
        write_manifest(compile_engine(again, folder, QuietProgress()), folder)
        engines.append(SlotDecoder(folder, 1))
    first, second = (decoder.prefill(0, random_ids(40, seed=3)) for decoder in engines)
    assert relative_error(second, first) < 1e-5


def test_nothing_changes_where_nothing_is_gained(checkpoint, compiled):
    """Behind the norms of random weights no channel is larger; products with a gate have tails."""
    folder = checkpoint("qwen3")
    options = {"precision": "int8", "overrides": (parse_override("down=fp32"),)}
    plain = compiled(folder, **options)
    smoothed = compiled(folder, smooth=True, calibration_texts=TEXTS, **options)
    report = read_manifest(smoothed.folder).chat.smoothing
    assert (report.num_smoothed, report.smoothed_error) == (0, report.error)
    assert report.num_groups > 0
    for name in ("model.onnx", "model.onnx.data"):
        assert (smoothed.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    assert sorted(path.name for path in smoothed.folder.iterdir()) == sorted(
        path.name for path in plain.folder.iterdir()
    )


def test_experts_and_nodes_in_other_layouts_are_left_alone(checkpoint):
    def names(family, *overrides):
        config = ExportConfig(checkpoint_path="x", override=overrides)
        options = CompileOptions(engine_id="tiny", overrides=config.overrides)
        plan = plan_compilation(open_checkpoint(checkpoint(family), "tiny"), options)
        return {group.values for group in find_groups(plan.config, plan.node_precision)}

    dense = names("qwen3")
    assert {"layers.0.input_layernorm", "layers.0.mlp.gated"} <= dense
    assert not any("mlp" in name or "post" in name for name in names("qwen3-moe"))
    without = names("qwen3", "layers.0.mlp.gate=fp32")
    assert dense - without == {"layers.0.post_attention_layernorm"}
    assert dense - names("qwen3", "down=int4") == {n for n in dense if n.endswith("gated")}


def test_what_is_measured_is_what_the_matrices_read(checkpoint, compiled):
    """The input of down lacks the scale of its rows in the graph; in fp32 there is none."""
    rows = {}
    engine = compiled(checkpoint("qwen3"), precision="int8")
    plan = plan_compilation(
        open_checkpoint(checkpoint("qwen3"), "tiny"), CompileOptions(engine_id="tiny")
    )
    groups = find_groups(plan.config, plan.node_precision)
    sequences = [random_ids(30, seed=seed) for seed in range(4)]
    spec = engine.decoder.spec
    for group, found in zip(
        groups, measure_activations(engine.folder, spec, groups, sequences), strict=True
    ):
        rows[group.values] = found.rows
    tensors = plan.checkpoint.tensors
    normed = rows["layers.0.post_attention_layernorm"]
    gate, up = (
        normed @ tensors.read(f"model.layers.0.mlp.{kind}_proj.weight").T for kind in ("gate", "up")
    )
    expected = gate / (1 + np.exp(-gate)) * up
    assert relative_error(rows["layers.0.mlp.gated"], expected) < 0.05
    assert not list(engine.folder.glob("watched*"))


@given(
    arrays.arrays(np.float32, 12, elements=st.floats(0, 1e4, width=32)),
    arrays.arrays(np.float32, 12, elements=st.floats(0, 1e4, width=32)),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_factors_are_finite_above_zero_and_one_in_the_mean(largest, weight_largest, strength):
    factors = smoothing_factors(largest, weight_largest, strength)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()
    assert (factors <= 1001).all()


@given(st.integers(0, 1000), st.floats(1, 1000))
def test_a_choice_never_costs_and_is_none_where_it_gains_little(seed, outlier):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(16, 32)).astype(np.float32)
    rows[:, 3] *= outlier
    weights = rng.normal(size=(24, 32)).astype(np.float32)
    choice = choose_factors(np.abs(rows).max(0), np.abs(weights).max(0), rows, weights)
    if choice.factors is None:
        assert choice.smoothed_error == choice.error
    else:
        assert choice.smoothed_error < 0.8 * choice.error


@pytest.fixture(scope="module")
def scaled():
    """A tensor of 6 x 7, what it is multiplied by, and the product as it is read."""
    matrix = np.arange(42, dtype=np.float32).reshape(6, 7) + 1
    rng = np.random.default_rng(0)
    scaling = Scaling(rng.random(6).astype(np.float32), rng.random(7).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder:
        save_file({"w": matrix}, Path(folder) / "model.safetensors")
        yield matrix, scaling, scale(open_tensor_files(Path(folder)).stored("w"), scaling)


@given(start=st.integers(0, 6), length=st.integers(0, 6), data=st.data())
def test_a_scaled_tensor_is_the_product_however_it_is_read(scaled, start, length, data):
    matrix, scaling, stored = scaled
    expected = (matrix * scaling.columns * scaling.rows[:, None]).reshape(-1)
    first = data.draw(st.integers(0, 41))
    count = data.draw(st.integers(1, 42 - first))
    np.testing.assert_array_equal(stored.elements(first, count), expected[first : first + count])
    stop = min(6, start + length)
    if start < stop:
        part = stored.rows(start, stop)
        found = part.elements(0, (stop - start) * 7)
        np.testing.assert_array_equal(found, expected[start * 7 : stop * 7])


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("qwen3", {"target": "cuda"}, "--target is cuda"),
        ("qwen3", {"precision": "int4"}, "the weights are int4"),
        ("qwen3", {"optimize": "latency"}, "the steps of answers are int4"),
        ("qwen3.5", {}, "has Gated DeltaNet layers"),
        ("qwen3", {"task": "embedding"}, "for models that chat"),
    ],
)
def test_what_cannot_be_smoothed_is_refused(family, options, reason, checkpoint, tmp_path):
    config = ExportConfig(
        checkpoint_path=str(checkpoint(family)), output=tmp_path, smooth=True, **options
    )
    with pytest.raises(ExportError, match=reason):
        export_engine(config, QuietProgress())
    assert not list(tmp_path.iterdir())
