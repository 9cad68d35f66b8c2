"""3x3 convolutions by Winograd's algorithm, for processors without bf16 instructions.

torch's CPU build carries NNPACK, which computes blocks of 6x6 results by 64 products where the direct
way needs 324. It rounds more coarsely than float32, to some 1e-5 of the result, and far finer than bf16.
The operation is private to torch, so it is probed before it is trusted: where it is missing or wrong,
the direct convolution does the work.

It transforms the kernels anew each time. Deep layers have millions of weights and few positions: there,
blocks of 2x2 are computed by 16 products for 36, as products of matrices, with kernels that were
transformed once.

Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016).
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "PREPARED",
    "available",
    "blocks",
    "convolve",
    "convolve_small",
    "prepared_bytes",
    "pull",
    "pull_small",
    "transformed",
    "turned",
    "workspace",
]

_TOLERANCE = 1e-3
_FEWEST_CHANNELS = 64
_FEWEST_POSITIONS = 1024

_STRIP = 64 << 20
"""NNPACK takes strips of rows for which it works in about so many bytes, and in no fewer than ..."""

_TO_KERNELS = 4
"""... so many times those of its kernels, which it transforms anew for every strip."""

_DEEP = 256, 512
"""The least channels of a deep layer, on one side and on the other."""

_FEW = range(400, 1600)
"""The positions of a deep layer for which its kernels are better transformed beforehand."""


def blocks(inputs: int, outputs: int, height: int, width: int) -> int:
    """Return the side of the blocks that Winograd is fastest with: 6 by NNPACK, 2 here, 0 if it is not.

    By size alone, so that same plan means same bytes.

    Example:
        >>> blocks(64, 64, 194, 258), blocks(512, 512, 26, 34), blocks(512, 512, 14, 18)
        (6, 2, 0)
    """
    positions = height * width
    deep = min(inputs, outputs) >= _DEEP[0] and max(inputs, outputs) >= _DEEP[1]
    if deep and positions in _FEW:
        return 2
    return 6 if outputs >= _FEWEST_CHANNELS and positions >= _FEWEST_POSITIONS else 0


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
        direct = functional.conv2d(features, kernel, bias)
        cotangent = torch.rand(direct.shape, generator=generator)
        # Given the cotangent itself, torch would load symbolic mathematics, half a second of work.
        (gradient,) = torch.autograd.grad((direct * cotangent).sum(), features)
        back = turned(kernel)
        strips = _nnpack(cotangent, back, None, 2, rows=6)
        pairs = (direct, convolve(features.detach(), kernel, bias)), (gradient, pull(cotangent, back))
        for right, found in (*pairs, (gradient, strips)):
            if not (found - right).abs().max() < _TOLERANCE * right.abs().max():
                return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def turned(kernel: Tensor) -> Tensor:
    """Return the kernel ``[in, out, 3, 3]`` that carries a gradient back through ``[out, in, 3, 3]``."""
    return kernel.flip(2, 3).transpose(0, 1).contiguous()


def convolve(features: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return features ``[1, C, h, w]`` convolved with ``kernel`` ``[N, C, 3, 3]``, without padding.

    Ask `available` first.
    """
    return _nnpack(features, kernel, bias, 0)


def pull(gradient: Tensor, kernel: Tensor) -> Tensor:
    """Return the gradient by the features of what was convolved; ``kernel`` is `turned`."""
    # A correlation's gradient is the correlation with the turned kernel, padded to full size.
    return _nnpack(gradient, kernel, None, 2)


