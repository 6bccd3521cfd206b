"""Tiny checkpoints of embeddings and rerankers, in the forms in which they are published."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, processors

from tests.checkpoints import edit_json, make_checkpoint

MODULES = ("Transformer", "1_Pooling Pooling", "2_Normalize Normalize")


def make_embedding_checkpoint(path: Path, *, headless: bool = True, **overrides) -> Path:
    """As Qwen3-Embedding is published: sentence-transformers' files, an end token behind texts.

    Args:
        path: The folder; it is made.
        headless: Saved as the decoder alone, its tensors without `model.`; else with a head.
        overrides: Fields of the transformers config.
    """
    make_checkpoint(path, "qwen3", **overrides)
    if headless:
        _save_decoder_alone(path)
    _append_end_token(path)
    modules = [
        {"idx": i, "name": str(i), "path": name.partition(" ")[0] if " " in name else "", "type": t}
        for i, name in enumerate(MODULES)
        for t in ["sentence_transformers.models." + name.rpartition(" ")[2]]
    ]
    (path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    pooling = {
        "word_embedding_dimension": 64,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    }
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (path / "2_Normalize").mkdir()
    return path


def make_reranker_checkpoint(path: Path, **overrides) -> Path:
    """As Qwen3-Reranker is published: a causal model whose tokenizer knows "no" and "yes"."""
    make_checkpoint(path, "qwen3", **{"max_position_embeddings": 512} | overrides)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_tokens(["no", "yes"])
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def _save_decoder_alone(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = path / "model.safetensors"
    tensors = {name.removeprefix("model."): array for name, array in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    edit_json(path / "config.json", architectures=["Qwen3Model"])


def _append_end_token(path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    end = "<|endoftext|>"
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
            ),
        ]
    )
    tokenizer.save(str(path / "tokenizer.json"))
