"""What is summed over positions: features ``[C, h, w]`` in, a small statistic out.

A summary is additive: the summary of a picture is the sum of its parts' summaries, however it was
cut. Sums are taken in float32 at least, whatever the precision of the features.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["as_matrix", "gram"]


def as_matrix(features: Tensor) -> Tensor:
    """Return features ``[C, h, w]`` as the paper's F: ``[N, M]``, N channels at M positions."""
    return features.flatten(1)


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrix G = F F^T, ``[N, N]``, of features ``[N, h, w]``.

    Equation 2 of the report: G_ij = sum_k F_ik F_jk. It forgets where a feature was and keeps which
    features occur together.

    Reference: Gatys et al., "A Neural Algorithm of Artistic Style" (2015).

    Example:
        >>> gram(torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])).tolist()
        [[5.0, 6.0], [6.0, 9.0]]
    """
    return _Gram.apply(features)  # type: ignore[no-any-return, no-untyped-call]


class _Gram(torch.autograd.Function):
    """Keeps the features as they lie, not the copy in float32 or in one piece that the product needs."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(features)
        matrix = _wide_matrix(features)
        return matrix @ matrix.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401
        (features,) = ctx.saved_tensors
        pulled = (gradient + gradient.T) @ _wide_matrix(features)
        return pulled.view(features.shape).to(features.dtype)


def _wide_matrix(features: Tensor) -> Tensor:
    return as_matrix(features).to(torch.promote_types(features.dtype, torch.float32))
