"""The real command as a process: what it prints, and what is left when it is interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engines.manifest import read_manifest

DEADLINE = 240  # seconds, for what takes a few


def command(checkpoint, output, *options):
    base = [sys.executable, "-m", "export", "--checkpoint-path", str(checkpoint)]
    return [*base, "--output", str(output), *options]


def export(checkpoint, output, *options, **settings):
    return subprocess.run(
        command(checkpoint, output, *options),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        **settings,
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_until(condition):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def processes_that_mention(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@contextlib.contextmanager
def running_export(checkpoint, output):
    """An export that has compiled and is about to verify; ended at the latest by the test."""
    process = subprocess.Popen(
        command(checkpoint, output, "--quiet"), stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: (output / ".tiny-qwen2.5.partial" / "model.onnx").exists())
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_the_engine_folder_is_complete_and_the_table_says_what_it_is(checkpoint, tmp_path):
    result = export(checkpoint("qwen2.5"), tmp_path, "--name", "acme/mine", "--no-verify")
    assert result.returncode == 0, result.stderr
    assert names(tmp_path) == ["acme--mine"]
    assert names(tmp_path / "acme--mine") == [
        "chat_template.jinja",
        "engine.json",
        "generation_config.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for words in ("acme/mine is ready", "int8", "256 tokens", "MB", "asked not to verify"):
        assert words in result.stdout
    assert "compiling" in result.stderr
    manifest = read_manifest(tmp_path / "acme--mine")
    assert manifest.id == "acme/mine"
    assert manifest.source.checkpoint == "tiny-qwen2.5"


def test_the_engine_is_named_after_the_folder_and_never_after_a_path(checkpoint, tmp_path):
    folder = checkpoint("qwen3")
    result = export(f"{folder.parent}/./{folder.name}/", tmp_path, "--no-verify", "--json")
    summary = json.loads(result.stdout)
    assert summary["manifest"]["id"] == "tiny-qwen3"
    assert str(folder.parent) not in json.dumps(summary["manifest"])


def test_quiet_prints_nothing_and_json_prints_one_object(checkpoint, tmp_path):
    quiet = export(checkpoint("qwen2"), tmp_path, "--no-verify", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    as_json = export(checkpoint("qwen2"), tmp_path, "--no-verify", "--json", "--force")
    assert as_json.stderr == ""
    assert as_json.stdout.count("\n") == 1
    summary = json.loads(as_json.stdout)
    assert Path(summary["path"]) == tmp_path / "tiny-qwen2"
    files = [path for path in (tmp_path / "tiny-qwen2").iterdir() if path.name != "engine.json"]
    assert summary["size"] == sum(path.stat().st_size for path in files)
    assert 0 < summary["seconds"] < DEADLINE


def test_an_error_is_one_sentence_and_exit_status_1(tmp_path):
    result = export(tmp_path / "absent", tmp_path / "out")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == f"error: there is no folder {tmp_path / 'absent'}\n"
    assert names(tmp_path) == []


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from export.__main__ import ExportConfig, run; "
        "print(sorted({'numpy', 'onnx', 'onnx_ir', 'rich.progress', 'tokenizers', 'torch', "
        "'onnxruntime'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE
    )
    assert result.stdout == "[]\n"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(checkpoint, tmp_path):
    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    result = export(checkpoint("qwen3"), tmp_path / "out", "--quiet", preexec_fn=limit_file_size)
    assert result.returncode == 1
    assert "there is not enough space for" in result.stderr
    assert result.stderr.count("\n") == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interrupted_export_leaves_nothing(checkpoint, tmp_path, number, status, word):
    output = tmp_path / "out"
    with running_export(checkpoint("qwen2.5"), output) as process:
        process.send_signal(number)
        assert process.wait(DEADLINE) == status
        assert process.stderr.read() == f"{word}\n"
    assert names(tmp_path) == []
    wait_until(lambda: not processes_that_mention(str(output)))


def test_a_killed_export_does_not_confuse_the_next_one(checkpoint, tmp_path):
    with running_export(checkpoint("qwen2.5"), tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
    assert names(tmp_path) == [".tiny-qwen2.5.partial"]
    assert not list(tmp_path.rglob("engine.json"))
    wait_until(lambda: not processes_that_mention(str(tmp_path)))

    result = export(checkpoint("qwen2.5"), tmp_path, "--no-verify", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    assert names(tmp_path) == ["tiny-qwen2.5"]


def test_two_exports_of_one_name_do_not_mix(checkpoint, tmp_path):
    with running_export(checkpoint("qwen2.5"), tmp_path):
        second = export(checkpoint("qwen2.5"), tmp_path, "--no-verify", "--quiet")
        assert second.returncode == 1
        assert "another export is writing" in second.stderr
        other = export(checkpoint("qwen3"), tmp_path, "--no-verify", "--quiet")
        assert (other.returncode, other.stderr) == (0, "")
        assert names(tmp_path) == [".tiny-qwen2.5.partial", "tiny-qwen3"]


def test_settings_can_come_from_the_environment(checkpoint, tmp_path):
    environment = os.environ | {"ENGINERY_PRECISION": "fp32", "ENGINERY_NAME": "from-env"}
    result = export(checkpoint("qwen2"), tmp_path, "--no-verify", "--json", env=environment)
    manifest = json.loads(result.stdout)["manifest"]
    assert (manifest["precision"], manifest["id"]) == ("fp32", "from-env")
