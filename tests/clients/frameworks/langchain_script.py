"""LangChain against a server: python langchain_script.py BASE_URL; prints what it saw as JSON."""

import json
import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

BASE_URL = f"{sys.argv[1]}/v1"
QUESTION = "What is 3 + 4?"


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


@tool
def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"rain in {city}"


def main() -> None:
    chat = ChatOpenAI(
        model="demo-chat", base_url=BASE_URL, api_key="none", temperature=0, stream_usage=True
    )
    whole = chat.invoke(QUESTION)
    streamed = None
    num_chunks = 0
    for chunk in chat.stream(QUESTION):
        streamed = chunk if streamed is None else streamed + chunk
        num_chunks += 1
    call = chat.bind_tools([get_weather], tool_choice="any").invoke("Weather in Porto?")
    chunks = chat.bind_tools([get_weather], tool_choice="get_weather").stream("Weather in Porto?")
    streamed_call = None
    for chunk in chunks:
        streamed_call = chunk if streamed_call is None else streamed_call + chunk
    answered = chat.bind_tools([get_weather]).invoke(
        [
            ("human", "Weather in Porto?"),
            call,
            get_weather.invoke({**call.tool_calls[0], "type": "tool_call"}),
        ]
    )
    people = {
        method: chat.with_structured_output(Person, method=method).invoke("Maria is 30.")
        for method in ("json_schema", "function_calling")
    }
    embeddings = OpenAIEmbeddings(
        model="tiny-embedding", base_url=BASE_URL, api_key="none", check_embedding_ctx_length=False
    )
    json.dump(
        {
            "content": whole.content,
            "streamed": streamed.content,
            "num_chunks": num_chunks,
            "usage": [
                whole.usage_metadata["total_tokens"],
                streamed.usage_metadata["total_tokens"],
            ],
            "finish_reason": whole.response_metadata["finish_reason"],
            "calls": [entry["name"] for entry in call.tool_calls],
            "arguments": [entry["args"] for entry in streamed_call.tool_calls],
            "answered": answered.content,
            "people": {method: person.model_dump() for method, person in people.items()},
            "documents": embeddings.embed_documents(["one", "two"]),
            "query": embeddings.embed_query("one"),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
