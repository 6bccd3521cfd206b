"""Fields that would change the meaning of an answer, but that this server does not know.

Other unknown fields are ignored, as OpenAI clients send many. These are refused by name, unless
their value asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.errors import ApiError

# Field -> what it would do. The values None, False, "", [] and {} ask for nothing.
_SAMPLING = {
    "allowed_token_ids": "restricting the vocabulary",
    "bad_words": "forbidding words",
    "guided_choice": "structured output",
    "guided_grammar": "structured output",
    "guided_json": "structured output",
    "guided_regex": "structured output",
    "include_stop_str_in_output": "including the stop string",
    "length_penalty": "beam search",
    "logits_processors": "sending code",
    "min_tokens": "a least number of tokens",
    "prompt_logprobs": "logprobs of the prompt (use echo and logprobs of /v1/completions)",
    "return_tokens_as_token_ids": "tokens as ids",
    "structured_outputs": "structured output",
    "truncate_prompt_tokens": "truncating the prompt",
    "use_beam_search": "beam search",
}
CHAT = _SAMPLING | {
    "audio": "spoken output",
    "chat_template": "a chat template in the request",
    "documents": "documents",
    "echo": "repeating the prompt",
    "function_call": "functions (use tools)",
    "functions": "functions (use tools)",
    "web_search_options": "web search",
}
COMPLETIONS = _SAMPLING | {
    "prompt_embeds": "a prompt of embeddings",
    "suffix": "filling in before a suffix",
}

_NEUTRAL: dict[str, Any] = {"length_penalty": 1.0, "min_tokens": 0}
_TEXT_MODALITIES: tuple[Any, ...] = (None, [], ["text"])
_TEXT_FORMATS: tuple[Any, ...] = (None, {"type": "text"})


def check_supported(body: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Refuse a request that asks for what this server does not do.

    Raises:
        ApiError: 400, which names the field.
    """
    for name in fields:
        value = body.get(name)
        if value and value != _NEUTRAL.get(name):
            raise _refusal(f"{name} is set, but this server does not support {fields[name]}", name)
    if body.get("response_format") not in _TEXT_FORMATS:
        raise _refusal(
            'response_format asks for structured output, but this server supports {"type": "text"} '
            "only",
            "response_format",
        )
    if body.get("modalities") not in _TEXT_MODALITIES:
        raise _refusal(
            'modalities asks for more than text, but this server supports ["text"] only',
            "modalities",
        )


def _refusal(message: str, param: str) -> ApiError:
    return ApiError(400, message, param=param, code="unsupported_parameter")
