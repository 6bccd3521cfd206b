"""pydantic-ai against a server: python pydantic_ai_script.py BASE_URL; prints what it saw."""

import asyncio
import json
import sys

from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = "What is 3 + 4?"


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)


async def stream(agent: Agent) -> list[str]:
    async with agent.run_stream(QUESTION) as result:
        return [text async for text in result.stream_text(delta=True, debounce_by=None)]


async def main() -> None:
    provider = OpenAIProvider(base_url=f"{sys.argv[1]}/v1", api_key="none")
    model = OpenAIChatModel("demo-chat", provider=provider)
    settings = {"temperature": 0.0}
    agent = Agent(model, model_settings=settings)
    whole = await agent.run(QUESTION)
    pieces = await stream(agent)
    by_tool = await Agent(model, output_type=Person, model_settings=settings).run("Maria is 30.")
    native = Agent(model, output_type=NativeOutput(Person), model_settings=settings)
    by_schema = await native.run("Maria is 30.")
    cities = []
    with_tool = Agent(model, model_settings=settings)

    @with_tool.tool_plain
    def get_weather(city: str) -> str:
        """Tell the weather in a city."""
        cities.append(city)
        return "rain"

    told = await with_tool.run("What is the weather in Porto?")
    json.dump(
        {
            "content": whole.output,
            "pieces": pieces,
            "by_tool": by_tool.output.model_dump(),
            "by_schema": by_schema.output.model_dump(),
            "cities": cities,
            "told": told.output,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    asyncio.run(main())
