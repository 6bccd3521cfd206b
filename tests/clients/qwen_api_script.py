"""Runs under openai 0.28, as code written for Qwen's own server does; prints what it saw as JSON.

Usage: python qwen_api_script.py BASE_URL
"""

import json
import sys

import openai
import requests

openai.api_base = f"{sys.argv[1]}/v1"
openai.api_key = "none"

# In the form of Qwen's server, and in that of OpenAI.
FUNCTIONS = [
    {
        "name_for_human": "搜索",
        "name_for_model": "web_search",
        "description_for_model": "Searches the web. Format the arguments as a JSON object.",
        "parameters": [
            {"name": "query", "description": "words", "required": True,
             "schema": {"type": "string", "maxLength": 8}}
        ],
    },
    {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
]  # fmt: skip
HISTORY = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "你好"},
    {"role": "user", "content": "Oslo?"},
    {"role": "assistant", "content": "Thought: look it up",
     "function_call": {"name": "web_search", "arguments": '{"query": "Oslo"}'}},
    {"role": "function", "name": "web_search", "content": "a city"},
]  # fmt: skip


def ask(messages, **options):
    limits = {"temperature": 0, "max_tokens": 60, "model": "Qwen"}
    return openai.ChatCompletion.create(messages=messages, **limits | options)


def main() -> None:
    question = HISTORY[:3]
    forced = {"max_tokens": 900, "functions": FUNCTIONS, "function_call": {"name": "get_weather"}}
    call = ask(question, **forced).choices[0]
    pieces = [chunk.choices[0] for chunk in ask(question, **forced, stream=True)]
    told = [piece.delta["function_call"] for piece in pieces if "function_call" in piece.delta]
    plain = ask(question[:1], max_tokens=8)
    direct = requests.post(
        f"{openai.api_base}/chat/completions",
        json={"model": "Qwen", "messages": question[:1], "temperature": 0, "max_tokens": 8},
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    limit = plain.usage.prompt_tokens + 3
    seen = {
        "models": requests.get(f"{openai.api_base}/models", timeout=60).json(),
        "call": call.message.function_call.to_dict(),
        "finish_reason": call.finish_reason,
        "streamed_name": told[0]["name"],
        "streamed_arguments": "".join(part.get("arguments", "") for part in told),
        "streamed_finish_reason": pieces[-1].finish_reason,
        "after_a_result": ask(HISTORY, functions=FUNCTIONS).choices[0].finish_reason,
        "plain": plain.choices[0].message.content,
        "direct": direct.json()["choices"][0]["message"]["content"],
        "streamed": "".join(
            chunk.choices[0].delta.get("content", "")
            for chunk in ask(question[:1], max_tokens=8, stream=True)
        ),
        "total_tokens": ask(question[:1], max_length=limit).usage.total_tokens,
        "limit": limit,
        "stopped": ask(question[:1], stop=[plain.choices[0].message.content[2:4]])
        .choices[0]
        .message.content,
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
