"""The verification: its arithmetic, its two references, its bars."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engines.manifest import read_manifest
from export.agreement import AgreementMeter, TrainingDetector
from export.answers import MAX_ANSWER_TOKENS, greedy_answers
from export.command import export_engine
from export.config import ExportConfig
from export.errors import VerificationFailed
from export.memory import available_memory
from export.report import QuietProgress
from export.verification import check_bars, run_verification
from export.verify import VerificationResult, VerifyConfig, verify
from export.verify_prompts import QUESTIONS, read_prompts
from tests.checkpoints import build_tokenizer


def log(*probabilities):
    return np.log(np.array(probabilities, np.float32))


def measured(reference, compiled):
    meter = AgreementMeter()
    meter.add(reference, compiled)
    return meter


def test_agreement_of_a_known_case():
    reference = log([0.5, 0.25, 0.25], [0.1, 0.8, 0.1])
    found = log([0.1, 0.8, 0.1], [0.1, 0.8, 0.1])
    meter = measured(reference, found)
    assert meter.num_positions == 2
    assert meter.top1_agreement == 0.5
    kl = 0.5 * np.log(0.5 / 0.1) + 0.25 * np.log(0.25 / 0.8) + 0.25 * np.log(0.25 / 0.1)
    assert meter.mean_kl == pytest.approx(kl / 2, rel=1e-5)
    assert meter.max_logit_error == pytest.approx(np.log(5), rel=1e-5)
    assert meter.mean_logit_error == pytest.approx(np.log([5, 3.2, 2.5]).sum() / 6, rel=1e-5)
    distance = np.linalg.norm(found - reference) / np.linalg.norm(reference)
    assert meter.relative_logit_error == pytest.approx(distance, rel=1e-5)


def test_positions_added_in_parts_count_as_much_as_in_one_piece():
    reference, found = np.random.default_rng(0).standard_normal((2, 6, 9)).astype(np.float32)
    whole, parts = measured(reference, found), measured(reference[:2], found[:2])
    parts.add(reference[2:], found[2:])
    for name in ("num_positions", "top1_agreement", "mean_kl", "relative_logit_error"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-6)


def test_equal_logits_agree_entirely():
    logits = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    meter = measured(logits, logits.copy())
    assert (meter.top1_agreement, meter.mean_kl, meter.max_logit_error) == (1, 0, 0)


def test_a_shift_of_all_logits_changes_no_probability():
    logits = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    meter = measured(logits, logits + 3)
    assert meter.mean_kl == pytest.approx(0, abs=1e-6)
    assert meter.max_logit_error == pytest.approx(3, rel=1e-5)


def test_untrained_is_who_is_surprised_and_undecided():
    rng = np.random.default_rng(0)
    token_ids = rng.integers(0, 500, 60).tolist()
    noise = rng.standard_normal((60, 500)).astype(np.float32)
    knowing = noise.copy()
    knowing[np.arange(59), token_ids[1:]] += 8
    verdicts = {}
    for name, logits in {"noise": noise, "knowing": knowing, "decided": noise * 10}.items():
        detector = TrainingDetector()
        detector.add(token_ids, logits)
        verdicts[name] = detector.is_untrained
    assert verdicts == {"noise": True, "knowing": False, "decided": False}


def test_questions_are_put_in_the_chat_format_of_the_checkpoint(compiled, checkpoint):
    folder = compiled(checkpoint("qwen3")).folder
    prompts = read_prompts(folder, 100)
    assert len(prompts) == len(QUESTIONS)
    texts = [build_tokenizer().decode(ids, skip_special_tokens=False) for ids in prompts]
    assert texts[0] == "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"
    assert read_prompts(folder, 8) == [ids[-8:] for ids in prompts]


@pytest.mark.parametrize(
    "template", [None, "{{ raise_exception('tools are missing') }}", "{% if %}"]
)
def test_a_template_that_cannot_be_used_is_replaced_by_chatml(compiled, own_checkpoint, template):
    checkpoint = own_checkpoint("qwen3")
    expected = read_prompts(compiled(checkpoint).folder, 100)
    (checkpoint / "chat_template.jinja").unlink()
    if template is not None:
        (checkpoint / "chat_template.jinja").write_text(template)
    assert read_prompts(compiled(checkpoint).folder, 100) == expected


def test_a_template_has_what_published_ones_use_and_reaches_nothing_else(compiled, own_checkpoint):
    checkpoint = own_checkpoint("qwen3")
    template = (
        "{%- for m in messages %}{%- if loop.index > 1 %}{%- break %}{%- endif %}"
        "{{ {'b': m.content} | tojson }}{{ strftime_now('%Y')[:2] }}{%- endfor %}"
    )
    (checkpoint / "chat_template.jinja").write_text(template)
    prompts = read_prompts(compiled(checkpoint).folder, 100)
    assert build_tokenizer().decode(prompts[0]) == '{"b": "What is 3 + 4?"}20'
    (checkpoint / "chat_template.jinja").write_text("{{ messages.__class__.__mro__ }}")
    assert "<|im_start|>" in build_tokenizer().decode(
        read_prompts(compiled(checkpoint).folder, 100)[0], skip_special_tokens=False
    )


def test_answers_are_greedy_and_end_with_the_end_token(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"), precision="fp32")
    spec = read_manifest(engine.folder).chat
    prompts = [[5, 6, 7], [8, 9], [10]]
    answers = greedy_answers(engine.folder, spec, prompts)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.prompt_ids == prompt
        assert len(answer.answer_ids) == len(answer.logits) == MAX_ANSWER_TOKENS
        logits = engine.decoder.prefill(0, prompt + answer.answer_ids[:-1])[len(prompt) - 1 :]
        assert np.abs(logits[:, : spec.num_tokens] - answer.logits).max() < 1e-4
        assert logits[:, : spec.num_tokens].argmax(-1).tolist() == answer.answer_ids

    end = answers[0].answer_ids[3]
    stopping = msgspec.structs.replace(spec, eos_token_ids=(end,))
    for before, after in zip(
        answers, greedy_answers(engine.folder, stopping, prompts), strict=True
    ):
        length = [*before.answer_ids, end].index(end) + 1
        assert after.answer_ids == before.answer_ids[:length]


def test_a_context_too_short_for_the_questions_is_verified_on_their_ends(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"), precision="int8", max_context=12)
    config = VerifyConfig(
        engine_dir=engine.folder, checkpoint_path=engine.checkpoint, reference="fp32"
    )
    report = verify(read_manifest(engine.folder), config).report
    assert report.num_tokens == len(QUESTIONS) * 7
    assert report.relative_logit_error < 0.05


@pytest.mark.parametrize("reference", ["transformers", "fp32"])
def test_int8_against_either_reference(compiled, checkpoint, reference):
    engine = compiled(checkpoint("qwen3"), precision="int8")
    config = VerifyConfig(
        engine_dir=engine.folder, checkpoint_path=engine.checkpoint, reference=reference
    )
    before = sorted(engine.folder.iterdir())
    result = verify(read_manifest(engine.folder), config)
    assert result.skipped is None
    assert reference in result.report.reference
    assert result.report.num_tokens > 200
    assert 1e-4 < result.report.relative_logit_error < 0.05
    assert result.report.top1_agreement > 0.9
    assert 0 < result.report.mean_kl < 0.01
    assert sorted(engine.folder.iterdir()) == before


def test_fp32_equals_transformers(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"))
    config = VerifyConfig(engine_dir=engine.folder, checkpoint_path=engine.checkpoint)
    report = verify(read_manifest(engine.folder), config).report
    assert report.max_logit_error < 1e-4
    assert report.top1_agreement == 1


def test_an_engine_of_other_weights_is_found_out(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"))
    config = VerifyConfig(engine_dir=engine.folder, checkpoint_path=checkpoint("qwen2.5", seed=9))
    report = verify(read_manifest(engine.folder), config).report
    assert report.relative_logit_error > 0.5
    assert report.top1_agreement < 0.2


def test_fp32_without_transformers_is_skipped_with_a_sentence(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"))
    config = VerifyConfig(
        engine_dir=engine.folder, checkpoint_path=engine.checkpoint, reference="fp32"
    )
    result = verify(read_manifest(engine.folder), config)
    assert result.report is None
    assert "transformers is not installed" in result.skipped


def test_a_reference_that_does_not_fit_is_skipped_with_a_sentence(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"), precision="int8")
    manifest = read_manifest(engine.folder)
    vast = msgspec.structs.replace(manifest.chat, num_parameters=10**14)
    config = VerifyConfig(engine_dir=engine.folder, checkpoint_path=engine.checkpoint)
    result = verify(msgspec.structs.replace(manifest, chat=vast), config)
    assert result.report is None
    assert "the reference in fp32 takes about 500000.0 GB of memory" in result.skipped


def test_available_memory_is_what_a_machine_can_have():
    assert 1e7 < available_memory() < 1e15


@pytest.fixture
def report_of(compiled, checkpoint):
    """`report_of(top1, kl, precision)`: a manifest and a result with these figures."""
    manifest = read_manifest(compiled(checkpoint("qwen2.5"), precision="int8").folder)

    def make(top1, kl, precision="int8", untrained=False):
        report = {
            "reference": "engine fp32",
            "num_tokens": 400,
            "max_logit_error": 1.0,
            "mean_logit_error": 0.1,
            "relative_logit_error": 0.1,
            "top1_agreement": top1,
            "mean_kl": kl,
            "seconds": 1.0,
        }
        result = msgspec.convert({"report": report, "is_untrained": untrained}, VerificationResult)
        return msgspec.structs.replace(manifest, precision=precision), result

    return make


@pytest.mark.parametrize(
    ("precision", "top1", "kl"), [("int8", 0.98, 0.01), ("int4", 0.90, 0.1), ("fp32", 1.0, 1e-7)]
)
def test_an_engine_at_the_bars_passes(report_of, precision, top1, kl):
    check_bars(*report_of(top1, kl, precision))


@pytest.mark.parametrize(
    ("precision", "top1", "kl"),
    [("int8", 0.979, 0.001), ("int8", 1.0, 0.011), ("int4", 0.89, 0.0), ("int4", 1.0, 0.11)],
)
def test_an_engine_under_a_bar_is_refused_with_its_figures(report_of, precision, top1, kl):
    with pytest.raises(VerificationFailed, match=f"{top1:.1%} of the tokens.*--force"):
        check_bars(*report_of(top1, kl, precision))


def test_random_weights_are_reported_and_not_judged(report_of):
    check_bars(*report_of(0.1, 3.0, untrained=True))


def test_the_exporter_records_the_report(checkpoint, tmp_path):
    config = ExportConfig(checkpoint_path=str(checkpoint("qwen3")), output=tmp_path)
    summary = export_engine(config, QuietProgress())
    recorded = read_manifest(tmp_path / "tiny-qwen3")
    assert recorded == summary.manifest
    assert recorded.verification.relative_logit_error < 0.05
    assert recorded.verification_skipped is None


def test_an_engine_under_its_bar_is_not_kept_unless_forced(own_checkpoint, tmp_path):
    folder = own_checkpoint("qwen2.5")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] *= 12  # decided, so that it is judged though it is random
    save_file(tensors, folder / "model.safetensors")
    output = tmp_path / "out"
    settings = {"checkpoint_path": str(folder), "output": output, "precision": "int4"}
    with pytest.raises(VerificationFailed, match=r"int4 has to reach 90% and 0\.1"):
        export_engine(ExportConfig(**settings), QuietProgress())
    assert not output.exists()
    summary = export_engine(ExportConfig(**settings, force=True), QuietProgress())
    assert not summary.is_untrained
    assert read_manifest(output / "tiny-qwen2.5").verification.mean_kl > 0.1


def test_a_failing_verification_is_a_sentence(compiled, checkpoint, tmp_path):
    engine = compiled(checkpoint("qwen2.5"), precision="int8")
    with pytest.raises(VerificationFailed, match="the verification failed: "):
        run_verification(read_manifest(engine.folder), tmp_path, engine.checkpoint)


def test_the_process_ends_when_its_parent_is_gone(compiled, checkpoint):
    engine = compiled(checkpoint("qwen2.5"), precision="int8")
    command = [sys.executable, "-m", "export.verify", "--manifest-on-stdin"]
    command += ["--engine-dir", str(engine.folder), "--checkpoint-path", str(engine.checkpoint)]
    manifest = (engine.folder / "engine.json").read_bytes()
    line = json.dumps(json.loads(manifest)).encode() + b"\n"
    started = time.monotonic()
    result = subprocess.run(command, input=line, capture_output=True, timeout=60)
    assert (result.returncode, result.stdout) == (1, b""), f"{time.monotonic() - started:.1f} s"
