"""The server as a process: starting, refusing to start, draining, and dying with its engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.server_process import ROOT, ServerProcess, clean_environment, run_server

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "ignore_eos": True}
# Thousands of steps, so that signals and other requests come while it runs.
LONG = CHAT | {"max_tokens": 1900, "n": 4, "stream": True}


@pytest.fixture
def arguments(tiny_engine_dir):
    return ["--engine-dir", str(tiny_engine_dir), "--num-threads", "1"]


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def run_python(source: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def first_line(response: httpx.Response) -> str:
    return next(line for line in response.iter_lines() if line)


def test_a_server_answers_and_says_so_in_its_log(arguments):
    with ServerProcess([*arguments, "--log-format", "json"]) as process, process.client() as client:
        answer = client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 3})
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert process.stop() == 0
    lines = [json.loads(line) for line in process.log if line]
    line = next(line for line in lines if line.get("route") == "/v1/chat/completions")
    assert line["id"] == answer.headers["x-request-id"]
    assert line["model"] == "tiny"
    assert line["output_tokens"] == 3
    assert line["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert 0 < line["ttft_ms"] <= line["duration_ms"]


def test_every_setting_of_a_file_and_of_the_environment_counts(arguments, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text('[serve]\nserved-model-name = ["a/b", "c"]\nowned-by = "me"\n')
    key = {"Authorization": "Bearer k2"}
    with (
        ServerProcess([*arguments, "--config", str(settings)], ENGINERY_API_KEY="k1,k2") as process,
        process.client() as client,
    ):
        assert client.get("/v1/models").status_code == 401
        listed = client.get("/v1/models", headers=key).json()["data"]
    assert [(entry["id"], entry["owned_by"]) for entry in listed] == [("a/b", "me"), ("c", "me")]


def test_a_body_over_the_limit_is_a_413_even_if_it_does_not_state_its_length(server):
    def chunks():
        yield b'{"model": "tiny", "prompt": "'
        for _ in range(17):
            yield b"x" * 2**20
        yield b'"}'

    body = b"".join(chunks())
    headers = {"Content-Type": "application/json"}
    with server.client() as client:
        for content in (chunks(), body):
            result = client.post("/v1/completions", content=content, headers=headers)
            assert result.status_code == 413
            assert result.json()["error"]["code"] == "request_too_large"
        assert client.get("/health").status_code == 200


def test_sigterm_lets_a_running_stream_end_and_refuses_new_requests(arguments):
    with (
        ServerProcess([*arguments, "--drain-timeout", "600"]) as process,
        process.client() as client,
    ):
        with client.stream("POST", "/v1/chat/completions", json=LONG) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: ")
            process.signal(signal.SIGTERM)
            with process.client() as other:
                while other.get("/ready").status_code == 200:
                    pass
                refused = other.post("/v1/chat/completions", json=CHAT)
                health = other.get("/health")
            events = [line for line in lines if line.startswith("data: ")]
        assert process.wait() == 0
    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "server_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert (health.status_code, health.json()["status"]) == (200, "draining")
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2][6:])["choices"][0]["finish_reason"] == "length"


def test_what_does_not_end_in_time_is_told_so(arguments):
    with ServerProcess([*arguments, "--drain-timeout", "0"]) as process, process.client() as client:
        with client.stream("POST", "/v1/chat/completions", json=LONG) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: ")
            process.signal(signal.SIGTERM)
            events = [line for line in lines if line.startswith("data: ")]
        assert process.wait() == 0
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2][6:])["error"]["type"] == "server_error"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_idle_server_ends_at_once_and_cleanly(arguments, number):
    process = ServerProcess(arguments)
    process.signal(number)
    assert process.wait() == 0
    assert "Traceback" not in "".join(process.log)


def test_a_dead_engine_makes_health_503_and_the_exit_status_1():
    with ServerProcess([], module="tests.server.failing_server") as process:
        with process.client() as client:
            assert client.get("/health").status_code == 200
            broken = client.post("/v1/chat/completions", json=CHAT | {"model": "broken"})
            health = client.get("/health")
            ready = client.get("/ready")
        status = process.wait()
    assert broken.status_code == 500
    assert broken.json()["error"]["type"] == "server_error"
    assert "flux" not in broken.text
    assert (health.status_code, health.json()["status"]) == (503, "error")
    assert [model["status"] for model in health.json()["models"]] == ["error", "ok", "ok"]
    assert ready.status_code == 503
    assert status == 1
    assert "flux" in "".join(process.log)


def test_an_engine_that_never_ends_its_step_cannot_keep_the_process_alive():
    with ServerProcess([], module="tests.server.failing_server") as process:
        with (
            process.client() as client,
            client.stream(
                "POST", "/v1/chat/completions", json=CHAT | {"model": "stuck", "stream": True}
            ) as stream,
        ):
            assert stream.status_code == 200
            while process.is_running:  # one to drain, one to end what runs, one to give up
                process.signal(signal.SIGTERM)
                time.sleep(0.3)
        assert process.wait() == 1


def test_a_port_in_use_is_one_sentence_before_any_engine_is_loaded(arguments):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        error = error_of(run_server(*arguments, "--port", str(port)))
    assert f"port {port} of 127.0.0.1 is in use" in error


def test_a_missing_or_empty_engine_dir_is_one_sentence(tmp_path):
    assert "does not exist" in error_of(run_server("--engine-dir", str(tmp_path / "nowhere")))
    assert "holds no engine" in error_of(run_server("--engine-dir", str(tmp_path)))


def test_an_engine_that_cannot_be_loaded_is_named(tiny_engine_dir, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in (tiny_engine_dir / "tiny").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    graph = folder / "model.onnx"
    graph.write_bytes(bytes(graph.stat().st_size))
    for options in ([], ["--no-verify-files"]):
        error = error_of(
            run_server("--engine-dir", str(folder), "--port", "0", "--log-level", "error", *options)
        )
        assert "engine 'tiny'" in error
        assert str(folder) in error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "host.invalid"], "'host.invalid' is not an address of this machine"),
        (["--api-key", "@nowhere"], "nowhere"),
        (["--served-model-name", "a=b"], "'b'"),
        (["--max-context", "100000"], "max_context is 100000"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(arguments, options, sentence):
    assert sentence in error_of(run_server(*arguments, "--port", "0", *options))


def test_an_empty_variable_does_not_open_the_server(arguments):
    assert "ENGINERY_API_KEY is empty" in error_of(run_server(*arguments, ENGINERY_API_KEY=""))


def test_help_lists_every_setting_and_loads_no_runtime():
    source = (
        "import sys\n"
        "sys.argv = ['server', '--help']\n"
        "from server.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "loaded = {'onnxruntime', 'numpy', 'tokenizers', 'falcon', 'uvicorn'} & set(sys.modules)\n"
        "print('loaded:', sorted(loaded))\n"
    )
    text = run_python(source)
    assert "loaded: []" in text
    for flag in ("--engine-dir", "--api-key-file", "--kv-cache-memory", "--log-format", "--config"):
        assert flag in text


def test_serving_imports_nothing_that_exporting_needs():
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "server").rglob("*.py")
        if path.name != "__main__.py"
    )
    forbidden = ["torch", "transformers", "onnx", "onnx_ir", "safetensors", "onnxruntime"]
    source = (
        f"import importlib, sys\n"
        f"for name in {modules!r}:\n"
        f"    importlib.import_module(name.removesuffix('.__init__'))\n"
        f"print(sorted(set({forbidden!r}) & set(sys.modules)))\n"
    )
    assert run_python(source).strip() == "[]"


def test_a_server_loads_no_library_for_pictures_before_there_is_one():
    source = "import sys, server.app, server.loading\nprint('PIL' in sys.modules)"
    assert run_python(source).strip() == "False"


def test_the_server_fixture_is_the_process_that_it_says(server):
    assert Path(f"/proc/{server.pid}").exists() or os.name != "posix"
    assert httpx.get(f"{server.base_url}/v1/models").json()["data"][0]["id"] == "tiny"
