"""How far logits are from a reference's: top-1 agreement, KL divergence, logit error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_CONFUSED = 0.9  # share of log(num_tokens)
_UNDECIDED = 0.7  # share of log(num_tokens)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The comparison over all positions of all prompts."""

    num_positions: int
    max_logit_error: float
    mean_logit_error: float
    relative_logit_error: float  # ||logits - reference|| / ||reference||
    top1_agreement: float  # 0 to 1
    mean_kl: float  # KL(reference || compiled), nats


def compare(references: list[FloatArray], compiled: list[FloatArray]) -> Agreement:
    """Compare prompt by prompt.

    Args:
        references: For each prompt [S, num_tokens].
        compiled: The same of the engine.
    """
    num_positions = sum(map(len, references))
    largest = absolute = squared = reference_squared = kl = 0.0
    num_same = 0
    for reference, logits in zip(references, compiled, strict=True):
        difference = np.abs(logits - reference)
        largest = max(largest, float(difference.max()))
        absolute += float(difference.sum(dtype=np.float64))
        squared += float(np.square(difference).sum(dtype=np.float64))
        reference_squared += float(np.square(reference).sum(dtype=np.float64))
        num_same += int((reference.argmax(-1) == logits.argmax(-1)).sum())
        kl += _kl(reference, logits)
    return Agreement(
        num_positions=num_positions,
        max_logit_error=largest,
        mean_logit_error=absolute / (num_positions * references[0].shape[1]),
        relative_logit_error=(squared / reference_squared) ** 0.5,
        top1_agreement=num_same / num_positions,
        mean_kl=kl / num_positions,
    )


def is_untrained(token_ids: list[list[int]], references: list[FloatArray]) -> bool:
    """Whether the reference knows no more of the prompts than a model with random weights.

    Such a model spreads its probability over the whole vocabulary (an entropy near the logarithm
    of its size) and finds the token that really follows no likelier than any other. Text that a
    trained model has never seen may surprise it as much, but leaves it decided; a trained model
    that hesitates still finds real text likely. Only both together mean that the model has not
    learned, and then top-1 agreement is a comparison of noise: it is reported and not judged.
    """
    surprise = entropy = 0.0
    num_positions = 0
    for ids, reference in zip(token_ids, references, strict=True):
        log_probs = _log_softmax(reference[:-1])  # [S - 1, num_tokens]
        entropy -= float((np.exp(log_probs) * log_probs).sum())
        surprise -= float(log_probs[np.arange(len(ids) - 1), ids[1:]].sum())
        num_positions += len(ids) - 1
    uniform = num_positions * float(np.log(references[0].shape[1]))
    return surprise > _CONFUSED * uniform and entropy > _UNDECIDED * uniform


def _kl(reference: FloatArray, logits: FloatArray) -> float:
    """Summed over the rows of [S, num_tokens]."""
    expected, found = _log_softmax(reference), _log_softmax(logits)
    return float((np.exp(expected) * (expected - found)).sum())


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    log_probs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return log_probs
