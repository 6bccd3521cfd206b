"""Engines of embeddings and relevance against transformers in fp32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from engines.load_pooling import PoolingEngineOptions, load_pooling_engine
from engines.manifest import read_manifest
from engines.pooling.job import PoolingJob
from engines.pooling.scheduler import PoolingSchedulerConfig
from engines.store import EngineFolder
from export.command import export_engine
from export.config import ExportConfig
from export.errors import CheckpointError, VerificationFailed
from export.pooling.bars import check_pooling_bars
from export.pooling.task import find_task
from export.report import QuietProgress
from export.verify import VerificationResult
from tests.checkpoints import edit_json, make_checkpoint
from tests.export.pooling_checkpoints import (
    make_embedding_checkpoint,
    make_reranker_checkpoint,
)

TOLERANCE = 1e-4
LENGTHS = [1, 2, 3, 17, 18, 19, 40, 41, 90, 200, 5, 250]
LIMITS = PoolingSchedulerConfig(max_rows=4, max_run_tokens=64)


@pytest.fixture(scope="module")
def embedding_checkpoint(tmp_path_factory):
    return make_embedding_checkpoint(tmp_path_factory.mktemp("embedding") / "tiny-embedding")


@pytest.fixture(scope="module")
def reranker_checkpoint(tmp_path_factory):
    return make_reranker_checkpoint(tmp_path_factory.mktemp("reranker") / "tiny-reranker")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """`exported(checkpoint, **options)`: the summary of an export with its verification."""

    def export(checkpoint, **options):
        output = tmp_path_factory.mktemp("built")
        config = ExportConfig(
            checkpoint_path=str(checkpoint), output=output, **{"precision": "fp32"} | options
        )
        return export_engine(config, QuietProgress())

    return export


def random_texts(seed=0, lengths=LENGTHS):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 400, length).tolist() for length in lengths]


def engine_rows(path, texts, limits=LIMITS):
    folder = EngineFolder(path, read_manifest(path))
    engine = load_pooling_engine(folder, PoolingEngineOptions(scheduler=limits, num_threads=1))
    for index, ids in enumerate(texts):
        engine.add(PoolingJob(index, list(ids)))
    rows = {}
    while engine.has_work:
        rows |= {output.job_id: output.values for output in engine.step()}
    engine.close()
    return np.stack([rows[index] for index in range(len(texts))])


def reference_embeddings(checkpoint, texts):
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = [model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in texts]
    return torch.nn.functional.normalize(torch.stack(states), dim=-1).numpy()


def test_embeddings_equal_transformers_alone_in_batches_and_in_chunks(
    exported, embedding_checkpoint
):
    summary = exported(embedding_checkpoint)
    texts = random_texts()
    expected = reference_embeddings(embedding_checkpoint, texts)
    assert np.abs(expected[0] - expected[1]).max() > 0.1, "embeddings that are all alike"
    for limits in (LIMITS, PoolingSchedulerConfig(), replace(LIMITS, max_rows=1)):
        found = engine_rows(Path(summary.path), texts, limits)
        assert np.abs(found - expected).max() < TOLERANCE
    assert np.allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "overrides", [{"tie_word_embeddings": False}, {"num_hidden_layers": 1}, {"head_dim": 16}]
)
def test_checkpoints_with_a_head_embed_too(exported, tmp_path, overrides):
    checkpoint = make_embedding_checkpoint(tmp_path / "tiny", headless=False, **overrides)
    summary = exported(checkpoint, verify=False)
    texts = random_texts(1, [3, 30])
    found = engine_rows(Path(summary.path), texts)
    assert np.abs(found - reference_embeddings(checkpoint, texts)).max() < TOLERANCE


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999999), ("int8", 0.99)])
def test_the_manifest_says_how_far_embeddings_are_from_the_reference(
    exported, embedding_checkpoint, precision, least
):
    manifest = exported(embedding_checkpoint, precision=precision).manifest
    report = manifest.embedding_verification
    assert manifest.kind == "embedding"
    assert "head" not in manifest.node_precision
    assert report.reference.startswith("transformers")
    assert least < report.min_cosine <= report.mean_cosine <= 1
    if precision == "int8":
        texts = random_texts(2)
        found = engine_rows(Path(exported(embedding_checkpoint, precision="int8").path), texts)
        cosines = (found * reference_embeddings(embedding_checkpoint, texts)).sum(-1)
        assert cosines.min() > 0.98


def reference_scores(checkpoint, texts, spec):
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    pair = [spec.false_token_id, spec.true_token_id]
    with torch.inference_mode():
        logits = [model(torch.tensor([ids])).logits[0, -1, pair] for ids in texts]
    return torch.log_softmax(torch.stack(logits), -1)[:, 1].exp().numpy()


def test_scores_equal_the_softmax_over_no_and_yes(exported, reranker_checkpoint):
    summary = exported(reranker_checkpoint, task="rerank")
    manifest, texts = summary.manifest, random_texts(3)
    expected = reference_scores(reranker_checkpoint, texts, manifest.rerank)
    assert expected.std() > 0.05, "scores that are all alike"
    found = engine_rows(Path(summary.path), texts)[:, 0]
    assert np.abs(found - expected).max() < TOLERANCE
    assert manifest.kind == "rerank"
    assert manifest.node_precision["head"] == "fp32"
    assert manifest.rerank_verification.max_score_error < TOLERANCE


def test_the_files_tell_what_a_checkpoint_is_for(
    embedding_checkpoint, reranker_checkpoint, tmp_path
):
    assert find_task(embedding_checkpoint, None) == "embedding"
    assert find_task(embedding_checkpoint, "chat") == "chat"
    assert find_task(reranker_checkpoint, None) == "chat", "nothing but its name tells"
    folder = tmp_path / "1_LogitScore"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert find_task(tmp_path, None) == "rerank"


def test_a_checkpoint_names_the_tokens_that_it_answers_with(exported, tmp_path):
    checkpoint = make_checkpoint(tmp_path / "tiny", "qwen3", max_position_embeddings=512)
    with pytest.raises(CheckpointError, match="no tokens 'no' and 'yes'"):
        exported(checkpoint, task="rerank")
    (checkpoint / "1_LogitScore").mkdir()
    score = checkpoint / "1_LogitScore" / "config.json"
    score.write_text(json.dumps({"true_token_id": 7, "false_token_id": 9}), encoding="utf-8")
    spec = exported(checkpoint, verify=False).manifest.rerank
    assert (spec.false_token_id, spec.true_token_id) == (9, 7)
    edit_json(score, false_token_id=None)
    with pytest.raises(CheckpointError, match="true_token_id and a false_token_id"):
        exported(checkpoint)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}, "pools by mean_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}, "pools by cls"),
        ("modules.json", [{"type": "x.Transformer"}, {"type": "x.Dense"}], "a module Dense"),
        ("modules.json", [1], "not a list of modules"),
    ],
)
def test_other_ways_to_pool_are_refused(exported, tmp_path, name, content, sentence):
    checkpoint = make_embedding_checkpoint(tmp_path / "tiny")
    (checkpoint / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=sentence):
        exported(checkpoint)


def test_tokens_that_see_what_follows_are_refused(exported, tmp_path):
    checkpoint = make_embedding_checkpoint(tmp_path / "tiny")
    edit_json(checkpoint / "config.json", is_causal=False)
    with pytest.raises(CheckpointError, match="only causal ones"):
        exported(checkpoint)


def test_engines_too_far_from_the_reference_are_refused(exported, embedding_checkpoint):
    manifest = exported(embedding_checkpoint).manifest
    far = type(manifest.embedding_verification)(
        reference="x", num_texts=1, mean_cosine=0.9, min_cosine=0.9, max_error=1, seconds=1
    )
    with pytest.raises(VerificationFailed, match=r"mean cosine of 0\.9000"):
        check_pooling_bars(manifest, VerificationResult(embedding_report=far))
