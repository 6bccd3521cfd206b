"""How far embeddings and scores may be from their reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engines.manifest import Manifest
from export.errors import VerificationFailed

if TYPE_CHECKING:
    from export.verify import VerificationResult

# precision -> (mean cosine at least, mean error of a score at most)
POOLING_BARS = {"fp32": (0.99999, 1e-4), "int8": (0.98, 0.05), "int4": (0.90, 0.15)}


def check_pooling_bars(manifest: Manifest, result: VerificationResult) -> None:
    """Refuse an engine that is too far from its reference.

    Raises:
        VerificationFailed: It misses a bar of its precision.
    """
    if manifest.precision not in POOLING_BARS:
        return
    least_cosine, most_error = POOLING_BARS[manifest.precision]
    advice = "choose a higher precision, raise some nodes by --override, or keep it by --force"
    embedding, rerank = result.embedding_report, result.rerank_report
    if embedding is not None and embedding.mean_cosine < least_cosine:
        raise VerificationFailed(
            f"embeddings have a mean cosine of {embedding.mean_cosine:.4f} with those of "
            f"{embedding.reference}, but {manifest.precision} has to reach {least_cosine:g}: "
            f"{advice}"
        )
    if rerank is not None and rerank.mean_score_error > most_error:
        raise VerificationFailed(
            f"scores are off from those by {rerank.reference} by {rerank.mean_score_error:.2g} on "
            f"average, but {manifest.precision} may be off by {most_error:g}: {advice}"
        )
