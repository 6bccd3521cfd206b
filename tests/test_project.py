"""What holds the project together: packaging, the `enginery` command, the newcomer's script."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts.options import TARGET, render

ROOT = Path(__file__).parent.parent


def enginery(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "enginery", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_every_package_is_listed_by_hand_and_no_artefact_is():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("benchmarks", "engines", "export", "server")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found


def test_the_options_page_is_what_the_code_says():
    assert TARGET.read_text() == render(), "run `python -m scripts.options`"


def test_the_readme_names_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    requirements = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    readme = (ROOT / "README.md").read_text()
    for requirement in requirements:
        name = requirement.replace("[", ">").partition(">")[0]
        assert name in readme, f"{name} is not in the README"


def test_what_make_test_gpu_runs_needs_no_more_than_its_environment_has():
    """Collected where every package that is only for the other tests cannot be imported."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    theirs = {_package(line) for extra in ("test", "verify") for line in extras[extra]}
    foreign = theirs - {_package(line) for line in extras["test-gpu"]} - {"enginery"}
    assert {"torch", "transformers", "openai"} <= foreign
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(foreign)!r}))\n"
        "import pytest; sys.exit(pytest.main(['--collect-only', '-q', 'tests/device']))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stdout


def _package(requirement: str) -> str:
    """What a requirement is imported as, which is its name for all but a few."""
    return requirement.replace("[", ">").partition(">")[0].replace("-", "_")


def test_enginery_runs_the_commands_and_names_them():
    assert enginery("--help").stdout.count("\n  ") >= 3
    assert enginery("--version").stdout.strip()
    for command in ("export", "serve", "bench"):
        result = enginery(command, "--help")
        assert result.returncode == 0, result.stderr
        assert "--" in result.stdout
    result = enginery("compile")
    assert result.returncode == 1
    assert result.stderr.startswith("error: 'compile' is not a command of enginery")


def test_help_loads_no_runtime_and_nothing_heavy():
    code = (
        "import runpy, sys\n"
        "module = sys.argv[1]\n"
        "sys.argv = [module, '--help']\n"
        "try: runpy.run_module(module, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'onnxruntime', 'torch', 'transformers', 'onnx', 'onnx_ir', 'tokenizers'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    for module in ("export", "server"):
        result = subprocess.run(
            [sys.executable, "-c", code, module],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
        assert result.stdout.splitlines()[-1] == "[]", module
        assert "--" in result.stdout


def fake_python(folder: Path, body: str) -> str:
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (None, "there is no nowhere-python: install Python 3.11 or newer"),
        (
            'case "$1" in -V) echo Python 3.9.18;; *) exit 1;; esac',
            "Python 3.11 or newer is needed, but {python} is 3.9.18",
        ),
        (
            'case "$2" in *ensurepip*) exit 1;; *) exit 0;; esac',
            "{python} cannot make virtual environments: apt install python3-venv",
        ),
    ],
)
def test_a_python_that_will_not_do_is_one_sentence(tmp_path, body, sentence):
    python = fake_python(tmp_path, body) if body else "nowhere-python"
    result = subprocess.run(
        [ROOT / "scripts" / "make-venv", tmp_path / "venv", "cpu"],
        env=os.environ | {"PYTHON": python},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {sentence.format(python=python)}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "venv").exists()
