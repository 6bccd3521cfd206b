"""What schemathesis cannot know of requests that fit their description and are refused.

schemathesis loads this file in an environment of its own. Its own check that described requests
are accepted knows statuses alone; this one asks for the reason, which no schema could have stated.
"""

from __future__ import annotations

import re

import schemathesis  # type: ignore[import-not-found]  # in its own environment alone

REASONS = [
    re.compile(pattern)
    for pattern in (
        # Fields that depend on each other.
        r"^(stream_options|partial_images|top_logprobs) is .* (only allowed when|needs) \w+",
        r"^(tool_choice|function_call) asks for a call, but \w+ is empty",
        r"names the function .*, but (tools|functions) has ",
        r" has the name .*, which is used twice",
        r" are both (set|true), but ",
        r"^prompt and messages are both missing",
        r"^continue_final_message is true, but the last message is not",
        r"\.content is null, but only an assistant message with tool_calls may leave it out",
        r"(call_id|tool_use_id) is .*, but no \w+ before it has ",
        r"^text_1 has \d+ texts and text_2 \d+",
        r"^(prompt|input) mixes token ids with ",
        r"prompts with n \d+ make \d+ answers",
        r"^messages\[\d+\] is the assistant's and .*, so no answer can go on from it",
        r"^best_of is \d+ and n is \d+",
        r"^thinking\.budget_tokens is \d+, but it must be below max_tokens",
        r"^output_compression is \d+, but png",
        r"^quality is \w+ and num_inference_steps is ",
        r"^(chat_template_kwargs)\.\w+ is set, but ",
        r"^response_format is url, but ",
        # What the model is, or knows.
        r"maximum context length is \d+",  # Anthropic's errors have no code
        r" (is|has the token id) -?\d+, but ids run from",
        r"^scheduler is .*, but it must be one of",
        r"^size is ",
        r"negative_prompt .* guidance_scale",
        r"^dimensions is ",
        r"^max_length is \d+, but the prompt alone has",
        r"the chat template .* knows no function calls",
        # What stands in a text or a form.
        r" is there more than once in the form",
        r"multipart form: a part has no name",
        r" is not a PNG, JPEG or WebP file",
        r" cannot be used as (a|an) ",
        # What OpenAI has and this server has not.
        r"^background is transparent, but",
        r"^stream is true, but variations are not streamed",
    )
]


@schemathesis.check
def described_requests_are_accepted(ctx, response, case):
    """Fails where a request that fits its description is refused without such a reason."""
    is_described = case.meta is not None and case.meta.generation.mode.is_positive
    if not is_described or response.status_code in (200, 404):
        return
    error = response.json()["error"]
    assert response.status_code == 400, error
    if error.get("code") == "context_length_exceeded":
        return
    assert any(reason.search(error["message"]) for reason in REASONS), error["message"]
