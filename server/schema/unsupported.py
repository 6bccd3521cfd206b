"""Fields that would change the meaning of an answer, but that this server does not know.

Other unknown fields are ignored, as OpenAI clients send many. These are refused by name, unless
their value asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.errors import ApiError

# Field -> what it would do. The values None, False, "", [] and {} ask for nothing, but for those
# of _ASKED_BY_EMPTY.
_SAMPLING = {
    "allowed_token_ids": "restricting the vocabulary",
    "bad_words": "forbidding words",
    "include_stop_str_in_output": "including the stop string",
    "length_penalty": "beam search",
    "logits_processors": "sending code",
    "min_tokens": "a least number of tokens",
    "prompt_logprobs": "logprobs of the prompt (use echo and logprobs of /v1/completions)",
    "return_tokens_as_token_ids": "tokens as ids",
    "truncate_prompt_tokens": "truncating the prompt",
    "use_beam_search": "beam search",
}
CHAT = _SAMPLING | {
    "audio": "spoken output",
    "chat_template": "a chat template in the request",
    "documents": "documents",
    "echo": "repeating the prompt",
    "store": "storing chats (use /v1/responses)",
    "verbosity": "another verbosity than medium (say in the prompt how long an answer should be)",
    "web_search_options": "web search",
}
COMPLETIONS = _SAMPLING | {
    "prompt_embeds": "a prompt of embeddings",
    "suffix": "filling in before a suffix",
}

_POOLING = {
    "truncate_prompt_tokens": "truncating texts",
    "truncate": "truncating texts",
    "additional_data": "data beside the texts",
}
EMBEDDINGS = _POOLING | {
    "messages": "embedding a conversation (send its text as input)",
    "add_special_tokens": "leaving out the tokenizer's end token (send token ids)",
    "embed_dtype": "other types than float32",
    "normalize": "embeddings of another length than 1",
}
RERANK = _POOLING | {
    "max_tokens_per_doc": "truncating documents",
    "max_chunks_per_doc": "cutting documents into chunks",
    "rank_fields": "documents of several fields",
    "activation": "scores before the softmax",
    "softmax_normalize": "scores before the softmax",
}

_LORA = "LoRA files of a client: a LoRA variant is a model of its own, which `model` names"
_USE_EDITS = "a picture to start from here (use /v1/images/edits)"
_USE_STEPS = "that name (use num_inference_steps)"
_IMAGES = {
    "adapter_name_or_path": _LORA,
    "loras": _LORA,
    "lora_model": _LORA,
    "lora_name": _LORA,
    "lora_path": _LORA,
    "lora_paths": _LORA,
    "lora_scale": _LORA,
    "lora_scales": _LORA,
    "lora_weights": _LORA,
    "batch_size": "that name (use n)",
    "cfg_scale": "that name (use guidance_scale)",
    "clip_skip": "skipping layers of the text encoder",
    "complexity": "planning before drawing",
    "control_image": "ControlNet",
    "controlnet": "ControlNet",
    "cross_attention_kwargs": "arguments of attention layers",
    "eta": "adding noise to DDIM",
    "frame_count": "animations",
    "frame_duration_ms": "animations",
    "guidance_rescale": "rescaled guidance",
    "height": "width and height apart (use size, as in 512x512)",
    "ip_adapter": "image prompts",
    "ip_adapter_image": "image prompts",
    "markup": "markup over an image (use mask)",
    "num_images": "that name (use n)",
    "num_images_per_prompt": "that name (use n)",
    "prompt_rewriter": "rewriting prompts",
    "sampler": "that name (use scheduler)",
    "sampler_name": "that name (use scheduler)",
    "sigmas": "noise levels of a client",
    "steps": _USE_STEPS,
    "num_steps": _USE_STEPS,
    "style": "styles (say it in the prompt)",
    "svg": "vector graphics",
    "timesteps": "time steps of a client",
    "true_cfg_scale": "that name (use guidance_scale)",
    "width": "width and height apart (use size, as in 512x512)",
}
GENERATIONS = _IMAGES | {
    "image": _USE_EDITS,
    "image_url": _USE_EDITS,
    "images": _USE_EDITS,
    "init_image": _USE_EDITS,
    "input_fidelity": _USE_EDITS,
    "mask": _USE_EDITS,
    "strength": _USE_EDITS,
}
EDITS = _IMAGES | {
    "image_url": "images by address (send the file as image)",
    "images": "images by address (send the file as image)",
    "input_fidelity": "another fidelity than low (use strength)",
}
VARIATIONS = EDITS | {
    "mask": "a mask here (use /v1/images/edits)",
    "prompt": "a prompt here (use /v1/images/edits)",
}

_NEUTRAL: dict[str, Any] = {
    "input_fidelity": "low",
    "length_penalty": 1.0,
    "min_tokens": 0,
    "verbosity": "medium",
}
# Objects that ask for what they are named after without any setting.
_ASKED_BY_EMPTY = frozenset({"web_search_options"})
_TEXT_MODALITIES: tuple[Any, ...] = (None, [], ["text"])


def check_supported(body: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Refuse a completion that asks for what this server does not do.

    Raises:
        ApiError: 400, which names the field.
    """
    check_fields(body, fields)
    if body.get("modalities") not in _TEXT_MODALITIES:
        raise refusal(
            'modalities asks for more than text, but this server supports ["text"] only',
            "modalities",
        )


def check_fields(body: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Refuse a request that sets one of `fields`.

    Raises:
        ApiError: 400, which names the field.
    """
    for name in fields:
        value = body.get(name)
        if (value or (value == {} and name in _ASKED_BY_EMPTY)) and value != _NEUTRAL.get(name):
            raise refusal(f"{name} is set, but this server does not support {fields[name]}", name)


def refusal(message: str, param: str) -> ApiError:
    """A 400 for what this server does not do."""
    return ApiError(400, message, param=param, code="unsupported_parameter")
