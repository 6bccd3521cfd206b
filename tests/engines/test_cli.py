"""One config dataclass is flags, environment variables and a TOML table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from cyclopts import App, Parameter

from engines.cli import add_command, run_app
from engines.errors import EngineryError


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Do a thing."""

    name: Annotated[str, Parameter(help="whom to greet")]
    port: Annotated[int, Parameter(help="port to listen on")] = 8000
    keys: Annotated[tuple[str, ...], Parameter(help="several")] = ()

    def __post_init__(self) -> None:
        if self.port > 65535:
            raise ValueError(f"port is {self.port}, but it must be at most 65535")


def run(argv, do=lambda config: None):
    seen = []

    def command(config):
        seen.append(config)
        return do(config)

    app = App(name="thing")
    add_command(app, Config, command, None)
    with pytest.raises(SystemExit) as ended:
        run_app(app, "thing", argv)
    return ended.value.code, seen[0] if seen else None


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    toml = tmp_path / "settings.toml"
    toml.write_text('[thing]\nname = "file"\nport = 1\nkeys = ["a", "b"]\n[other]\nport = 9\n')
    monkeypatch.setenv("ENGINERY_PORT", "2")
    code, config = run(["--config", str(toml)])
    assert (code, config) == (0, Config(name="file", port=2, keys=("a", "b")))
    _, config = run([f"--config={toml}", "--port", "3"])
    assert config == Config(name="file", port=3, keys=("a", "b"))
    monkeypatch.setenv("ENGINERY_CONFIG", str(toml))
    assert run([])[1] == Config(name="file", port=2, keys=("a", "b"))


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "--name"),
        (["--name", "x", "--bogus", "1"], "--bogus"),
        (["--name", "x", "--port", "y"], "--port"),
        (["--name", "x", "--port", "70000"], "port is 70000, but it must be at most 65535"),
        (["--config", "nowhere.toml", "--name", "x"], "nowhere.toml"),
    ],
)
def test_bad_options_end_in_one_sentence_and_status_1(argv, sentence, capsys):
    code, config = run(argv)
    assert (code, config) == (1, None)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1


def test_an_error_of_ours_is_a_sentence_and_any_other_keeps_its_traceback(capsys):
    def refuse(config):
        raise EngineryError("the sky is red")

    assert run(["--name", "x"], refuse)[0] == 1
    assert capsys.readouterr().err == "error: the sky is red\n"

    def interrupt(config):
        raise KeyboardInterrupt

    assert run(["--name", "x"], interrupt)[0] == 130

    app = App(name="thing")
    add_command(app, Config, lambda config: int("a mistake of ours"), None)
    with pytest.raises(ValueError, match="a mistake of ours"):
        run_app(app, "thing", ["--name", "x"])


def test_a_command_whose_options_all_have_defaults_needs_none():
    @dataclass(frozen=True)
    class Optional:
        """Do a thing."""

        port: Annotated[int, Parameter(help="port to listen on")] = 8000

    seen = []
    for argv in ([], ["--port", "1"]):
        app = App(name="thing")
        add_command(app, Optional, seen.append, None)
        with pytest.raises(SystemExit):
            run_app(app, "thing", argv)
    assert seen == [Optional(), Optional(port=1)]


def test_help_lists_every_field_with_its_variable_and_default(capsys):
    assert run(["--help"])[0] == 0
    text = capsys.readouterr().out
    for word in ("--name", "--port", "ENGINERY_PORT", "8000", "whom to greet", "--config"):
        assert word in text
