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
    bench(fake, *load, "--output-tokens", "4", "--json", str(path))
    report = json.loads(path.read_text())
    (point,) = report["points"]
    summary = point["summary"]
    assert point["name"] == "2 clients"
    assert summary["num_requests"] == len(point["requests"]) == 6
    assert len(point["gaps_ms"]) == 401
    assert summary["good_share"] is None
    assert summary["num_failed"] == 0
    assert summary["output_tokens"] == 24
    assert summary["ttft_ms"]["count"] == 6
    assert summary["itl_ms"]["count"] == 18
    assert summary["token_counts"] == "the server's usage"
    assert report["settings"]["model"] == "good"
    assert fake.most_at_once <= 2


def test_prompts_have_the_number_of_tokens_that_the_server_counts(fake, tmp_path):
    path = tmp_path / "report.json"
    load = ("--num-requests", "3", "--input-tokens", "207", "--json", str(path))
    bench(fake, "--model", "good", *load)
    (point,) = json.loads(path.read_text())["points"]
    assert {request["num_prompt_tokens"] for request in point["requests"]} == {207}
    texts = [body["messages"][0]["content"] for body in fake.bodies]
    assert len(set(texts)) == len(texts) == 6  # two that calibrate, one that warms up, three


def test_a_server_without_usage_gets_prompts_of_about_that_length(fake):
    bench(fake, "--model", "no-usage", "--num-requests", "1", "--input-tokens", "130")
    assert len(fake.bodies[-1]["messages"][0]["content"].split()) == 100


def test_json_on_standard_output_stands_alone(fake, capsys):
    bench(fake, "--model", "good", "--num-requests", "1", "--json", "-")
    assert json.loads(capsys.readouterr().out)["points"][0]["summary"]["num_requests"] == 1


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
    assert "1 client: HTTP 429 rate_limit_exceeded" in out
    assert "2 of 4" in out
    assert "time to first token" in out
    assert "p99" in out


def test_a_load_in_which_every_request_fails_exits_with_1(fake, tmp_path, capsys):
    dataset = tmp_path / "prompts.jsonl"
    dataset.write_text('{"prompt": "Hi"}\n')
    bench(fake, "--model", "full", "--dataset", str(dataset), "--warmup", "0", status=1)
    assert "0 of 1" in capsys.readouterr().out


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
    assert json.loads(path.read_text())["points"][0]["summary"]["num_failed"] == 0
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


def test_several_loads_are_run_one_after_another(fake, tmp_path):
    path = tmp_path / "report.json"
    load = ("--concurrency", "1,3", "--rate", "500", "--num-requests", "4", "--output-tokens", "2")
    bench(fake, *load, "--input-tokens", "20", "--json", str(path))
    points = json.loads(path.read_text())["points"]
    assert [p["name"] for p in points] == ["1 client", "3 clients", "500 requests/s"]
    assert [p["summary"]["num_requests"] for p in points] == [4, 4, 4]
    assert points[0]["summary"]["num_failed"] == 0


def test_goodput_counts_the_answers_that_keep_their_limits(fake, tmp_path):
    path = tmp_path / "report.json"
    load = ("--num-requests", "4", "--output-tokens", "2", "--input-tokens", "20")
    bench(fake, *load, "--goodput", "ttft:60000", "e2e:60000", "--json", str(path))
    assert json.loads(path.read_text())["points"][0]["summary"]["good_share"] == 1
    bench(fake, *load, "--goodput", "e2e:0.000001", "--json", str(path))
    assert json.loads(path.read_text())["points"][0]["summary"]["good_share"] == 0


def test_a_shared_prefix_is_the_same_for_all(fake):
    load = ("--workload", "shared-prefix", "--prefix-tokens", "60", "--input-tokens", "27")
    # The last requests of a warm-up may be written down among those that count.
    bench(fake, *load, "--num-requests", "3", "--output-tokens", "2", "--warmup", "0")
    sent = [body["messages"] for body in fake.bodies[-3:]]
    assert len({messages[0]["content"] for messages in sent}) == 1
    assert len(sent[0][0]["content"].split()) == 30
    assert len({messages[1]["content"] for messages in sent}) == 3


