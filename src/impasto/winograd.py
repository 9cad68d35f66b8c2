"""3x3 convolutions by Winograd's algorithm, for processors without bf16 instructions.

torch's CPU build carries NNPACK, whose kernels need 16 multiplications where the direct way needs 36.
Their rounding is coarser than float32's, some 1e-4 of the result, and far finer than bf16's. The
operation is private to torch, so it is probed before it is trusted: where it is missing or wrong, the
direct convolution does the work.

Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["available", "convolve", "pays", "workspace"]

_TOLERANCE = 1e-3
_FEWEST_CHANNELS = 64
_FEWEST_POSITIONS = 1024


def pays(channels: int, height: int, width: int) -> bool:
    """Say whether Winograd is the faster way: by size alone, so that same plan means same bytes."""
    return channels >= _FEWEST_CHANNELS and height * width >= _FEWEST_POSITIONS


@functools.cache
def available() -> bool:
    """Say whether this build of torch has the operation and it agrees with the direct convolution."""
    # Its first call sets NNPACK up; before it every convolution fails.
    if not getattr(torch, "_nnpack_available", bool)():
        return False
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(1, 8, 20, 18, generator=generator).requires_grad_()
    kernel = torch.randn(8, 8, 3, 3, generator=generator)
    bias = torch.randn(8, generator=generator)
    try:
        for padding in (0, 1):
            direct = functional.conv2d(features, kernel, bias, padding=padding)
            fast = convolve(features, kernel, bias, turned(kernel), padding)
            cotangent = torch.rand(direct.shape, generator=generator)
            # Given the cotangent itself, torch would load symbolic mathematics, half a second of work.
            sums = [(out * cotangent).sum() for out in (direct, fast)]
            gradients = [torch.autograd.grad(one, features)[0] for one in sums]
            for right, found in ((direct, fast), gradients):
                if not (found - right).abs().max() < _TOLERANCE * right.abs().max():
                    return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def turned(kernel: Tensor) -> Tensor:
    """Return the kernel ``[in, out, 3, 3]`` that carries a gradient back through ``[out, in, 3, 3]``."""
    return kernel.flip(2, 3).transpose(0, 1).contiguous()


def convolve(features: Tensor, kernel: Tensor, bias: Tensor, backward: Tensor, padding: int) -> Tensor:
    """Return features ``[1, C, h, w]`` convolved with ``kernel`` ``[N, C, 3, 3]``.

    ``backward`` is `turned` of the kernel. Only the features get a gradient. Ask `available` first.
    """
    return _Convolve.apply(features, kernel, bias, backward, padding)  # type: ignore[no-any-return, no-untyped-call]


class _Convolve(torch.autograd.Function):
    """Keeps nothing for the backward pass: the kernel is the caller's."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        features: Tensor,
        kernel: Tensor,
        bias: Tensor,
        backward: Tensor,
        padding: int,
    ) -> Tensor:
        ctx.backward_kernel, ctx.padding = backward, padding
        return _nnpack(features, kernel, bias, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ANN401
        # A correlation's gradient is the correlation with the turned kernel, padded to full size.
        return _nnpack(gradients[0], ctx.backward_kernel, None, 2 - ctx.padding), None, None, None, None


def workspace(outputs: int, inputs: int, height: int, width: int) -> int:
    """Return the bytes that NNPACK works in: everything transformed to blocks of 8x8, for 6x6 results.

    torch keeps the largest one until the process ends.
    """
    blocks = -(-height // 6) * -(-width // 6)
    return 256 * (outputs * inputs + blocks * (outputs + inputs))


def _nnpack(features: Tensor, kernel: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    if features.is_meta:
        height, width = (side + 2 * padding - 2 for side in features.shape[2:])
        return features.contiguous().new_empty(1, len(kernel), height, width)
    return torch._nnpack_spatial_convolution(features.contiguous(), kernel, bias, [padding, padding])
