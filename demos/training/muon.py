"""Muon for matrices and convolutions, AdamW for the rest: the optimizer of the demos."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class MuonAdamW:
    """One optimizer out of two; `torch.optim.Muon` takes matrices alone.

    Args:
        matrices: Weights of linear layers and of convolutions; a convolution's are taken as one
            row for each channel that comes out.
        others: Embeddings, norms, biases, and the layers at both ends of a model.
        learning_rate: Of both; Muon's updates are scaled to AdamW's.
        betas: AdamW's.
        weight_decay: Muon's.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        self._matrices = list(matrices)
        self._views = [_as_matrix(weight.detach(), weight) for weight in self._matrices]
        self._others = list(others)
        self._muon = torch.optim.Muon(
            self._views,
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = torch.optim.AdamW(
            self._others, lr=learning_rate, betas=betas, weight_decay=0.0
        )

    def step(self, learning_rate: float) -> None:
        """Update all weights from their gradients, and clear those."""
        for weight, view in zip(self._matrices, self._views, strict=True):
            view.grad = None if weight.grad is None else _as_matrix(weight.grad, weight)
        optimizers: tuple[torch.optim.Optimizer, ...] = (self._muon, self._adamw)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        for weight in (*self._matrices, *self._others):
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])


def split_weights(
    model: torch.nn.Module, excluded: tuple[str, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """The matrices and convolutions of a model, and its other weights.

    Those whose name has a part in `excluded` are among the others.
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, weight in model.named_parameters():
        is_matrix = weight.ndim in (2, 4) and not any(part in name for part in excluded)
        (matrices if is_matrix else others).append(weight)
    return matrices, others


def _as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """A weight or its gradient with one row for each output, in the order of the weight's memory.

    [out, in] as it is; [out, in, h, w] -> [out, in * h * w]. Of the weight it is a view, through
    which the update reaches it.
    """
    if weight.ndim == 2:
        return tensor
    return (tensor if weight.is_contiguous() else tensor.permute(0, 2, 3, 1)).flatten(1)