def workspace(outputs: int, inputs: int, height: int, width: int) -> int:
    """Return the bytes that NNPACK works in: everything transformed to blocks of 8x8, for 6x6 results.

    torch keeps the largest one until the process ends.
    """
    rows = min(height, _rows(outputs, inputs, width))
    blocks = -(-rows // 6) * -(-width // 6)
    return 256 * (outputs * inputs + blocks * (outputs + inputs))


def _rows(outputs: int, inputs: int, width: int) -> int:
    """Return the rows of results that are computed at a time, in whole blocks: no bit depends on it."""
    across = -(-width // 6)
    size = max(_STRIP, _TO_KERNELS * 256 * outputs * inputs)
    return 6 * max(1, round(size / (256 * across * (outputs + inputs))))


def _nnpack(
    features: Tensor, kernel: Tensor, bias: Tensor | None, padding: int, rows: int = 0
) -> Tensor:
    height, width = (side + 2 * padding - 2 for side in features.shape[2:])
    rows = rows or _rows(kernel.shape[0], kernel.shape[1], width)
    if rows >= height and not features.is_meta:
        return torch._nnpack_spatial_convolution(features.contiguous(), kernel, bias, [padding] * 2)
    found = features.new_empty(1, len(kernel), height, width)
    if features.is_meta:
        return found
    for top in range(0, height, rows):
        first, last = top - padding, min(top + rows, height) + 2 - padding
        above, below = max(0, -first), max(0, last - features.shape[2])
        strip = features[:, :, first + above : last - below]
        strip = functional.pad(strip, (0, 0, above, below)).contiguous()
        part = torch._nnpack_spatial_convolution(strip, kernel, bias, [0, padding])
        found[:, :, top : top + rows] = part
    return found


# --- blocks of 2x2 -------------------------------------------------------------------------------

# A block is A'[(G k G') * (B' d B)]A of 4x4 cells d and a 3x3 kernel k; as matrices on the 16 cells.
_B = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_G = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_A = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
_CELLS, _KERNEL, _RESULTS = (torch.kron(one, one) for one in (_B, _G, _A))

# A kernel that is turned is transformed to the same numbers, the first and the last of four exchanged.
_TURNED = torch.arange(16).view(4, 4)[[3, 1, 2, 0]][:, [3, 1, 2, 0]].flatten()


def transformed(kernel: Tensor) -> Tensor:
    """Return a kernel ``[N, C, 3, 3]`` as `convolve_small` takes it, ``[16, N, C]``.

    Example:
        >>> transformed(torch.ones(2, 5, 3, 3)).shape
        torch.Size([16, 2, 5])
    """
    outputs, inputs = kernel.shape[:2]
    found = kernel.reshape(-1, 9) @ _KERNEL.to(kernel).T
    return found.T.reshape(16, outputs, inputs).contiguous()


def convolve_small(features: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Return features ``[1, C, h, w]`` convolved with `transformed` kernels, without padding.

    Example:
        >>> features, kernel, bias = torch.rand(1, 5, 8, 9), torch.rand(2, 5, 3, 3), torch.rand(2)
        >>> found = convolve_small(features, transformed(kernel), bias)
        >>> torch.allclose(found, functional.conv2d(features, kernel, bias), atol=1e-4)
        True
    """
    return _by_blocks(features[0], kernels, _CELLS, _RESULTS).add_(bias[:, None, None])[None]


def pull_small(gradient: Tensor, kernels: Tensor) -> Tensor:
    """Return the gradient by the features of what was convolved, by the same kernels, not copied."""
    padded = functional.pad(gradient, (2, 2, 2, 2))[0]
    cells, results = _CELLS[_TURNED], _RESULTS[:, _TURNED]
    return _by_blocks(padded, kernels.transpose(1, 2), cells, results)[None]


PREPARED = {2: transformed, 6: turned}
"""What is made of a layer's kernel before its first use, by the side of the blocks."""


def prepared_bytes(side: int, outputs: int, inputs: int) -> int:
    """Return the bytes of what `PREPARED` makes."""
    return 4 * outputs * inputs * (16 if side == 2 else 9)


def _by_blocks(features: Tensor, kernels: Tensor, cells: Tensor, results: Tensor) -> Tensor:
    """Return features ``[C, h, w]`` convolved, block by block."""
    channels, height, width = features.shape
    down, across = (height - 1) // 2, (width - 1) // 2  # blocks; the last may hang over the border
    whole = functional.pad(features, (0, 2 * across + 2 - width, 0, 2 * down + 2 - height))
    views = whole.unfold(1, 4, 2).unfold(2, 4, 2).permute(3, 4, 0, 1, 2)
    seen = (cells.to(features) @ views.reshape(16, -1)).view(16, channels, -1)
    found = results.to(features) @ torch.bmm(kernels, seen).view(16, -1)
    found = found.view(2, 2, -1, down, across).permute(2, 3, 0, 4, 1)
    return found.reshape(-1, 2 * down, 2 * across)[:, : height - 2, : width - 2].contiguous()
