"""Keys and values in int8: what is kept, how far answers are from fp32's, what is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from engines.llm.sampling_params import SamplingParams
from engines.llm.sequence import Sequence
from engines.load import EngineOptions, load_llm_engine
from engines.manifest import read_manifest
from engines.reports import CacheQuantization
from engines.store import EngineFolder
from export.cache.ranges import MARGIN, measure_ranges, scale_of
from export.calibration import CALIBRATION_TEXTS
from export.command import export_engine
from export.config import ExportConfig
from export.errors import ExportError, VerificationFailed
from export.report import QuietProgress
from export.verification import check_bars
from export.verify import VerifyConfig, verify
from export.verify_prompts import QUESTIONS
from tests.export.qwen1 import make_qwen1_checkpoint
from tests.export.test_parity import random_ids
from tests.export.test_verify import report_of  # noqa: F401  (a fixture)

FAMILIES = ["qwen2", "qwen2.5", "qwen3", "qwen3-moe", "qwen1"]
TEXTS = CALIBRATION_TEXTS[:4]  # enough for tiny models, and quick


@pytest.fixture(scope="module")
def pair(compiled, checkpoint, tmp_path_factory):
    """`pair(folder or family)`: an engine with its cache in fp32, and one with it in int8."""
    made = {}

    def make(source):
        if source not in made:
            options = {"calibration_texts": TEXTS}
            if source == "qwen1":
                # Beyond 64 tokens queries grow with the logarithm of their position.
                folder = tmp_path_factory.mktemp("qwen1") / "tiny"
                folder = make_qwen1_checkpoint(folder, seq_length=64)
                options["max_context"] = 128
            else:
                folder = checkpoint(source) if isinstance(source, str) else source
            made[source] = (
                compiled(folder, **options),
                compiled(folder, kv_cache_precision="int8", **options),
            )
        return made[source]

    return make


def scales_of(engine):
    """The constants of the graph, by the name of the state, [heads, 1, width]."""
    states = {state.input: state for state in engine.decoder.spec.states}
    initializers = ir.load(engine.folder / "model.onnx").graph.initializers
    return {
        name: initializers[f"{name}.scale"].const_value.numpy().reshape(state.heads, 1, state.width)
        for name, state in states.items()
    }


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def logits_of(decoder):
    """Prompts in one piece and in chunks, then decode steps over rows of different lengths."""
    prompts = [random_ids(size, seed=size) for size in (1, 17, 60, 90)]
    found = []
    for slot, ids in enumerate(prompts):
        middle = len(ids) // 2 if slot % 2 else 0
        if middle:
            found.append(decoder.prefill(slot, ids[:middle]))
        found.append(decoder.prefill(slot, ids[middle:], middle))
    for step in range(5):
        past_lens = [len(ids) + step for ids in prompts]
        found.append(decoder.decode([7 + step, 8, 9, 10], past_lens))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_near_those_of_a_cache_in_fp32(pair, family):
    plain, rounded = pair(family)
    pairs = zip(logits_of(rounded.decoder), logits_of(plain.decoder), strict=True)
    errors = [relative_error(found, expected) for found, expected in pairs]
    assert 0 < max(errors) < 0.1  # a scale that is not applied makes it 1 and more


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_holds_the_nearest_steps_of_what_it_is_given(pair, family):
    plain, rounded = pair(family)
    ids = random_ids(80, seed=3)
    for engine in (plain, rounded):
        engine.decoder.prefill(0, ids)
    caches = {state.input: cache for state, cache in rounded.decoder.caches.items()}
    for state, cache in plain.decoder.caches.items():
        if ".0." not in state.input:
            continue  # what later layers are given differs by the rounding of earlier ones
        steps = cache[0, :, : len(ids)] / scales_of(rounded)[state.input]
        kept = caches[state.input][0, :, : len(ids)]
        assert np.abs(kept - np.clip(steps, -128, 127)).max() < 0.51


def test_keys_with_outliers_cost_no_precision_elsewhere(pair, own_checkpoint):
    """As the biases of Qwen2.5's keys make them: one channel a hundred times as large as most."""
    folder = own_checkpoint("qwen2.5")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("k_proj.bias"):
            tensor[3] = 60
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    plain, rounded = pair(folder)
    ids = random_ids(60, seed=1)
    assert relative_error(rounded.decoder.prefill(0, ids), plain.decoder.prefill(0, ids)) < 0.05


def test_ranges_hold_at_every_position(pair):
    """Short texts are measured; the same tokens behind others are rotated further."""
    plain, _ = pair("qwen3")
    spec, graph = plain.decoder.spec, plain.folder / "model.onnx"
    ids = random_ids(24, seed=5)
    ranges = measure_ranges(graph, spec, [ids], rotary_width=32)
    caches = plain.decoder.caches.items()
    layer = {state.input: cache for state, cache in caches if ".0." in state.input}
    for start in (0, 57, 200):
        plain.decoder.prefill(0, ids, start)
        for name, cache in layer.items():
            held = np.abs(cache[0, :, start : start + len(ids)]).max(1)
            assert (held <= ranges[name] * 1.0001).all()


def test_a_channel_that_is_always_zero_has_a_scale():
    assert scale_of(np.array([[0.0, 127.0]], np.float32)).tolist() == [[1.0, MARGIN]]


