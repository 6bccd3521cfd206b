"""Log lines, for people and for programs."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from server.logs import JsonFormatter
from server.metrics import Metrics
from server.observe import RequestRecord


@pytest.fixture
def record():
    return RequestRecord("req-1", "POST", "/v1/x", Metrics())


def lines(caplog):
    return [record for record in caplog.records if record.name == "server.observe"]


def as_json(log_record):
    return json.loads(JsonFormatter().format(log_record))


def test_a_request_is_fields_in_json_and_words_in_text(caplog, record):
    caplog.set_level(logging.INFO)
    record.model_id = "a b"
    record.admitted(7, 3)
    record.tokens(1)
    record.tokens(2)
    record.finished("stop")
    record.responded(200, "/v1/x")
    (line,) = lines(caplog)
    assert line.getMessage().startswith('id=req-1 method=POST route=/v1/x status=200 model="a b" ')
    assert "prompt_tokens=7 cached_tokens=3 output_tokens=3 " in line.getMessage()
    fields = as_json(line)
    assert (fields["level"], fields["logger"]) == ("info", "server.observe")
    assert (fields["model"], fields["status"], fields["output_tokens"]) == ("a b", 200, 3)
    assert fields["finish_reason"] == "stop"
    assert fields["time"].endswith("+00:00")


@pytest.mark.parametrize("finished_first", [True, False])
def test_a_line_is_written_once_when_status_and_end_are_known(caplog, record, finished_first):
    caplog.set_level(logging.INFO)
    calls = [lambda: record.finished("stop"), lambda: record.responded(200, "/v1/x")]
    first, second = calls if finished_first else calls[::-1]
    first()
    assert lines(caplog) == []
    second()
    record.finished("error")
    record.responded(500, "/v1/x")
    (line,) = lines(caplog)
    assert (line.fields["status"], line.fields["finish_reason"]) == (200, "stop")


def test_what_a_client_sends_cannot_fake_a_line(caplog):
    caplog.set_level(logging.INFO)
    record = RequestRecord("req-1", "GET", "/a\nid=req-2 status=200\u2028", Metrics())
    record.finished()
    record.responded(404, "")
    (line,) = lines(caplog)
    assert len(line.getMessage().splitlines()) == 1
    assert "\n" not in JsonFormatter().format(line)


def test_a_message_and_a_traceback_are_in_the_object():
    try:
        raise ValueError("flux")
    except ValueError:
        log_record = logging.LogRecord(
            "a.b", logging.ERROR, __file__, 1, "request %s failed", ("req-1",), sys.exc_info()
        )
    line = as_json(log_record)
    assert line["message"] == "request req-1 failed"
    assert "ValueError: flux" in line["traceback"]


def test_the_queue_time_is_counted_once(record):
    metrics = record._metrics
    record.scheduled(5.0)  # no model yet: nothing to count
    record.model_id = "a"
    record.scheduled(2.0)
    record.scheduled(3.0)
    sample = metrics.registry.get_sample_value
    labels = {"model_name": "a"}
    assert sample("enginery_request_queue_time_seconds_count", labels) == 1
    assert sample("enginery_request_queue_time_seconds_sum", labels) == 2.0


def test_the_first_step_with_tokens_and_the_gaps_after_it_are_counted(record):
    metrics = record._metrics
    record.model_id = "a"
    record.tokens(0)
    assert record.time_to_first_token_s is None
    record.tokens(2)
    record.tokens(0)
    record.tokens(1)
    record.tokens(2)
    sample = metrics.registry.get_sample_value
    labels = {"model_name": "a"}
    assert sample("enginery_time_to_first_token_seconds_count", labels) == 1
    assert sample("enginery_time_to_first_token_seconds_sum", labels) == (
        record.time_to_first_token_s
    )
    assert sample("enginery_inter_token_latency_seconds_count", labels) == 2
    assert record.num_output_tokens == 5
