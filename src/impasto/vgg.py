"""VGG-19 by layer name: what the network sees in a picture.

Shapes: a picture is ``[3, H, W]``, sRGB in 0..1; the features of a layer are ``[C, h, w]``, after the
ReLU. Preprocessing belongs to the weights and happens in here, so that nobody can forget it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

from impasto import devices, onednn, tiles, winograd
from impasto.layers import LAYERS, deepest, stride
from impasto.recipe import Recipe
from impasto.tiles import Tile
from impasto.weights import Weights

__all__ = ["PADDINGS", "POOLINGS", "VGG19", "l2_pool"]


def average_pool(features: Tensor) -> Tensor:
    """Return the mean of every 2x2 cells: the report's pooling."""
    return _AveragePool.apply(features, False)  # type: ignore[no-any-return, no-untyped-call]


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

_PIECES = 8
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
        devices.settle_vector_math()  # here: what a run computes has a network first
        self.pool = POOLINGS[pooling]
        self.padding = padding
        self.precision = precision
        self.device = torch.device(device)
        # Another process may have made the plan; here NNPACK is set up by being asked for.
        self.by_winograd = by_winograd and (torch.device(device).type == "meta" or winograd.available())
        self.by_onednn = self.device.type in ("cpu", "meta") and not by_winograd
        self.by_onednn = self.by_onednn and onednn.available(precision)
        self.layout = torch.contiguous_format if by_winograd else torch.channels_last
        # In float32 no features are kept that nobody looks at; elsewhere than here it was not measured.
        self._may_join = pooling == "average" and precision.itemsize < 4
        self._may_join = self._may_join and self.device.type in ("cpu", "meta")
        # Kernels as the last picture's size took them; or as oneDNN takes them, forward and back.
        self._prepared: dict[str, tuple[int, Tensor]] = {}
        self._laid_out: dict[str, onednn.LaidOut] = {}
        preprocessing = weights.preprocessing
        self.real = torch.promote_types(precision, torch.float32)

        def colours(values: tuple[float, float, float]) -> Tensor:
            return torch.tensor(values, dtype=self.real, device=device).view(3, 1, 1)

        self.scale = preprocessing.scale
        self.mean, self.std = colours(preprocessing.mean), colours(preprocessing.std)
        names = list(LAYERS)
        for name in names[: names.index(last) + 1]:
            self.register_buffer(f"{name}_bias", weights.biases[name].to(device, precision))
            kernel = weights.kernels[name].to(device, precision, memory_format=self.layout)
            if self.by_onednn and kernel.device.type == "cpu":
                self._laid_out[name] = onednn.laid_out(kernel)
            else:
                self.register_buffer(f"{name}_kernel", kernel)

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
        for name, after_it in zip(names, [*names[1:], ""], strict=True):
            down, across = tile.steps[name]
            border = tile.border(name)
            way = self._way(name, x.shape[2] + border[2] + border[3], x.shape[3] + border[0] + border[1])
            is_last = bool(after_it) and LAYERS[after_it].block > LAYERS[name].block  # of its block
            # Where pooling alone sees the features, the ReLU goes back with it: one pass, not two.
            joint = is_last and self._may_join and name not in wanted
            x = _Layer.apply(x, way, border, self.padding, name in wanted, joint)  # type: ignore[no-untyped-call]
            if name in wanted:
                yield name, _part(x, down.own, across.own).squeeze(0)
            x = _part(x, down.onward, across.onward)
            if is_last:
                x = _AveragePool.apply(x, True) if joint else self.pool(x)  # type: ignore[no-untyped-call]

    def _way(self, name: str, height: int, width: int) -> "_Way":
        """Return how a layer convolves what is so large, its border included."""
        bias = self.get_buffer(f"{name}_bias")
        if name in self._laid_out:
            laid_out = self._laid_out[name]
            return _Way(
                lambda x: onednn.convolve(x, laid_out.forward, bias),
                lambda gradient: onednn.pull(gradient, laid_out.back),
            )
        kernel = self.get_buffer(f"{name}_kernel")
        outputs, inputs = kernel.shape[:2]
        side = winograd.blocks(inputs, outputs, height, width) if self.by_winograd else 0
        if not side:
            shape = (1, inputs, height, width)
            return _Way(
                lambda x: functional.conv2d(x, kernel, bias).relu_(),
                lambda gradient: conv2d_input(shape, kernel, gradient),  # type: ignore[no-untyped-call]
            )
        if name not in self._prepared or self._prepared[name][0] != side:
            self._prepared[name] = side, winograd.PREPARED[side](kernel)
        _, prepared = self._prepared[name]
        if side == 2:
            return _Way(
                lambda x: winograd.convolve_small(x, prepared, bias).relu_(),
                lambda gradient: winograd.pull_small(gradient, prepared),
            )
        return _Way(
            lambda x: winograd.convolve(x, kernel, bias).relu_(),
            lambda gradient: winograd.pull(gradient, prepared),
        )

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
        """The memory that the weights take; asked on ``meta``. Laid out, they are there twice."""
        return sum(buffer.nbytes for buffer in self.buffers()) * (1 + self.by_onednn)

    @property
    def tensors(self) -> list[Tensor]:
        """The weights, and what Winograd made of them so far; what oneDNN made tells no size."""
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


