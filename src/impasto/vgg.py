"""VGG-19 by layer name: what the network sees in a picture.

Shapes: a picture is ``[3, H, W]``, sRGB in 0..1; the features of a layer are ``[C, h, w]``, after the
ReLU. Preprocessing belongs to the weights and happens in here, so that nobody can forget it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from impasto import tiles, winograd
from impasto.layers import LAYERS, deepest, stride
from impasto.recipe import Recipe
from impasto.tiles import Tile
from impasto.weights import Weights

__all__ = ["PADDINGS", "POOLINGS", "VGG19", "l2_pool"]


def average_pool(features: Tensor) -> Tensor:
    """Return the mean of every 2x2 cells: the report's pooling."""
    return functional.avg_pool2d(features, 2)


def max_pool(features: Tensor) -> Tensor:
    """Return the largest of every 2x2 cells: the pooling VGG-19 was trained with."""
    return functional.max_pool2d(features, 2)


def l2_pool(features: Tensor) -> Tensor:
    """Return the root of the mean square of every 2x2 cells, between average and maximum.

    Below a root mean square of 1e-6 the gradient is zero, where the root's own would be infinite.

    Example:
        >>> round(l2_pool(torch.tensor([[[[3.0, 1.0], [1.0, 1.0]]]])).item() ** 2, 5)
        3.0
    """
    return functional.avg_pool2d(features.square(), 2).clamp_min(1e-12).sqrt()


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": average_pool,
    "max": max_pool,
    "l2": l2_pool,
}
Border = tuple[int, int, int, int]
"""Cells of padding on the left, right, top and bottom."""

_NO_BORDER: Border = (0, 0, 0, 0)
PADDINGS = ("zeros", "replicate", "reflect", "circular")