def test_a_turn_of_a_conversation_holds_what_was_said_before(fake):
    load = ("--workload", "conversation", "--turns", "3", "--concurrency", "1", "--warmup", "0")
    bench(fake, *load, "--num-requests", "3", "--output-tokens", "2", "--input-tokens", "27")
    first, second, third = (body["messages"] for body in fake.bodies[-3:])
    assert [message["role"] for message in third] == ["user", "assistant"] * 2 + ["user"]
    assert third[:2] == second[:2] == [*first, {"role": "assistant", "content": "aa"}]


def test_a_trace_is_replayed_with_its_lengths(fake, tmp_path):
    trace = tmp_path / "trace.jsonl"
    trace.write_text(
        '{"timestamp": 1040, "prompt": "later", "max_tokens": 2}\n'
        '{"arrival_s": 1.0, "input_length": 27, "output_length": 3}\n'
    )
    path = tmp_path / "report.json"
    bench(fake, "--trace", str(trace), "--trace-speed", "2", "--json", str(path))
    assert [body["max_tokens"] for body in fake.bodies[-2:]] == [3, 2]
    (point,) = json.loads(path.read_text())["points"]
    early, late = point["requests"]
    assert early["num_prompt_tokens"] == 27
    assert late["started_s"] - early["started_s"] >= 0.019


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "Hi"}', "line 1 has no `arrival_s`"),
        ('{"arrival_s": 0}', "line 1 has no `prompt`"),
        ('{"arrival_s": 0, "input_tokens": -3}', "has -3 input tokens"),
        ("[1]", "line 1 is no request"),
        ("", "holds no requests"),
    ],
)
def test_a_trace_of_another_form_is_refused(fake, tmp_path, capsys, line, message):
    trace = tmp_path / "trace.jsonl"
    trace.write_text(line + "\n")
    bench(fake, "--trace", str(trace), status=1)
    assert message in capsys.readouterr().err


def test_plots_and_a_page_without_outside_assets_are_written(fake, tmp_path):
    load = ("--concurrency", "1", "2", "--num-requests", "3", "--output-tokens", "4")
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    bench(fake, *load, "--input-tokens", "20", "--html", str(page), "--plots", str(plots))
    names = {path.name for path in plots.iterdir()}
    assert names == {"latency-closed.png", "throughput-closed.png", "gaps.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots.iterdir())
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert "http://" not in text
    assert "https://" not in text
    assert "2 clients" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base_url is '127.0.0.1:8000', but it must be an http"),
        ({"num_requests": 0}, "num_requests is 0, but it must be at least 1"),
        ({"rate": (2.0, -1.0)}, "rate is -1.0, but it must be above 0"),
        ({"rate": (float("nan"),)}, "rate is nan"),
        ({"concurrency": (1, 0)}, "concurrency is 0, but it must be at least 1"),
        ({"trace": "t", "rate": (1.0,)}, "trace was given, so concurrency and rate"),
        ({"dataset": "d", "prompt_file": "f"}, "dataset and prompt_file were both given"),
        ({"workload": "conversation", "dataset": "d"}, "workload is 'conversation', so dataset"),
        ({"workload": "conversation", "endpoint": "completions"}, "needs the endpoint 'chat'"),
        ({"goodput": ("first:5",)}, "goodput has 'first:5', but a limit is one of ttft, itl"),
        ({"goodput": ("ttft:fast",)}, "goodput has 'ttft:fast', but a limit is milliseconds"),
        ({"warmup": -1}, "warmup is -1"),
        ({"json": "--quiet"}, "json is '--quiet', but it must be a file name or -"),
    ],
)
def test_values_without_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ServeConfig(**({"base_url": "http://127.0.0.1:8000"} | fields))


def test_eight_clients_are_the_load_unless_another_is_given():
    def names(**fields):
        return [point.name for point in ServeConfig(base_url="http://host", **fields).points]

    assert names() == ["8 clients"]
    assert names(rate=(2.0,)) == ["2 requests/s"]
    assert names(rate=(2.0,), concurrency=(3,)) == ["3 clients", "2 requests/s"]