def _part(features: Tensor, rows: slice, columns: slice) -> Tensor:
    """Return rows and columns of features; these themselves, where that is all of them."""
    for dim, part in ((2, rows), (3, columns)):
        if part.stop - part.start < features.shape[dim]:
            features = features.narrow(dim, part.start, part.stop - part.start)
    return features


class _Way(NamedTuple):
    """How a layer convolves, without padding: its features, and the gradient back through that.

    The gradient is of what was convolved, by what it is before the ReLU.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]


class _Layer(torch.autograd.Function):
    """Padding, convolution and ReLU; keeps where the features are positive, a byte for each.

    Weights get no gradient, so that of the input asks for nothing else. Features that are looked at are
    kept by who looks at them; then they are kept here, too, and take no more. In bf16 all are kept.
    ``joint``, a pooling does the ReLU's way back, and keeps what that takes.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        way: _Way,
        border: Border,
        padding: str,
        looked_at: bool,
        joint: bool,
    ) -> Tensor:
        y = way.forward(_pad(x, border, padding))
        if not joint:
            # Half as large, they are kept: torch is slow with bytes beside bf16.
            ctx.save_for_backward(y if looked_at or y.element_size() < 4 else y > 0)
        ctx.way, ctx.border, ctx.padding = way, border, padding
        ctx.looked_at, ctx.joint = looked_at, joint
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None, None]:  # noqa: ANN401
        left, right, top, bottom = ctx.border
        if not ctx.joint:
            (y,) = ctx.saved_tensors
            # Features that nobody looks at go one way, and their gradient is nobody else's.
            into = None if ctx.looked_at or not _is_dense(gradient) else gradient
            masked = _where if y.dtype == torch.bool else _thresholded
            gradient = masked(y, gradient, into)
            del into
        gradient = _folded(ctx.way.backward(gradient), 2, top, bottom, ctx.padding)
        return _folded(gradient, 3, left, right, ctx.padding), None, None, None, None, None


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def _where(positive: Tensor, gradient: Tensor, into: Tensor | None) -> Tensor:
    """Return the gradient where a byte says that features are positive, else zero."""
    if gradient.device.type != "cpu":
        return gradient * positive
    found = torch.empty_like(gradient) if into is None else into
    # Piece by piece: here torch turns bytes into numbers first.
    pieces = (x.chunk(_PIECES, 2) for x in (found, gradient, positive))
    for part, one, other in zip(*pieces, strict=True):
        torch.mul(one, other, out=part)
    return found


def _thresholded(features: Tensor, gradient: Tensor, into: Tensor | None) -> Tensor:
    """Return the gradient where features are positive, else zero."""
    if into is None:
        return torch.ops.aten.threshold_backward(gradient, features, 0)  # type: ignore[no-any-return]
    threshold = torch.ops.aten.threshold_backward.grad_input
    return threshold(gradient, features, 0, grad_input=into)  # type: ignore[no-any-return]


class _AveragePool(torch.autograd.Function):
    """Keeps nothing, where torch keeps the features: the gradient needs their shape alone.

    ``joint`` with the ReLU before it, it keeps them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, joint: bool) -> Tensor:  # noqa: ANN401
        if joint:
            ctx.save_for_backward(x)
        ctx.shape, ctx.joint, ctx.channels_last = x.shape, joint, _channels_last(x)
        return functional.avg_pool2d(x, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        if ctx.joint:
            return _spread(gradient, ctx.shape, *ctx.saved_tensors), None
        if ctx.channels_last:  # of which torch would make what is not, and slowly
            return _spread(gradient, ctx.shape), None
        like = gradient.new_empty(1).expand(ctx.shape)
        backward = torch.ops.aten.avg_pool2d_backward
        return backward(gradient, like, [2, 2], [2, 2], [0, 0], False, True, None), None


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _spread(gradient: Tensor, shape: torch.Size, features: Tensor | None = None) -> Tensor:
    """Return a quarter of the gradient in every cell of 2x2, channels last; zero in cells left over.

    With ``features``, zero also where these are not positive.
    """
    layout = torch.channels_last
    found = torch.empty(shape, dtype=gradient.dtype, device=gradient.device, memory_format=layout)
    down, across = gradient.shape[2:]
    found[:, :, 2 * down :] = 0
    found[:, :, :, 2 * across :] = 0
    quarter = gradient if features is None else gradient / 4
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cells = ..., slice(row, 2 * down, 2), slice(column, 2 * across, 2)
        if features is None:
            torch.mul(quarter, 0.25, out=found[cells])
        else:
            _thresholded(features[cells], quarter, found[cells])
    return found


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
