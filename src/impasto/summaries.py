"""What is summed over positions: features ``[C, h, w]`` in, a small statistic out.

A summary is additive: the summary of a picture is the sum of its parts' summaries, however it was
cut. Sums are taken in float32 at least, whatever the precision of the features.
"""

import torch
from torch import Tensor

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
    matrix = as_matrix(features)
    if matrix.dtype in (torch.bfloat16, torch.float16):
        matrix = matrix.float()
    return matrix @ matrix.T
