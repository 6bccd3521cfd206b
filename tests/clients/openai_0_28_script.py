"""Runs under openai 0.28, as users of older Qwen examples have it; prints what it saw as JSON.

Usage: python openai_0_28_script.py BASE_URL
"""

import json
import sys

import openai

openai.api_base = f"{sys.argv[1]}/v1"
openai.api_key = "none"

MESSAGES = [{"role": "user", "content": "What is 3 + 4?"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
COMPLETION = {"model": "tiny", "prompt": "The quick", "max_tokens": 6, "temperature": 0}


def main() -> None:
    answer = openai.ChatCompletion.create(**CHAT)
    streamed = [chunk.choices[0] for chunk in openai.ChatCompletion.create(**CHAT, stream=True)]
    completion = openai.Completion.create(**COMPLETION, logprobs=2)
    pieces = openai.Completion.create(**COMPLETION, stream=True)
    seen = {
        "version": openai.__version__,
        "content": answer.choices[0].message.content,
        "finish_reason": answer.choices[0].finish_reason,
        "total_tokens": answer["usage"]["total_tokens"],
        "first_delta": dict(streamed[0].delta),
        "streamed": "".join(choice.delta.get("content", "") for choice in streamed),
        "stream_end": streamed[-1].finish_reason,
        "text": completion.choices[0].text,
        "tokens": completion.choices[0].logprobs.tokens,
        "pieces": "".join(chunk.choices[0].text for chunk in pieces),
        "models": [model["id"] for model in openai.Model.list()["data"]],
        "errors": [error_of(change) for change in ({"model": "other"}, {"temperature": 9})],
    }
    json.dump(seen, sys.stdout)


def error_of(change: dict) -> list:
    try:
        openai.ChatCompletion.create(**CHAT | change)
    except openai.error.InvalidRequestError as error:
        return [error.http_status, error.code, error.param]
    return []


if __name__ == "__main__":
    main()