class VGG19(nn.Module):
    """VGG-19's convolutions up to any layer, with the pooling and padding one asks for.

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition" (2014); average pooling after Gatys et al. (2016).
    """

    def __init__(
        self,
        weights: Weights,
        pooling: str = "average",
        padding: str = "zeros",
        precision: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        by_winograd: bool = False,
        last: str = next(reversed(LAYERS)),
    ) -> None:
        """Place the weights on ``device`` in ``precision``; they never need a gradient.

        Layers beyond ``last`` are left out.
        ``by_winograd`` convolves by `winograd` wherever that pays: float32 on a CPU only.
        """
        super().__init__()
        self.pool = POOLINGS[pooling]
        self.padding = padding
        self.precision = precision
        self.device = torch.device(device)
        # Another process may have made the plan; here NNPACK is set up by being asked for.
        self.by_winograd = by_winograd and (torch.device(device).type == "meta" or winograd.available())
        self.layout = torch.contiguous_format if by_winograd else torch.channels_last
        self._prepared: dict[
            str, tuple[int, Tensor]
        ] = {}  # kernels as the last picture's size took them
        preprocessing = weights.preprocessing
        self.real = torch.promote_types(precision, torch.float32)

        def colours(values: tuple[float, float, float]) -> Tensor:
            return torch.tensor(values, dtype=self.real, device=device).view(3, 1, 1)

        self.scale = preprocessing.scale
        self.mean, self.std = colours(preprocessing.mean), colours(preprocessing.std)
        names = list(LAYERS)
        for name in names[: names.index(last) + 1]:
            kernel = weights.kernels[name].to(device, precision, memory_format=self.layout)
            self.register_buffer(f"{name}_kernel", kernel)
            self.register_buffer(f"{name}_bias", weights.biases[name].to(device, precision))

    def forward(
        self, picture: Tensor, layers: Iterable[str], tile: Tile | None = None
    ) -> dict[str, Tensor]:
        """Return the features ``[C, h, w]`` of each of ``layers`` for a picture ``[3, H, W]``.

        The network runs no deeper than the deepest of them. With a ``tile``, made for these layers and
        perhaps more, ``picture`` is its window, and the features are those of the cells it owns.
        """
        return dict(self.walk(picture, layers, tile))

    def walk(
        self, picture: Tensor, layers: Iterable[str], tile: Tile | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield a layer's name and features as soon as they are known, as `forward` returns them.

        What is done with them before going on needs no memory later.
        """
        wanted = set(layers)
        names = list(LAYERS)
        names = names[: names.index(deepest(wanted)) + 1]
        tile = tile or tiles.cut((picture.shape[1], picture.shape[2]), wanted)[0]
        # Preprocessing is done in the picture's own precision; only features are ever bf16.
        x = ((picture * self.scale - self.mean) / self.std).unsqueeze(0)
        x = x.to(self.precision, memory_format=self.layout)
        x = _pad(x, tile.border(names[0]), self.padding)
        for name, after_it in zip(names, [*names[1:], ""], strict=True):
            down, across = tile.steps[name]
            x = self._convolve(name, x)
            pools = bool(after_it) and LAYERS[after_it].block > LAYERS[name].block
            border = _NO_BORDER if pools or not after_it else tile.border(after_it)
            keeps_own = down.keeps_own and across.keeps_own
            if name in wanted and not keeps_own:
                yield name, x[0, :, down.own, across.own].relu()
            x = _Activate.apply(x[:, :, down.onward, across.onward], border, self.padding)  # type: ignore[no-untyped-call]
            if name in wanted and keeps_own:
                yield name, x[0, :, down.own_after(border[2]), across.own_after(border[0])]
            if pools:
                x = _pad(self.pool(x), tile.border(after_it), self.padding)

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        kernel = self.get_buffer(f"{name}_kernel")
        bias = self.get_buffer(f"{name}_bias")
        height, width = x.shape[2:]
        outputs, inputs = kernel.shape[:2]
        side = winograd.blocks(inputs, outputs, height, width) if self.by_winograd else 0
        if not side:
            return functional.conv2d(x, kernel, bias)
        if name not in self._prepared or self._prepared[name][0] != side:
            self._prepared[name] = side, winograd.PREPARED[side](kernel)
        _, prepared = self._prepared[name]
        if side == 2:
            return winograd.convolve_small(x, prepared, bias)
        return winograd.convolve(x, kernel, bias, prepared, 0)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        weights: Weights,
        precision: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        by_winograd: bool = False,
    ) -> Self:
        """Return the network that a recipe asks for, no deeper than it looks."""
        pooling, padding, last = recipe.pooling, recipe.border, recipe.deepest_layer
        return cls(weights, pooling, padding, precision, device, by_winograd, last)

    @property
    def bytes(self) -> int:
        """The memory that the weights take."""
        return sum(buffer.nbytes for buffer in self.buffers())

    @property
    def tensors(self) -> list[Tensor]:
        """The weights, and what was made of them so far."""
        return [*self.buffers(), *(kernel for _, kernel in self._prepared.values())]

    def workspace(self, height: int, width: int) -> int:
        """Return the bytes that the convolutions of a window work in, over and above tensors.

        A processor's direct convolution copies its widest input into blocks, and holds some more.
        """
        if self.device.type == "cuda":
            return 0
        copies = (40 << 20) + next(
            iter(LAYERS.values())
        ).channels * height * width * self.precision.itemsize
        if not self.by_winograd:
            return copies
        sizes, kept = [0], 0
        for layer in (layer for layer in LAYERS.values() if f"{layer.name}_kernel" in self._buffers):
            down, across = height // stride(layer.name) + 2, width // stride(layer.name) + 2
            side = winograd.blocks(layer.inputs, layer.channels, down, across)
            if side:
                kept += winograd.prepared_bytes(side, layer.channels, layer.inputs)
            if side == 6:
                sizes.append(winograd.workspace(layer.channels, layer.inputs, down, across))
        return copies + kept + max(sizes)

    def channels(self, layer: str) -> int:
        """Return N, the channels of a layer."""
        return len(self.get_buffer(f"{layer}_bias"))


def _pad(x: Tensor, border: Border, padding: str) -> Tensor:
    if border == _NO_BORDER:
        return x
    return functional.pad(x, border, mode="constant" if padding == "zeros" else padding)


class _Activate(torch.autograd.Function):
    """ReLU, and the border that the next convolution needs: one copy is kept for the gradient.

    The two may change places, and a ReLU's gradient can be told from its output. Left to itself, torch
    keeps the features before and after they are padded.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, border: Border, padding: str) -> Tensor:  # noqa: ANN401
        y = _pad(x, border, padding)
        y = x.relu() if y is x else y.relu_()
        ctx.save_for_backward(y)
        ctx.border, ctx.padding = border, padding
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (y,) = ctx.saved_tensors
        left, right, top, bottom = ctx.border
        gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        gradient = _folded(gradient, 2, top, bottom, ctx.padding)
        return _folded(gradient, 3, left, right, ctx.padding), None, None


def _folded(gradient: Tensor, dim: int, before: int, after: int, padding: str) -> Tensor:
    """Return the gradient without its border of one cell, in place: added to the cells it repeats."""
    length = gradient.shape[dim] - before - after
    inner = gradient.narrow(dim, before, length)
    repeats = {"replicate": (0, length - 1), "reflect": (1, length - 2), "circular": (length - 1, 0)}
    if padding in repeats:
        first, last = repeats[padding]
        if before:
            inner.narrow(dim, first, 1).add_(gradient.narrow(dim, 0, 1))
        if after:
            inner.narrow(dim, last, 1).add_(gradient.narrow(dim, length + before, 1))
    return inner
