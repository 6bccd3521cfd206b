import json

import pytest

from benchmarks.__main__ import main
from benchmarks.serve import ServeConfig
from tests.benchmarks.fake_server import API_KEY, FakeServer


@pytest.fixture
def fake():
    with FakeServer() as server:
        yield server


def bench(fake, *arguments, status=0):
    with pytest.raises(SystemExit) as end:
        main(["serve", "--base-url", fake.url, "--quiet", *arguments])
    assert end.value.code == status


def test_a_load_is_reported_as_json(fake, tmp_path):
    path = tmp_path / "report.json"
    load = ("--model", "good", "--num-requests", "6", "--concurrency", "2")
    bench(fake, *load, "--max-tokens", "4", "--json", str(path))
    report = json.loads(path.read_text())
    summary = report["summary"]
    assert summary["num_requests"] == len(report["requests"]) == 6
    assert summary["num_failed"] == 0
    assert summary["output_tokens"] == 24
    assert summary["ttft_ms"]["count"] == 6
    assert summary["itl_ms"]["count"] == 18
    assert summary["token_counts"] == "the server's usage"
    assert report["settings"]["model"] == "good"
    assert fake.most_at_once <= 2


def test_prompts_have_the_number_of_tokens_that_the_server_counts(fake, tmp_path):
    path = tmp_path / "report.json"
    load = ("--num-requests", "3", "--prompt-tokens", "207", "--json", str(path))
    bench(fake, "--model", "good", *load)
    assert {r["num_prompt_tokens"] for r in json.loads(path.read_text())["requests"]} == {207}
    texts = [body["messages"][0]["content"] for body in fake.bodies]
    assert len(set(texts)) == len(texts) == 6  # two that calibrate, one that warms up, three


def test_a_server_without_usage_gets_prompts_of_about_that_length(fake):
    bench(fake, "--model", "no-usage", "--num-requests", "1", "--prompt-tokens", "130")
    assert len(fake.bodies[-1]["messages"][0]["content"].split()) == 100


def test_json_on_standard_output_stands_alone(fake, capsys):
    bench(fake, "--model", "good", "--num-requests", "1", "--json", "-")
    assert json.loads(capsys.readouterr().out)["summary"]["num_requests"] == 1


def test_the_table_names_rates_latencies_and_errors(fake, tmp_path, capsys):
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "Hi"}\n' * 4)
    bench(
        fake,
        "--model",
        "half-full",
        "--dataset",
        str(dataset),
        "--warmup",
        "0",
        "--concurrency",
        "1",
    )
    out = capsys.readouterr().out
    assert "failed: HTTP 429 rate_limit_exceeded" in out
    assert "2 of 4 requests answered" in out
    assert "time to first token" in out
    assert "p99" in out


def test_a_load_in_which_every_request_fails_exits_with_1(fake, tmp_path, capsys):
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "Hi"}\n')
    bench(fake, "--model", "full", "--dataset", str(dataset), "--warmup", "0", status=1)
    assert "0 of 1 requests answered" in capsys.readouterr().out


def test_a_failure_before_the_measurement_ends_it_with_a_sentence(fake, capsys):
    bench(fake, "--model", "full", status=1)
    assert capsys.readouterr().err == (
        "error: a request before the measurement failed: HTTP 429 rate_limit_exceeded\n"
    )


def test_the_key_is_sent_and_kept_out_of_the_report(fake, tmp_path):
    path = tmp_path / "report.json"
    bench(fake, "--model", "locked", "--num-requests", "1", "--api-key", "sk-wrong", status=1)
    load = ("--num-requests", "1", "--json", str(path))
    bench(fake, "--model", "locked", "--api-key", API_KEY, *load)
    assert json.loads(path.read_text())["summary"]["num_failed"] == 0
    assert API_KEY not in path.read_text()


def test_the_only_model_of_a_server_need_not_be_named(fake):
    bench(fake, "--num-requests", "1")
    assert fake.bodies[-1]["model"] == "good"


def test_one_of_several_models_has_to_be_named(capsys):
    with FakeServer(models=("a", "b")) as fake:
        bench(fake, status=1)
    assert capsys.readouterr().err == ("error: the server lists a, b: choose one with --model\n")


def test_a_dataset_is_sent_in_order_and_repeated(fake, tmp_path):
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "first"}\n{"prompt": "second", "max_tokens": 2}\n')
    load = ("--dataset", str(dataset), "--num-requests", "3", "--concurrency", "1")
    bench(fake, "--model", "good", "--endpoint", "completions", "--warmup", "0", *load)
    assert [body["prompt"] for body in fake.bodies] == ["first", "second", "first"]
    assert [body["max_tokens"] for body in fake.bodies] == [128, 2, 128]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url is '127.0.0.1:8000', but it must be an http"),
        ({"num_requests": 0}, "num_requests is 0, but it must be at least 1"),
        ({"request_rate": -1.0}, "request_rate is -1.0, but it must be above 0"),
        ({"request_rate": float("nan")}, "request_rate is nan"),
        ({"warmup": -1}, "warmup is -1"),
        ({"json": "--quiet"}, "json is '--quiet', but it must be a file name or -"),
    ],
)
def test_values_without_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ServeConfig(**({"base_url": "http://127.0.0.1:8000"} | fields))


def test_a_bare_host_gets_the_usual_path():
    assert ServeConfig(base_url="http://127.0.0.1:8000").url == "http://127.0.0.1:8000/v1"
    assert ServeConfig(base_url="http://host/api/v1/").url == "http://host/api/v1"


def test_concurrency_is_limited_unless_a_rate_is_given():
    assert ServeConfig(base_url="http://host").max_concurrency == 8
    assert ServeConfig(base_url="http://host", request_rate=2.0).max_concurrency is None
    assert ServeConfig(base_url="http://host", request_rate=2.0, concurrency=3).max_concurrency == 3
