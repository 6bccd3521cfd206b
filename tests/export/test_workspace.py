"""The folder in which an engine is built: published whole, or gone."""

from __future__ import annotations

import errno
import os

import pytest

from export.errors import OutputError
from export.workspace import workspace


def build(target, text="new", force=False):
    with workspace(target, force=force) as partial:
        (partial / "engine.json").write_text(text)


def test_the_folder_appears_under_its_name_when_all_is_done(tmp_path):
    target = tmp_path / "a" / "b" / "engine"
    with workspace(target, force=False) as partial:
        assert partial.name.startswith(".")
        assert not target.exists()
        (partial / "engine.json").touch()
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_removes_the_folders_that_were_made_for_it(tmp_path):
    with pytest.raises(RuntimeError), workspace(tmp_path / "a" / "b" / "engine", force=False):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_engine_that_was_there(tmp_path):
    build(tmp_path / "engine", "old")
    with pytest.raises(RuntimeError), workspace(tmp_path / "engine", force=True):
        raise RuntimeError
    assert (tmp_path / "engine" / "engine.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_becomes_a_sentence(tmp_path, number):
    sentence = r"not enough space for .*/engine: "
    with pytest.raises(OutputError, match=sentence), workspace(tmp_path / "engine", force=False):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), workspace(tmp_path / "engine", force=False):
        raise PermissionError(errno.EACCES, "no")


def test_an_engine_whose_replacement_was_killed_halfway_gets_its_place_back(tmp_path):
    build(tmp_path / "engine", "old")
    (tmp_path / "engine").rename(tmp_path / ".engine.replaced")
    with pytest.raises(OutputError, match="exists already"):
        build(tmp_path / "engine")
    assert (tmp_path / "engine" / "engine.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_finished_replacement_left_is_removed(tmp_path):
    build(tmp_path / "engine", "old")
    build(tmp_path / ".engine.replaced")
    build(tmp_path / "engine", "new", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["engine"]
    assert (tmp_path / "engine" / "engine.json").read_text() == "new"
