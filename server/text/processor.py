"""The text layer of one engine behind one object: prompts to ids, ids to text.

It knows nothing of HTTP and nothing of engines beyond their folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engines.errors import EngineCorrupt, InvalidRequest
from server.text.chat_format import ChatFormat
from server.text.chat_template import ChatTemplate
from server.text.detokenizer import Detokenizer
from server.text.escape import SpecialTokenEscape, unused_mark
from server.text.generation_config import GenerationConfig
from server.text.messages import template_messages
from server.text.tokenizer import Tokenizer, read_tokenizer_config
from server.text.window import fit_window


class TextProcessor:
    """Tokenizer, chat template and sampling defaults of one engine; any thread may use it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        generation_config: GenerationConfig | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.generation_config = generation_config or GenerationConfig()
        self.chat_format = (
            ChatFormat() if template is None else ChatFormat.of(tokenizer, template.source)
        )
        self._escape = SpecialTokenEscape(tokenizer.special_tokens)

    @classmethod
    def load(cls, engine_dir: Path) -> TextProcessor:
        """Read the text files of an engine folder.

        Raises:
            EngineCorrupt: A file is missing or cannot be read.
            EngineIncompatible: The tokenizer is not byte-level BPE.
        """
        config = read_tokenizer_config(engine_dir)
        path = engine_dir / "chat_template.jinja"
        template = None
        try:
            template = ChatTemplate(path.read_text(encoding="utf-8"), _special_tokens(config))
        except FileNotFoundError:
            pass  # a base model: it completes prompts, but does not chat
        except UnicodeDecodeError as error:
            raise EngineCorrupt(f"{path} is not UTF-8: {error}") from None
        return cls(
            Tokenizer.from_folder(engine_dir, config),
            template,
            GenerationConfig.from_folder(engine_dir),
        )

    def encode_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt of a conversation; special tokens in a client's strings are plain text.

        Raises:
            InvalidRequest: The engine has no chat template, or the template refuses the messages.
        """
        if self.template is None:
            raise InvalidRequest(
                "this model has no chat template: send a prompt to /v1/completions", "model"
            )
        given = dict(variables or {})
        # Arguments of tool calls are parsed first: their JSON can spell a token with escapes.
        messages = template_messages(messages, knows_developer=self.template.knows_developer)
        mark = unused_mark(messages, tools, given)
        template = self.template

        def encode(messages: list[dict[str, Any]]) -> list[int]:
            text = template.render(
                messages,
                tools=self._escape.escape(tools, mark),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                variables=self._escape.escape(given, mark),
            )
            return self.tokenizer.encode(text, mark)

        escaped = self._escape.escape(messages, mark)
        window = self.generation_config.max_window_size
        return encode(escaped) if window is None else fit_window(escaped, window, encode)

    def encode_prompt(self, prompt: str) -> list[int]:
        """The ids of a bare prompt, in which special tokens count."""
        return self.tokenizer.encode_prompt(prompt)

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of some tokens, special ones included."""
        detokenizer = self.detokenizer(skip_special_tokens=False)
        return "".join(map(detokenizer.push, token_ids)) + detokenizer.flush()

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        """A fresh decoder for one sequence."""
        tokenizer = self.tokenizer
        return Detokenizer(tokenizer.table if skip_special_tokens else tokenizer.full_table)


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """`bos_token` and its like, which `tokenizer_config.json` gives as a string or an object."""
    tokens = {}
    for name, token in config.items():
        if name.endswith("_token"):
            content = token.get("content") if isinstance(token, dict) else token
            if isinstance(content, str):
                tokens[name] = content
    return tokens
