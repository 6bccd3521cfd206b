import subprocess
import sys

import pytest

from benchmarks.__main__ import main


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code, capsys.readouterr()


def test_help_names_the_commands(capsys):
    status, output = run(capsys, "--help")
    assert status == 0
    for command in (
        "serve",
        "compare",
        "engine",
        "server-path",
        "peers",
        "images",
        "serve-images",
        "images-checkpoint",
    ):
        assert command in output.out


def test_an_extra_that_is_not_installed_is_named():
    source = """
import sys
sys.modules["httpx"] = None  # importing it raises ModuleNotFoundError
from benchmarks.__main__ import main
main(["serve", "--help"])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "error: the benchmarks need httpx, which is not installed: "
        "`pip install 'enginery[bench]'`\n"
    )


def test_settings_come_from_the_table_of_a_file(tmp_path, capsys):
    path = tmp_path / "enginery.toml"
    path.write_text('[bench.serve]\nbase-url = "http://127.0.0.1:9"\nwarmup = -1\n')
    status, output = run(capsys, "serve", "--config", str(path))
    assert status == 1
    assert output.err == "error: warmup is -1, but it must be at least 0\n"
