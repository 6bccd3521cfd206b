"""instructor against a server: python instructor_script.py BASE_URL; prints what it saw as JSON."""

import json
import sys
from typing import Literal

import instructor
import openai
from pydantic import BaseModel, ConfigDict, Field


class Pet(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a small model would go on for ever
    name: str = Field(max_length=10)
    kind: Literal["cat", "dog"]


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    pets: list[Pet] = Field(max_length=2)


MODES = (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA)
BODY = {
    "model": "demo-chat",
    "messages": [{"role": "user", "content": "Maria is 30 and has a cat."}],
    "temperature": 0,
}


def main() -> None:
    with openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0) as client:
        seen: dict = {}
        for mode in MODES:
            wrapped = instructor.from_openai(client, mode=mode)
            person = wrapped.chat.completions.create(**BODY, response_model=Person, max_retries=1)
            partial = list(wrapped.chat.completions.create_partial(**BODY, response_model=Person))
            seen[mode.value] = [person.model_dump(), partial[-1].model_dump(), len(partial)]
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
