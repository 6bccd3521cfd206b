"""LiteLLM against a server: python litellm_script.py BASE_URL; prints what it saw as JSON."""

import json
import sys

import litellm
from pydantic import BaseModel, Field

litellm.suppress_debug_info = True  # it prints to standard output
SERVER = sys.argv[1]
OPENAI = {"api_base": f"{SERVER}/v1", "api_key": "none"}
CHAT = OPENAI | {
    "model": "openai/demo-chat",
    "messages": [{"role": "user", "content": "What is 3 + 4?"}],
    "temperature": 0,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


def error_of(**change: object) -> list:
    try:
        litellm.completion(**CHAT | change, num_retries=0)
    except Exception as error:
        return [type(error).__name__, error.status_code]
    return []


def main() -> None:
    whole = litellm.completion(**CHAT)
    chunks = list(litellm.completion(**CHAT, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks, messages=CHAT["messages"])
    call = litellm.completion(**CHAT, tools=[TOOL], tool_choice="required").choices[0]
    person = litellm.completion(**CHAT, response_format=Person).choices[0].message.content
    embedded = litellm.embedding(model="openai/tiny-embedding", input=["one", "two"], **OPENAI)
    ranked = litellm.rerank(
        model="hosted_vllm/tiny-reranker",
        query="What is 3 + 4?",
        documents=["3 + 4 is 7.", "The quick brown fox"],
        api_base=SERVER,
        api_key="none",
    )
    seen = {
        "content": whole.choices[0].message.content,
        "streamed": built.choices[0].message.content,
        "usage": [whole.usage.total_tokens, built.usage.total_tokens],
        "finish_reason": call.finish_reason,
        "call": call.message.tool_calls[0].function.name,
        "arguments": json.loads(call.message.tool_calls[0].function.arguments),
        "person": Person.model_validate_json(person).model_dump(),
        "embeddings": [len(item["embedding"]) for item in embedded.data],
        "ranked": sorted(result["index"] for result in ranked.results),
        "errors": [error_of(model="openai/other"), error_of(temperature=-1)],
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
