"""The import rules of the project, checked on the source (nothing is imported)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "engines": set(),
    "export": {"engines"},
    "server": {"engines"},
}
RUNTIMES = {"onnxruntime", "tensorrt", "cuda"}
NEVER_WHEN_SERVING = {"torch", "transformers", "onnx", "onnx_ir", "optimum", "diffusers"}


def sources(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if "built" not in path.parts]


def imported_packages(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_downwards(package):
    siblings = MAY_IMPORT.keys() - {package} | {"tests", "benchmarks", "demos"}
    assert sources(package)
    for source in sources(package):
        forbidden = imported_packages(source) & (siblings - MAY_IMPORT[package])
        assert not forbidden, f"{source} imports {forbidden}"


def test_only_the_backends_import_a_runtime():
    for package in ("engines", "server"):
        for source in sources(package):
            if source.parent.name != "backends":
                assert not imported_packages(source) & RUNTIMES, source


@pytest.mark.parametrize("package", ["engines", "server"])
def test_serving_imports_nothing_that_exporting_needs(package):
    for source in sources(package):
        assert not imported_packages(source) & NEVER_WHEN_SERVING, source
