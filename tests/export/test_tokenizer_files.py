"""The text side of an engine folder, in every form that checkpoints have it."""

from __future__ import annotations

import json

import pytest

from engines.manifest import read_manifest
from tests.checkpoints import CHAT_TEMPLATE, build_tokenizer, edit_json

END = build_tokenizer().token_to_id("<|im_end|>")
OTHER_END = build_tokenizer().token_to_id("<|endoftext|>")


def test_the_template_file_is_copied(compiled, checkpoint):
    engine = compiled(checkpoint("qwen3"))
    assert (engine.folder / "chat_template.jinja").read_text() == CHAT_TEMPLATE


@pytest.mark.parametrize(
    "inlined",
    [
        "{{ 'inlined é' }}",
        [{"name": "rag", "template": "no"}, {"name": "default", "template": "x"}],
    ],
)
def test_an_inlined_template_becomes_a_file(compiled, own_checkpoint, inlined):
    folder = own_checkpoint()
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", chat_template=inlined)
    engine = compiled(folder).folder
    expected = inlined if isinstance(inlined, str) else "x"
    assert (engine / "chat_template.jinja").read_text(encoding="utf-8") == expected
    settings = json.loads((engine / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "chat_template" not in settings
    assert settings["eos_token"] == "<|im_end|>"


def test_the_file_is_preferred_to_the_inlined_template(compiled, own_checkpoint):
    folder = own_checkpoint()
    edit_json(folder / "tokenizer_config.json", chat_template="inlined")
    assert (compiled(folder).folder / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_a_checkpoint_without_a_template_gives_an_engine_without_one(compiled, own_checkpoint):
    folder = own_checkpoint()
    (folder / "chat_template.jinja").unlink()
    assert not (compiled(folder).folder / "chat_template.jinja").exists()


def test_end_tokens_come_from_the_generation_config(compiled, checkpoint):
    chat = read_manifest(compiled(checkpoint("qwen3")).folder).chat
    assert chat.eos_token_ids == (END, OTHER_END)


def test_else_from_the_config_else_from_the_tokenizer(compiled, own_checkpoint):
    folder = own_checkpoint(config={"eos_token_id": OTHER_END})
    (folder / "generation_config.json").unlink()
    engine = compiled(folder)
    assert read_manifest(engine.folder).chat.eos_token_ids == (OTHER_END,)
    assert not (engine.folder / "generation_config.json").exists()
    edit_json(folder / "config.json", eos_token_id=None)
    assert read_manifest(compiled(folder).folder).chat.eos_token_ids == (END,)
    edit_json(folder / "tokenizer_config.json", eos_token={"content": "<|endoftext|>"})
    assert read_manifest(compiled(folder).folder).chat.eos_token_ids == (OTHER_END,)
    (folder / "tokenizer_config.json").unlink()
    assert read_manifest(compiled(folder).folder).chat.eos_token_ids == ()


def test_the_manifest_counts_known_tokens_apart_from_padded_columns(compiled, checkpoint):
    chat = read_manifest(compiled(checkpoint("qwen3")).folder).chat
    assert chat.vocab_size == 512
    assert chat.num_tokens == build_tokenizer().get_vocab_size()
