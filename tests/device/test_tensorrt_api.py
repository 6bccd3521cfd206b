"""Calls of TensorRT, and the stand-in that other tests run on, held against its own module."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.device.tensorrt_api import NotHere, load_api
from tests.gpu import host_tensorrt

BACKENDS = Path(__file__).parent.parent.parent / "engines" / "backends"
# Classes of the stand-in -> what TensorRT calls them, where that is another name.
NAMES = {
    "BuilderConfig": "IBuilderConfig",
    "Context": "IExecutionContext",
    "Engine": "ICudaEngine",
    "Network": "INetworkDefinition",
    "OptimizationProfile": "IOptimizationProfile",
    "TimingCache": "ITimingCache",
}
OWN = {"Engine.run"}  # of the stand-in alone


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    try:
        return load_api(tmp_path_factory.mktemp("tensorrt"))
    except NotHere as error:
        pytest.skip(str(error))


def names_in(source: Path) -> Iterator[str]:
    """`Builder`, `BuilderFlag.REFIT`: what is read of the variable `tensorrt`."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if re.fullmatch(r"tensorrt(\.\w+)+", name):
                yield name.removeprefix("tensorrt.")


def members() -> Iterator[tuple[str, str, object]]:
    """Class, name and value of everything public that the stand-in has."""
    for name, value in vars(host_tensorrt).items():
        if inspect.isclass(value) and value.__module__ == host_tensorrt.__name__:
            for member, what in vars(value).items():
                if not member.startswith("_") and f"{name}.{member}" not in OWN:
                    yield NAMES.get(name, name), member, what


def test_every_name_that_is_used_is_there(api):
    names = {name for source in BACKENDS.glob("tensorrt_*.py") for name in names_in(source)}
    assert {"Builder", "BuilderFlag.REFIT", "TensorIOMode.INPUT"} <= names
    for name in sorted(names):
        found = api
        for part in name.split("."):
            assert hasattr(found, part), f"TensorRT {api.__version__} has no {name}"
            found = getattr(found, part)


def test_the_stand_in_has_nothing_that_tensorrt_lacks(api):
    found = list(members())
    assert len(found) > 30
    for owner, member, _ in found:
        assert hasattr(getattr(api, owner), member), f"{owner} has no {member}"


def test_the_stand_in_takes_the_arguments_that_tensorrt_takes(api):
    compared = 0
    for owner, member, what in members():
        signatures = re.findall(
            rf"\b{member}\((.*)\) ->", getattr(api, owner).__dict__[member].__doc__ or ""
        )
        if not inspect.isfunction(what) or not signatures:
            continue
        ours = list(inspect.signature(what).parameters.values())[1:]
        assert any(agree(ours, signature) for signature in signatures), (owner, member, signatures)
        compared += 1
    assert compared >= 20


def agree(ours: list[inspect.Parameter], signature: str) -> bool:
    """Whether a call as the stand-in takes it fits `self: T, a: X, b: Y = None`."""
    theirs = [part for part in re.split(r",\s*(?=\w+:)", signature) if not part.startswith("self:")]
    required = [part for part in theirs if "=" not in part]
    return len(required) <= len(ours) <= len(theirs)
