import json
import os

import pytest

from benchmarks.__main__ import main
from benchmarks.compare import CompareConfig
from benchmarks.server_process import ServerMeter, listening_pids
from tests.benchmarks.fake_server import FakeServer, Handler


class SlowHandler(Handler):
    def stream_tokens(self, body, count):
        import time

        time.sleep(0.03)
        super().stream_tokens(body, count)


@pytest.fixture
def servers():
    with FakeServer() as fast, FakeServer(models=("good", "other"), handler=SlowHandler) as slow:
        yield fast, slow


def compare(*arguments):
    with pytest.raises(SystemExit) as end:
        main(["compare", "--quiet", *map(str, arguments)])
    return end.value.code


def test_servers_get_the_same_load_in_turns(servers, tmp_path, capsys):
    fast, slow = servers
    report, plots = tmp_path / "report.json", tmp_path / "plots"
    peers = ("--peer", f"slow={slow.url}", "--peer", f"fast={fast.url}")
    load = ("--concurrency", "2", "--num-requests", "4", "--output-tokens", "3")
    more = ("--peer-model", "slow=good", "--rounds", "2", "--input-tokens", "47", "--seed", "1")
    assert compare(*peers, *load, *more, "--json", report, "--plots", plots) == 0

    content = json.loads(report.read_text())
    assert [peer["name"] for peer in content["peers"]] == ["slow", "fast"]
    assert [len(peer["rounds"]) for peer in content["peers"]] == [2, 2]
    sent = [sorted(b["messages"][0]["content"] for b in s.bodies) for s in servers]
    assert sent[0] == sent[1]
    assert len(set(sent[0])) > 8  # no round repeats the prompts of another
    out = capsys.readouterr().out
    assert "2 clients, median of 2 rounds (lowest to highest)" in out
    assert "how many times better than slow" in out
    assert "slow: 0 requests failed" in out
    assert {path.name for path in plots.iterdir()} == {"gaps.png", "side-by-side.png"}
    first = [p["rounds"][0][0]["summary"]["ttft_ms"]["p50"] for p in content["peers"]]
    assert first[0] > first[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peer": ("a=http://host",)}, "peer must be given at least twice"),
        ({"peer": ("a=http://host", "a=http://other")}, "each time with another name"),
        ({"peer": ("a=http://host", "http://other")}, "it must be NAME=URL"),
        ({"peer": ("a=http://host", "b=host")}, "base_url is 'host'"),
        (
            {"peer": ("a=http://host", "b=http://x"), "peer_model": ("c=d",)},
            "peer_model names 'c', but no peer has that name",
        ),
    ],
)
def test_peers_without_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CompareConfig(**fields)


def test_the_process_behind_a_port_is_found(servers):
    fast, _ = servers
    assert listening_pids(int(fast.url.split(":")[2].split("/")[0])) == [os.getpid()]
    meter = ServerMeter.of_url(fast.url)
    meter.start()
    sum(range(3_000_000))
    share = meter.others_share()
    assert share is None or 0 <= share <= 1
    assert meter.peak_rss_bytes() > 1_000_000
    assert ServerMeter.of_url("http://example.org/v1").peak_rss_bytes() is None
