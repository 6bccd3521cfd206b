import pytest

from benchmarks.images.comparison import Comparison, Variant, columns, markdown, times_better
from benchmarks.images.process import BuildCost
from benchmarks.images.workload import Measurement, Workload, read_measurement
from benchmarks.machine import MIB


def variant(name, label, *seconds, mib=100, is_cached=False, build=None):
    rounds = [
        Measurement(
            step_s={256: step, 512: 4 * step},
            decode_s={} if is_cached else {256: 2 * step, 512: 8 * step},
            text_s=0.1,
            load_s=3.0,
            peak_rss_bytes=mib * MIB,
            version=f"{label} 1.0",
        )
        for step in seconds
    ]
    return Variant(name=name, label=label, command=f"run {label}", rounds=rounds, build=build)


def comparison(*variants, **fields):
    defaults = {
        "checkpoint": "tiny",
        "date": "2026-01-02",
        "machine": {"processor": "a processor, 2 cores"},
        "workload": {"num_threads": 2, "steps": 3, "cache_interval": 3, "cached_steps": 20},
        "command": "python -m benchmarks images",
        "left_out": [],
        "failures": [],
        "others_share": [0.0, 0.02, 0.5],
    }
    return Comparison(variants=list(variants), **(defaults | fields))


def test_medians_stand_with_the_lowest_and_the_highest():
    report = markdown(comparison(variant("enginery-fp32", "Enginery fp32", 3, 1, 2)))
    cells = ("Enginery fp32", "2.00 (1.00 to 3.00)", "8.00 (4.00 to 12.00)", "4.00 (2.00 to 6.00)")
    assert " | ".join(cells) in report
    assert "| 0.10 | 3.0 | 100 |" in report
    assert "median of 3 interleaved rounds" in report


def test_ratios_stand_to_openvino_and_to_our_own_fp32():
    report = markdown(
        comparison(
            variant("openvino-f32", "OpenVINO f32", 2, 2, 8, mib=300),
            variant("enginery-fp32", "Enginery fp32", 3, 1, 4, mib=200),
            variant("enginery-int8", "Enginery int8", 1, mib=100),
        )
    )
    to_openvino, to_fp32 = report.split("How many times less than ")[1:]
    assert to_openvino.startswith("OpenVINO f32:")
    assert "| Enginery fp32 | 0.67 | 0.67 | 0.67 | 0.67 | 1.00 | 1.00 | 1.50 |" in to_openvino
    assert "| Enginery int8 | 2.00 | 2.00 | 2.00 | 2.00 | 1.00 | 1.00 | 3.00 |" in to_openvino
    assert to_fp32.startswith("Enginery fp32:")
    assert "| Enginery int8 | 3.00 | 3.00 |" in to_fp32
    assert "median of 1 or 3 interleaved rounds" in report


def test_what_was_not_measured_is_a_dash_in_both_tables():
    plain = variant("enginery-fp32", "Enginery fp32", 3)
    cached = variant("enginery-fp32-cached", "Enginery fp32, step caching", 1, is_cached=True)
    report = markdown(comparison(plain, cached))
    assert "| Enginery fp32, step caching | 1.00 | 4.00 | - | - | 0.10 |" in report
    assert "| Enginery fp32, step caching | 3.00 | 3.00 | - | - | 1.00 |" in report
    decode = columns(cached, [256, 512])[2]
    assert times_better(decode, decode) == "-"


def test_the_export_of_our_engines_has_its_own_table():
    cost = BuildCost(seconds=27.4, peak_rss_bytes=314 * MIB)
    report = markdown(
        comparison(
            variant("openvino-f32", "OpenVINO f32", 2, build=cost),
            variant("enginery-fp32", "Enginery fp32", 2, build=cost),
        )
    )
    assert "The export of the engines, without verification:" in report
    assert report.count("| 27 | 314 |") == 1
    assert "The export" not in markdown(comparison(variant("openvino-f32", "OpenVINO f32", 2)))


def test_the_report_says_what_it_ran_on_and_what_was_left_out():
    measured = variant("enginery-fp32", "Enginery fp32", 1)
    report = markdown(comparison(measured, left_out=["OpenVINO f32 is left out: not there"]))
    for line in (
        "- Date: 2026-01-02",
        "- Processor: a processor, 2 cores",
        "- Versions: Enginery fp32 1.0",
        "- Cores in use by others during the measurements: 2% in the median, 50% at most",
        "- OpenVINO f32 is left out: not there",
        "run Enginery fp32",
    ):
        assert line in report


def test_a_run_without_measurements_says_so():
    assert markdown(comparison()) == "Nothing was measured.\n"


def test_the_answer_is_found_among_other_output():
    line = (
        'RESULT {"step_s": {"256": 1.5}, "decode_s": {}, "text_s": 0.1, "load_s": 2, '
        '"peak_rss_bytes": 9, "version": "v"}'
    )
    measured = read_measurement(f"loading\n{line}\nbye\n")
    assert measured is not None
    assert measured.step_s == {256: 1.5}
    assert read_measurement("loading\n") is None
    assert read_measurement("RESULT {}\n") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sizes": ()}, "sizes is 0, but it must be between 8"),
        ({"steps": 0}, "steps is 0"),
        ({"decodes": 0}, "decodes is 0"),
        ({"cache_interval": 1}, "cache_interval is 1, but it must be between 2"),
        ({"cached_steps": 101}, "cached_steps is 101, but it must be between 1 and 100"),
    ],
)
def test_a_workload_without_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Workload(**fields)
