"""How far logits are from a reference's: top-1 agreement, KL divergence, logit error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

_SURPRISED = 0.9  # share of log(num_tokens)
_UNDECIDED = 0.7  # share of log(num_tokens)


class AgreementMeter:
    """Adds up the comparison of a compiled model with its reference, some positions at a time."""

    def __init__(self) -> None:
        self.num_positions = 0
        self.max_logit_error = 0.0
        self._num_logits = 0
        self._num_same = 0
        self._absolute = self._squared = self._reference_squared = self._kl = 0.0

    def add(self, reference: FloatArray, compiled: FloatArray) -> None:
        """Both [S, num_tokens], for the same positions."""
        difference = np.abs(compiled - reference)
        self.num_positions += len(reference)
        self.max_logit_error = max(self.max_logit_error, float(difference.max()))
        self._num_logits += reference.size
        self._num_same += int((reference.argmax(-1) == compiled.argmax(-1)).sum())
        self._absolute += float(difference.sum(dtype=np.float64))
        self._squared += float(np.square(difference).sum(dtype=np.float64))
        self._reference_squared += float(np.square(reference).sum(dtype=np.float64))
        expected, found = _log_softmax(reference), _log_softmax(compiled)
        self._kl += float((np.exp(expected) * (expected - found)).sum())

    @property
    def mean_logit_error(self) -> float:
        return self._absolute / self._num_logits

    @property
    def relative_logit_error(self) -> float:
        """||compiled - reference|| / ||reference||."""
        return float((self._squared / self._reference_squared) ** 0.5)

    @property
    def top1_agreement(self) -> float:
        """The share of positions where both find the same token the likeliest."""
        return self._num_same / self.num_positions

    @property
    def mean_kl(self) -> float:
        """KL(reference || compiled) in nats."""
        return self._kl / self.num_positions


class TrainingDetector:
    """Tells a trained model from random weights by what it makes of text that it did not write.

    Random weights spread the probability over the whole vocabulary (an entropy near the logarithm
    of its size) and find the token that really follows no likelier than any other. Text of a kind
    that a trained model has never seen may surprise it as much, but leaves it decided; a trained
    model that hesitates still finds real text likely. Only both together mean that nothing was
    learned. Top-1 agreement is then a comparison of noise: it is reported and not judged.
    """

    def __init__(self) -> None:
        self._surprise = self._entropy = self._uniform = 0.0

    def add(self, token_ids: list[int], logits: FloatArray) -> None:
        """Text, and the reference's logits for all its tokens, [len(token_ids), num_tokens]."""
        log_probs = _log_softmax(logits[:-1])  # [S - 1, num_tokens]
        following = np.array(token_ids[1:])
        self._entropy -= float((np.exp(log_probs) * log_probs).sum())
        self._surprise -= float(log_probs[np.arange(len(following)), following].sum())
        self._uniform += log_probs.shape[0] * float(np.log(log_probs.shape[1]))

    @property
    def is_untrained(self) -> bool:
        return (
            self._surprise > _SURPRISED * self._uniform
            and self._entropy > _UNDECIDED * self._uniform
        )


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    log_probs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return log_probs
