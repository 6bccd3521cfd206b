"""Code written for Qwen's own server, against a server with a checkpoint of the first Qwen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.server_process import ServerProcess

SCRIPT = Path(__file__).parent / "qwen_api_script.py"
BODY = {"model": "Qwen", "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": "你好"}]}  # fmt: skip
FETCH = """
const response = await fetch(process.argv[1], {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: process.argv[2],
});
console.log(JSON.stringify(await response.json()));
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    # Imported here, as most tests need neither torch nor the exporter.
    from engines.manifest import write_manifest
    from export.checkpoint import open_checkpoint
    from export.compile import compile_engine
    from export.compile_plan import CompileOptions, plan_compilation
    from export.report import QuietProgress
    from tests.export.qwen1 import make_qwen1_checkpoint

    root = tmp_path_factory.mktemp("qwen-api")
    checkpoint = make_qwen1_checkpoint(root / "Qwen-tiny-Chat", seq_length=4096)
    folder = root / "engines" / "qwen"
    folder.mkdir(parents=True)
    options = CompileOptions(engine_id="qwen", precision="fp32")
    plan = plan_compilation(open_checkpoint(checkpoint, "qwen"), options)
    write_manifest(compile_engine(plan, folder, QuietProgress()), folder)
    names = ["--served-model-name", "gpt-3.5-turbo", "--owned-by", "owner", "--accept-any-model"]
    engine = ["--engine-dir", str(folder.parent), "--num-threads", "1"]
    with ServerProcess([*engine, *names]) as process:
        yield process.base_url


@pytest.fixture(scope="module")
def seen(openai_0_28, url):
    return json.loads(run([str(openai_0_28), str(SCRIPT), url]))


def test_the_models_are_listed_with_the_same_fields_and_nulls(seen):
    (card,) = seen["models"]["data"]
    assert isinstance(card.pop("created"), int)
    assert seen["models"] == {"object": "list", "data": [card]}
    assert card == {
        "id": "gpt-3.5-turbo",
        "object": "model",
        "owned_by": "owner",
        "root": None,
        "parent": None,
        "permission": None,
    }


def test_a_function_is_called_whole_and_streamed(seen):
    assert seen["call"]["name"] == seen["streamed_name"] == "get_weather"
    assert seen["call"]["arguments"] == seen["streamed_arguments"]
    assert json.loads(seen["call"]["arguments"]).keys() == {"city"}
    assert seen["finish_reason"] == seen["streamed_finish_reason"] == "function_call"


def test_what_a_function_returned_is_gone_on_from(seen):
    assert seen["after_a_result"] in ("stop", "length", "function_call")


def test_chats_answer_the_same_however_they_are_asked(seen, url):
    assert seen["plain"] == seen["streamed"] == seen["direct"]
    assert seen["total_tokens"] <= seen["limit"]
    assert seen["plain"].startswith(seen["stopped"])
    chat, body = f"{url}/v1/chat/completions", json.dumps(BODY)
    asked = []
    if shutil.which("curl"):
        header = ["-H", "Content-Type: application/json"]
        asked.append(run(["curl", "-s", chat, *header, "-d", body]))
    if shutil.which("node"):
        asked.append(run(["node", "--input-type=module", "-e", FETCH, chat, body]))
    for text in asked:
        assert json.loads(text)["choices"][0]["message"]["content"] == seen["plain"]
