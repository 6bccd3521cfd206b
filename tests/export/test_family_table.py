"""The table of families: from the code, complete, and the one that README has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from export.diffusion.pipelines import PIPELINES
from export.family_table import family_rows, render
from export.qwen.families import FAMILIES

ROOT = Path(__file__).parent.parent.parent


def test_every_family_has_a_line():
    rows = {row.family: row for row in family_rows()}
    assert rows.keys() == {
        *(family.name for family in FAMILIES.values()),
        *(pipeline.family for pipeline in PIPELINES.values()),
    }
    for architecture, family in FAMILIES.items():
        assert f"`{architecture}`" in rows[family.name].architectures
    assert "CUDA" not in rows["qwen3-next"].targets
    assert "CUDA: bf16" in rows["qwen3-moe"].targets
    assert "TensorRT" not in rows["qwen3-moe"].targets
    assert "CUDA: bf16" in rows["qwen3"].targets


def test_readme_has_the_table_that_the_command_prints():
    command = [sys.executable, "-m", "export", "--list-families"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert printed == render()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.partition("<!-- families -->\n")[2].partition("<!-- /families -->")[0]
    assert block == printed, "put what `python -m export --list-families` prints between the marks"
