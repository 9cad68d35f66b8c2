"""Direct 3x3 convolutions by oneDNN on a processor, with kernels that are laid out for it once.

torch's own convolution lays them out anew each time, and the ReLU reads and writes all features again;
here it is done before they are written. Where bf16 has instructions of its own, products take so little
that this is a fifth of an evaluation. The operations are private to torch (its compiler uses them), so
they are probed before they are trusted: where they are missing or wrong, torch's own do the work.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from impasto.winograd import turned

__all__ = ["LaidOut", "available", "convolve", "laid_out", "pull"]

_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""How far the results may be from the plain convolution's, as a share of the largest."""

_TYPICAL = 64, 64
"""The sides of the features that a kernel is laid out for."""


@functools.cache
def available(precision: torch.dtype) -> bool:
    """Say whether this build of torch has the operations and they agree with the plain convolution.

    Example:
        >>> available(torch.float64)
        False
    """
    if precision not in _TOLERANCES or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(1, 16, 9, 12, generator=generator).to(precision)
    kernel = torch.randn(32, 16, 3, 3, generator=generator).to(precision)
    bias = torch.randn(32, generator=generator).to(precision)
    gradient = torch.rand(1, 32, 7, 10, generator=generator).to(precision)
    try:
        found = laid_out(kernel)
        results = convolve(features, found.forward, bias), pull(gradient, found.back)
    except (AttributeError, RuntimeError, TypeError):
        return False
    exact = (
        functional.conv2d(features.double(), kernel.double(), bias.double()).relu_(),
        functional.conv_transpose2d(gradient.double(), kernel.double()),
    )
    return all(
        (one - right).abs().max().item() < _TOLERANCES[precision] * right.abs().max().item()
        for one, right in zip(results, exact, strict=True)
    )


class LaidOut(NamedTuple):
    """A kernel as `convolve` takes it, and as `pull` does: opaque to all else."""

    forward: Tensor
    back: Tensor


def laid_out(kernel: Tensor) -> LaidOut:
    """Return a kernel ``[N, C, 3, 3]`` laid out for features of any size; no bit depends on it."""
    lay_out, way = torch.ops.mkldnn._reorder_convolution_weight, ([1, 1], [1, 1], 1)
    outputs, inputs = kernel.shape[:2]
    return LaidOut(
        lay_out(kernel, [0, 0], *way, [1, inputs, *_TYPICAL]),
        lay_out(turned(kernel), [2, 2], *way, [1, outputs, *_TYPICAL]),
    )


def convolve(features: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return the ReLU of features ``[1, C, h, w]`` convolved with a kernel, without padding.

    Ask `available` first.
    """
    return _convolve(features, kernel, bias, 0, "relu")


def pull(gradient: Tensor, kernel: Tensor) -> Tensor:
    """Return the gradient by the features of what was convolved, without the ReLU's part in it."""
    # A correlation's gradient is the correlation with the turned kernel, padded to full size.
    return _convolve(gradient, kernel, None, 2, "none")


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: int, after_it: str) -> Tensor:
    sides = [padding] * 2, [1, 1], [1, 1]
    return torch.ops.mkldnn._convolution_pointwise(x, kernel, bias, *sides, 1, after_it, [], "")  # type: ignore[no-any-return]
