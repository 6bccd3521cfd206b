import json

import pytest

from benchmarks.__main__ import main
from benchmarks.images.client import ImageResult
from benchmarks.images.serve import ServeImagesConfig, prompts, summarize_images
from tests.benchmarks.fake_image_server import image_server


@pytest.fixture
def fake():
    with image_server() as server:
        yield server


def bench(fake, *arguments, status=0):
    with pytest.raises(SystemExit) as end:
        main(["serve-images", "--base-url", fake.url, "--quiet", *arguments])
    assert end.value.code == status


def report_of(fake, tmp_path, *arguments, status=0):
    path = tmp_path / "report.json"
    bench(fake, *arguments, "--json", str(path), status=status)
    return json.loads(path.read_text())


def test_a_load_is_reported_with_images_and_latencies(fake, tmp_path):
    load = ("--num-requests", "6", "--concurrency", "2", "--n", "3", "--size", "64x64")
    report = report_of(fake, tmp_path, *load)
    summary = report["summary"]
    assert summary["num_requests"] == len(report["requests"]) == 6
    assert summary["num_failed"] == 0
    assert summary["num_images"] == 18
    assert summary["images_per_s"] == pytest.approx(18 / summary["duration_s"])
    assert summary["latency_s"]["count"] == 6
    assert summary["first_partial_s"] is None
    assert fake.most_at_once <= 2
    assert len(fake.bodies) == 7  # one warms up
    assert {body["size"] for body in fake.bodies} == {"64x64"}
    assert not any("num_inference_steps" in body or "stream" in body for body in fake.bodies)


def test_a_streamed_load_times_the_first_partial_image(fake, tmp_path):
    stream = ("--stream", "--partial-images", "2", "--num-inference-steps", "7")
    summary = report_of(fake, tmp_path, "--num-requests", "3", *stream)["summary"]
    assert summary["num_images"] == 3
    assert summary["first_partial_s"]["count"] == 3
    assert summary["first_partial_s"]["max"] <= summary["latency_s"]["max"]
    told = {
        (body["stream"], body["partial_images"], body["num_inference_steps"])
        for body in fake.bodies
    }
    assert told == {(True, 2, 7)}


@pytest.mark.parametrize(
    ("model", "arguments", "kind"),
    [
        ("full", (), "HTTP 429 rate_limit_exceeded"),
        ("scribble", (), "not a picture"),
        ("scribble", ("--stream",), "not a picture"),
        ("stingy", (), "0 of 1 pictures came"),
        ("stingy", ("--stream",), "0 of 1 pictures came"),
        ("failing", ("--stream",), "error in the stream"),
    ],
)
def test_an_answer_without_its_pictures_is_an_error_of_its_kind(
    fake, tmp_path, model, arguments, kind
):
    load = ("--model", model, "--num-requests", "2", "--warmup", "0", *arguments)
    report = report_of(fake, tmp_path, *load, status=1)
    assert report["summary"]["errors"] == {kind: 2}
    assert report["summary"]["num_images"] == 0


def test_the_table_names_rates_latencies_and_errors(fake, capsys):
    load = ("--num-requests", "4", "--warmup", "0", "--concurrency", "1")
    bench(fake, "--model", "half-full", *load)
    out = capsys.readouterr().out
    assert "2 of 4 requests answered" in out
    assert "failed: HTTP 429 rate_limit_exceeded" in out
    for word in ("images/s", "first partial image", "end-to-end latency", "p95"):
        assert word in out


def test_a_failure_before_the_measurement_ends_it_with_a_sentence(fake, capsys):
    bench(fake, "--model", "full", status=1)
    assert capsys.readouterr().err == (
        "error: a request before the measurement failed: HTTP 429 rate_limit_exceeded\n"
    )


def test_one_of_several_models_has_to_be_named(capsys):
    with image_server("a", "b") as fake:
        bench(fake, status=1)
    assert capsys.readouterr().err == "error: the server lists a, b: choose one with --model\n"


def test_a_run_is_added_up_without_its_failures():
    results = [
        ImageResult(started_s=1.0, latency_s=2.0, first_partial_s=0.5, num_images=1),
        ImageResult(started_s=2.0, latency_s=4.0, first_partial_s=None, num_images=2),
        ImageResult(
            started_s=1.0, latency_s=0.1, first_partial_s=None, num_images=0, error="timeout"
        ),
    ]
    summary = summarize_images(results)
    assert summary.duration_s == 5.0
    assert summary.images_per_s == pytest.approx(3 / 5)
    assert summary.latency_s is not None
    assert summary.latency_s.p50 == 3.0
    assert summary.first_partial_s is not None
    assert summary.first_partial_s.count == 1
    assert summary.errors == {"timeout": 1}


def test_prompts_differ_and_are_the_same_for_the_same_seed():
    drawn = prompts(100, seed=3)
    assert len(set(drawn)) == 100
    assert drawn == prompts(100, seed=3)
    assert drawn != prompts(100, seed=4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": "512"}, "size is '512', but it must be like 512x512, or auto"),
        ({"partial_images": 4}, "partial_images is 4, but it must be between 0 and 3"),
        ({"n": 0}, "n is 0, but it must be at least 1"),
        ({"base_url": "localhost"}, "base_url is 'localhost'"),
        ({"request_rate": 0.0}, "request_rate is 0.0, but it must be above 0"),
    ],
)
def test_values_without_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ServeImagesConfig(**({"base_url": "http://127.0.0.1:8000"} | fields))
