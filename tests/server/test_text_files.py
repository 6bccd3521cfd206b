"""The text files of an engine: what is read of them, and what is said of those that are broken."""

import pytest

from engines.errors import EngineCorrupt, EngineIncompatible, InvalidRequest
from server.text.processor import TextProcessor
from tests.checkpoints import CHAT_TEMPLATE, edit_json
from tests.server.fakes import write_text_files


def test_an_engine_without_a_template_does_not_chat(tmp_path):
    text = TextProcessor.load(write_text_files(tmp_path, None))
    with pytest.raises(InvalidRequest, match="no chat template"):
        text.encode_chat([{"role": "user", "content": "a"}])
    assert text.encode_prompt("a")


def test_tokens_that_only_the_configuration_names_are_added(tmp_path):
    folder = write_text_files(tmp_path)
    known = TextProcessor.load(folder).tokenizer.vocab_size
    token = {"content": "<|late|>", "special": True, "normalized": False}
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={str(known): token})
    text = TextProcessor.load(folder)
    assert text.encode_prompt("a<|late|>")[-1] == known
    token["content"] = "<|later|>"
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={"9999": token})
    with pytest.raises(EngineIncompatible, match="the id 9999, but"):
        TextProcessor.load(folder)


def test_text_files_that_cannot_be_used_are_named(tmp_path):
    folder = write_text_files(tmp_path, "{% if %}")
    with pytest.raises(EngineCorrupt, match="not valid Jinja"):
        TextProcessor.load(folder)
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(EngineCorrupt, match="not UTF-8"):
        TextProcessor.load(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(EngineCorrupt, match="not a JSON object"):
        TextProcessor.load(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(EngineCorrupt, match=r"tokenizer\.json cannot be read"):
        TextProcessor.load(folder)


def test_only_byte_level_tokenizers_are_taken(tmp_path):
    folder = write_text_files(tmp_path)
    edit_json(folder / "tokenizer.json", decoder={"type": "Fuse"})
    with pytest.raises(EngineIncompatible, match="only byte-level BPE"):
        TextProcessor.load(folder)


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        ('{"temperature": 0.7, "do_sample": true}', "temperature", 0.7),
        ('{"do_sample": false, "top_p": 0.8}', "temperature", 0.0),
        ('{"top_k": 20, "transformers_version": "5"}', "top_k", 20),
        ("{}", "min_p", None),
    ],
)
def test_sampling_defaults_come_from_the_generation_config(tmp_path, config, name, expected):
    text = TextProcessor.load(write_text_files(tmp_path, generation_config=config))
    assert text.generation_config.default(name) == expected


@pytest.mark.parametrize("config", ['{"top_p": 3}', '{"top_k": "a"}', "{"])
def test_a_generation_config_that_cannot_be_used_is_named(tmp_path, config):
    with pytest.raises(EngineCorrupt, match=r"generation_config\.json cannot be used"):
        TextProcessor.load(write_text_files(tmp_path, generation_config=config))
