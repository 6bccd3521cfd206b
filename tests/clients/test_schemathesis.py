"""schemathesis, in an environment of its own, against a running server and what it says of itself.

It sends what `/openapi.json` allows and what it forbids, and finds answers with 5xx, answers that
do not fit their descriptions, and what is accepted though it is described as wrong. What is
described as right may still be refused, as limits depend on the model and fields on each other: a
check of our own (`schemathesis_hooks.py`) takes the place of the one that knows statuses alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server_process import ServerProcess

VERSION = "4.32.5"
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# (its kind of cases, of which data, how many of each operation where they are drawn)
PHASES = [("coverage", "negative", 1), ("fuzzing", "all", 8)]
CONFIG = """
base-url = "{url}"
hooks = "{hooks}"
request-timeout = 60.0

[checks]
positive_data_acceptance.enabled = false
"""


@pytest.fixture(scope="module")
def schemathesis(request):
    """The command of an environment with that release; kept in pytest's cache."""
    folder = request.config.cache.mkdir(f"schemathesis-{VERSION}-python{sys.version_info.minor}")
    if not (folder / "complete").exists():
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        python = str(folder / "bin" / "python")
        run([python, "-m", "pip", "install", "--quiet", f"schemathesis=={VERSION}"])
        (folder / "complete").touch()
    return folder / "bin" / "st"


@pytest.fixture(scope="module")
def server(tiny_engine_dir, reader_engine_dir, painter_engine, tmp_path_factory):
    """Every name is a model, and answers are short, so that requests get past both."""
    root = tmp_path_factory.mktemp("described")
    (root / "chat").symlink_to(tiny_engine_dir)
    (root / "reading").symlink_to(reader_engine_dir)
    (root / "images").symlink_to(painter_engine)
    arguments = ["--engine-dir", str(root), "--num-threads", "1"]
    arguments += ["--accept-any-model", "--max-context", "96"]
    # What is checked in other tests is checked by schemathesis here.
    with ServerProcess(arguments, module="server") as process:
        yield process


def run(command: list[str], cwd: Path | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr
    return result.stdout


@pytest.mark.parametrize(("phase", "mode", "count"), PHASES, ids=lambda value: str(value))
def test_the_server_is_what_it_says_that_it_is(schemathesis, server, tmp_path, phase, mode, count):
    config = tmp_path / "schemathesis.toml"
    settings = CONFIG.format(url=server.base_url, hooks=HOOKS.as_posix())
    config.write_text(settings, encoding="utf-8")
    command = [str(schemathesis), "--config-file", str(config), "run"]
    command += [f"{server.base_url}/openapi.json", "--phases", phase, "--mode", mode]
    command += ["--max-examples", str(count), "--generation-deterministic", "--no-color"]
    output = run([*command, "--workers", "1"], cwd=tmp_path)
    generated, passed = re.findall(r"(\d+) generated, (\d+) passed", output)[-1]
    assert int(generated) == int(passed) > 100
    assert server.is_running
