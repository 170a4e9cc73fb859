"""AdamW, and Muon for matrices and kernels: one flat state that safetensors can hold.

Muon (Jordan et al. 2024) replaces a matrix's momentum by its nearest orthogonal matrix, found by
five Newton-Schulz steps; the size of its update is matched to AdamW's (Liu et al. 2025, 0.2 times
the root of the longer side), so both share one learning rate. Vectors, embeddings and the layers
at the network's borders stay with AdamW.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from export.errors import ExportError

__all__ = ["OPTIMIZERS", "Optimizer", "orthogonal"]

OPTIMIZERS = ("adamw", "muon")
_BORDER = re.compile(r"embedding|conv_in|conv_out|quant_conv|time_emb")
_BETAS = (0.9, 0.99)
_EPS = 1e-8
_MOMENTUM = 0.95
# Quintic whose fifth iterate sends singular values in (0.01, 1) near 1; source: Jordan et al.
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(matrix: Tensor) -> Tensor:
    """Send f[m, n] near U V^T of its singular value decomposition, in five steps."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Optimizer:
    """Updates named parameters in place. `decay` is decoupled, on matrices and kernels alone."""

    def __init__(self, parameters: Mapping[str, Tensor], *, kind: str, decay: float) -> None:
        if kind not in OPTIMIZERS:
            raise ExportError(f"unknown optimizer '{kind}'", hint=f"one of {', '.join(OPTIMIZERS)}")
        self._parameters = dict(parameters)
        self._decay = decay
        self._step = 0
        self._muon = [
            name
            for name, p in self._parameters.items()
            if kind == "muon" and p.ndim >= 2 and not _BORDER.search(name)
        ]
        self._adam = [name for name in self._parameters if name not in set(self._muon)]
        zeros = torch.zeros_like
        self._first = {name: zeros(p) for name, p in self._parameters.items()}
        self._second = {name: zeros(self._parameters[name]) for name in self._adam}

    def state(self) -> dict[str, Tensor]:
        """Give the state as flat tensors: `first.NAME`, `second.NAME`, `step`."""
        flat = {f"first.{name}": t for name, t in self._first.items()}
        flat |= {f"second.{name}": t for name, t in self._second.items()}
        return flat | {"step": torch.tensor([self._step], dtype=torch.int64)}

    def restore(self, flat: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, t in self._first.items():
            t.copy_(flat[f"first.{name}"])
        for name, t in self._second.items():
            t.copy_(flat[f"second.{name}"])
        self._step = int(flat["step"][0])

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        """Take one step with the gradients that the parameters hold. None counts as no step."""
        self._step += 1
        self._shrink(learning_rate)
        self._update_adam(
            [n for n in self._adam if self._parameters[n].grad is not None], learning_rate
        )
        for name in self._muon:
            p = self._parameters[name]
            if p.grad is None:
                continue
            momentum = self._first[name].mul_(_MOMENTUM).add_(p.grad)
            ahead = p.grad.add(momentum, alpha=_MOMENTUM)  # Nesterov
            matrix = ahead.reshape(ahead.shape[0], -1)
            size = 0.2 * max(matrix.shape) ** 0.5
            p.add_(orthogonal(matrix).reshape(p.shape), alpha=-learning_rate * size)

    def _shrink(self, learning_rate: float) -> None:
        """Apply weight decay to whatever has a gradient and is no vector."""
        heavy = [p for p in self._parameters.values() if p.ndim >= 2 and p.grad is not None]
        if heavy and self._decay:
            cast("Any", torch)._foreach_mul_(heavy, 1.0 - learning_rate * self._decay)

    def _update_adam(self, names: list[str], learning_rate: float) -> None:
        """Apply AdamW's own part to some parameters, in one fused pass over all of them."""
        if not names:
            return
        steps = [torch.tensor(float(self._step)) for _ in names]
        cast("Any", torch)._fused_adamw_(  # the kernel behind torch.optim.AdamW(fused=True)
            [self._parameters[n] for n in names],
            [self._gradient(n) for n in names],
            [self._first[n] for n in names],
            [self._second[n] for n in names],
            [],
            steps,
            amsgrad=False,
            lr=learning_rate,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            weight_decay=0.0,
            eps=_EPS,
            maximize=False,
        )

    def _gradient(self, name: str) -> Tensor:
        gradient = self._parameters[name].grad
        assert gradient is not None  # noqa: S101  the caller chose those that have one
        return gradient