def test_the_manifest_and_the_graph_say_what_is_kept(pair):
    plain, rounded = pair("qwen2.5")
    chat = read_manifest(rounded.folder).chat
    assert {state.dtype for state in chat.states} == {"int8"}
    assert chat.cache_quantization.margin == MARGIN
    assert chat.cache_quantization.num_tokens > 500
    assert read_manifest(plain.folder).chat.cache_quantization is None
    graph = ir.load(rounded.folder / "model.onnx").graph
    states = {value.name: value.dtype.name for value in (*graph.inputs, *graph.outputs)}
    for state in chat.states:
        assert (states[state.input], states[state.output]) == ("INT8", "INT8")


def test_the_cache_takes_a_quarter_of_the_memory(pair):
    """Of a token, and of what a conversation is found to hold."""
    bytes_per_token, bytes_held = [], []
    for engine in pair("qwen2.5"):
        folder = EngineFolder(engine.folder, read_manifest(engine.folder))
        opened = load_llm_engine(folder, EngineOptions(num_threads=1, kv_cache_memory=100_000))
        bytes_per_token.append(opened.runner.bytes_per_token)
        sampling = SamplingParams(max_tokens=5, temperature=0, ignore_eos=True)
        opened.add(Sequence.from_prompt(0, random_ids(40), sampling))
        while opened.has_work:
            opened.step()
        bytes_held.append(opened.stats().kv_cache_bytes)
        opened.close()
    assert bytes_per_token[0] == 4 * bytes_per_token[1]
    assert bytes_held[0] == 4 * bytes_held[1] > 0


def test_both_graphs_of_an_engine_keep_the_same_cache(compiled_for, checkpoint):
    folder = compiled_for(
        checkpoint("qwen2.5"),
        decode_precision="int4",
        kv_cache_precision="int8",
        calibration_texts=TEXTS,
    )
    manifest = read_manifest(folder)
    engine = load_llm_engine(EngineFolder(folder, manifest), EngineOptions(num_threads=1))
    engine.close()
    found = [
        {
            name: value.const_value.numpy().tobytes()
            for name, value in ir.load(folder / graph).graph.initializers.items()
            if name.startswith("past_key_values")
        }
        for graph in (manifest.chat.graph, manifest.chat.decode_graph)
    ]
    assert found[0] == found[1]
    assert len(found[0]) == len(manifest.chat.states)


def test_no_text_is_both_measured_and_judged():
    assert not set(CALIBRATION_TEXTS) & set(QUESTIONS)


def test_an_engine_in_fp32_is_held_to_the_bar_of_its_cache(report_of):  # noqa: F811
    manifest, result = report_of(0.99, 0.001, "fp32")
    with pytest.raises(VerificationFailed, match="fp32 has to reach"):
        check_bars(manifest, result)
    quantization = CacheQuantization(num_tokens=1, margin=MARGIN)
    chat = msgspec.structs.replace(manifest.chat, cache_quantization=quantization)
    check_bars(msgspec.structs.replace(manifest, chat=chat), result)


def test_an_engine_in_fp32_with_such_a_cache_has_one_without_as_its_reference(pair):
    plain, rounded = pair("qwen3")
    reports = []
    for engine in (plain, rounded):
        config = VerifyConfig(
            engine_dir=engine.folder, checkpoint_path=engine.checkpoint, reference="fp32"
        )
        reports.append(verify(read_manifest(engine.folder), config))
    assert reports[0].report is None
    assert "an fp32 engine has no other reference" in reports[0].skipped
    assert reports[1].report.reference == "engine fp32"
    assert 0 < reports[1].report.relative_logit_error < 0.1


def test_an_export_measures_the_texts_of_a_file(checkpoint, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("What is 3 + 4?\n\nHello, how are you today?\n", encoding="utf-8")
    config = ExportConfig(
        checkpoint_path=str(checkpoint("qwen3")),
        output=tmp_path,
        kv_cache_precision="int8",
        calibration_prompts=texts,
    )
    manifest = export_engine(config, QuietProgress()).manifest
    assert manifest == read_manifest(tmp_path / "tiny-qwen3")
    assert 20 < manifest.chat.cache_quantization.num_tokens < 200
    assert manifest.verification.relative_logit_error < 0.1


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("qwen3", {"target": "cuda", "kv_cache_precision": "int8"}, "engines for cuda keep"),
        ("qwen3", {"target": "tensorrt", "kv_cache_precision": "fp32"}, "engines for tensorrt"),
        ("qwen3.5", {"kv_cache_precision": "int8"}, "has Gated DeltaNet layers"),
        ("qwen3", {"task": "embedding", "kv_cache_precision": "int8"}, "keeps no cache"),
        ("qwen3", {"calibration_prompts": "prompts.txt"}, "--smooth and --kv-cache-precision int8"),
    ],
)
def test_where_there_is_no_int8_cache_a_sentence_says_why(
    checkpoint, tmp_path, family, options, words
):
    config = ExportConfig(checkpoint_path=str(checkpoint(family)), output=tmp_path, **options)
    with pytest.raises(ExportError, match=words):
        export_engine(config, QuietProgress())
    assert not list(tmp_path.iterdir())
