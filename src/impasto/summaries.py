"""What is summed over positions: features ``[N, h, w]`` in, a small statistic out.

A summary is additive: the summary of a picture is the sum of its parts' summaries, however it was
cut. Sums are taken in float32 at least, whatever the precision of the features.
"""

import contextlib
import math
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from impasto.layers import LAYERS, stride
from impasto.tiles import Span

__all__ = [
    "COLUMNS",
    "FOURIER",
    "GRAM",
    "MEAN",
    "MOMENTS",
    "PATCHES",
    "SAMPLES",
    "SQUARES",
    "Place",
    "Statistic",
    "as_matrix",
    "columns",
    "fourier",
    "gram",
    "mean",
    "moments",
    "patches",
    "points",
    "samples",
    "squares",
]

_SAMPLES, _CHANNELS = 2048, 512
"""About so many positions stand for all, where a sum ends and a comparison of positions begins: where a
layer has so many channels. Finer ones have fewer, and more positions."""

_PATCH = 3
"""The side of a patch, in cells of its layer."""

_FIELD = 4
"""A hypercolumn sees so many pixels, down and across; in layers that are finer, several cells."""

_CHUNK = 1 << 20
"""Waves are taken of so many numbers at a time: few enough to stay in a processor's cache."""

_SETTING = threading.Lock()


class Place(NamedTuple):
    """Where features come from: the cells of a layer that a tile owns, and all of the picture's.

    ``seed`` draws what is random, ``spread`` is the variance of the style's features at this layer.
    ``region`` are weights ``[h, w]`` of all the cells, where they do not count alike; ``anchor``
    those on one layer's grid that says for all layers which places belong to it.
    """

    layer: str
    rows: Span
    columns: Span
    size: tuple[int, int]
    seed: int = 0
    spread: float = 1.0
    region: Tensor | None = None
    anchor: Tensor | None = None

    @property
    def weights(self) -> Tensor | None:
        """The region's weights of the cells that the tile owns, ``[h, w]``."""
        if self.region is None:
            return None
        return self.region[self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]

    @classmethod
    def whole(cls, features: Tensor, layer: str = "", seed: int = 0, spread: float = 1.0) -> "Place":
        """Return the place of an uncut picture's features."""
        _, height, width = features.shape
        return cls(layer, Span(0, height), Span(0, width), (height, width), seed, spread)


class Statistic(NamedTuple):
    """A kind of summary: how a part of a picture is summed, and the sum's shape for N channels.

    Of a ``mean`` the sum is divided by the number of positions; others are of as many positions for
    every picture. ``mix`` makes one target of several styles' and their shares.
    """

    name: str
    summarise: Callable[[Tensor, Place], Tensor]
    shape: Callable[[int, Place], tuple[int, ...]]
    mean: bool = True

    def mix(self, summaries: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        """Return one summary for several styles: a weighted mean, or samples in these shares."""
        if self.mean:
            return torch.stack([share * one for one, share in zip(summaries, shares, strict=True)]).sum(
                0
            )
        count = sum(share * one.shape[-1] for one, share in zip(summaries, shares, strict=True))
        done, parts = 0.0, []
        for one, share in zip(summaries, shares, strict=True):
            taken = max(int(share > 0), round((done + share) * count) - round(done * count))
            parts.append(one[..., torch.linspace(0, one.shape[-1] - 1, taken).round().long()])
            done += share
        return torch.cat(parts, dim=-1)


def as_matrix(features: Tensor) -> Tensor:
    """Return features ``[N, h, w]`` as the paper's F: ``[N, M]``, N channels at M positions."""
    return features.flatten(1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def mean(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sum of the features over positions, ``[N, 1]``.

    Here as below, ``weights`` ``[h, w]`` say how much a position counts; without them each counts 1.

    Example:
        >>> mean(torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])).tolist()
        [[3.0], [3.0]]
    """
    return as_matrix(_weighted(features, weights)).sum(1, keepdim=True, dtype=_wide(features.dtype))


def _weighted(features: Tensor, weights: Tensor | None) -> Tensor:
    return features if weights is None else features * weights.to(features)


def squares(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sums of the features and of their squares, ``[N, 2]``.

    Example:
        >>> squares(torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])).tolist()
        [[3.0, 5.0], [3.0, 9.0]]
    """
    wide = features.to(_wide(features.dtype))
    both = as_matrix(_weighted(wide, weights)), as_matrix(_weighted(wide.square(), weights))
    return torch.stack([one.sum(1) for one in both], dim=1)


def gram(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the Gram matrix G = F F^T, ``[N, N]``, of features ``[N, h, w]``.

    Equation 2 of the report: G_ij = sum_k F_ik F_jk, with weights sum_k w_k F_ik F_jk. It forgets
    where a feature was and keeps which features occur together.

    Reference: Gatys et al., "A Neural Algorithm of Artistic Style" (2015).

    Example:
        >>> gram(torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])).tolist()
        [[5.0, 6.0], [6.0, 9.0]]
    """
    return _Gram.apply(features, weights)  # type: ignore[no-any-return, no-untyped-call]


def moments(features: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return Gram matrix and sum side by side, ``[N, N + 1]``: first and second moments.

    Example:
        >>> moments(torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])).tolist()
        [[5.0, 6.0, 3.0], [6.0, 9.0, 3.0]]
    """
    return torch.cat([gram(features, weights), mean(features, weights)], dim=1)


def fourier(features: Tensor, place: Place) -> Tensor:
    """Return the sums of random waves of the features, ``[2 N, 1]``.

    phi(f) = (cos(w_1 f), ..., cos(w_N f), sin(w_1 f), ..., sin(w_N f)) / sqrt(N) with
    w_d ~ N(0, I / spread), drawn once for (seed, layer). Scalar products of mean waves are, but for an
    error of order 1 / sqrt(N), those of the Gaussian kernel exp(-||f - g||^2 / (2 spread)).

    Reference: Rahimi and Recht, "Random Features for Large-Scale Kernel Machines" (2007). Cosine and
    sine of the same wave, after Sutherland and Schneider, "On the Error of Random Fourier Features"
    (2015), are half the work of as many cosines with random shifts.

    Example:
        >>> features = torch.rand(4, 5, 6)
        >>> fourier(features, Place.whole(features)).shape
        torch.Size([8, 1])
    """
    wide, channels = _wide(features.dtype), len(features)
    if features.device.type == "meta":
        turns = torch.empty(channels, channels)
    else:
        generator = _generator(place.seed, place.layer)
        turns = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
        turns /= math.sqrt(place.spread)
    turns = turns.to(features.device, wide)
    weights = None if place.weights is None else place.weights.flatten().to(features.device, wide)
    found: Tensor = _Waves.apply(features, turns, weights)  # type: ignore[no-untyped-call]
    return found[:, None] / math.sqrt(channels)


def samples(features: Tensor, place: Place) -> Tensor:
    """Return the features at some positions of the picture, ``[N, n]``; 0 where they are another tile's.

    Of a region, those are left out that belong to it by less than half (or than its best, if that is
    less). The positions are the same for every way to cut the picture: see `points`. A gather is a sum
    of one-hot vectors, so that parts add up to the whole.

    Example:
        >>> features = torch.rand(4, 5, 6)
        >>> sorted(samples(features, Place.whole(features))[0].tolist()) == sorted(
        ...     features[0].flatten().tolist())  # a small picture's are all taken
        True
    """
    return _gathered(features, place, *points(place))


def patches(features: Tensor, place: Place) -> Tensor:
    """Return the features of 3x3 cells at some positions of the picture, ``[9 N, n]``.

    As `samples`, of the patches that lie inside the layer; one narrower than a patch repeats its last
    cell.

    Example:
        >>> features = torch.rand(4, 5, 6)
        >>> patches(features, Place.whole(features)).shape  # 3x4 of them lie inside
        torch.Size([36, 12])
    """
    return _gathered(features, place, *points(place, _PATCH), _PATCH)


def columns(features: Tensor, place: Place) -> Tensor:
    """Return the features at some 2048 places that are the same in every layer, ``[N s^2, n]``.

    As `samples`; with its cells of all layers, a place is a hypercolumn. Where a layer is finer than 4x4
    pixels, all s x s cells of such a field are stacked: their mean would leave open what they are.

    Example:
        >>> features = torch.rand(4, 50, 60)
        >>> columns(features, Place.whole(features, "block2_conv1")).shape
        torch.Size([16, 2025])
    """
    side = _field(place)
    return _gathered(features, place, *points(place, side, joint=True), side)


def _gathered(features: Tensor, place: Place, rows: Tensor, columns: Tensor, side: int = 1) -> Tensor:
    """Return squares of ``side`` x ``side`` cells from these corners on, stacked, ``[N side^2, n]``.

    Their cells may be several tiles': each adds its own. Beyond the picture, its last cell is repeated.
    """
    height, width = place.rows.length, place.columns.length
    cells = torch.arange(side**2)[:, None]
    down = (rows + cells // side).clamp(max=place.size[0] - 1) - place.rows.start
    across = (columns + cells % side).clamp(max=place.size[1] - 1) - place.columns.start
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    (where,) = inside.flatten().nonzero(as_tuple=True)
    index = (down * width + across).flatten()[where].to(features.device)
    found = features.new_zeros(len(features), inside.numel(), dtype=_wide(features.dtype))
    part = as_matrix(features).index_select(1, index).to(found.dtype)
    return found.index_add(1, where.to(features.device), part).view(-1, len(rows))


def _field(place: Place) -> int:
    """Return the side of the fields that a hypercolumn sees, in cells of a layer."""
    return max(1, _FIELD // stride(place.layer)) if place.layer else 1


def points(place: Place, side: int = 1, joint: bool = False) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the positions that are sampled, on the whole picture's grid.

    One is drawn by chance from each field of a grid: (seed, layer) decide, and where a layer has fewer
    positions all are taken, each once. Every layer gives about as many numbers, block1 16384 positions
    and block4 2048: what no position sees is free, and in a fine layer a position sees little. With a
    ``side``, they are a quarter as many corners of squares of so many cells. ``joint``, they are the
    same 2048 places of the picture in every layer, corners of fields of ``side`` cells; deep cells may
    be taken several times.
    """
    if joint:
        height, width = (max(1, length // side) for length in place.size)
        down = across = math.isqrt(_SAMPLES)
    else:  # a side with fewer cells than fields leaves fields to the other
        height, width = (max(1, length - side + 1) for length in place.size)
        count = _SAMPLES * _CHANNELS // (LAYERS[place.layer].channels if place.layer else _CHANNELS)
        count //= 4 if side > 1 else 1  # squares overlap
        down = max(1, round(math.sqrt(count * height / width)))
        across = min(width, max(1, count // down))
        down = min(height, count // across)
        across = min(width, count // down)
    generator = _generator(place.seed, "" if joint else place.layer)
    chance = torch.rand(2, down, across, generator=generator, dtype=torch.float64)

    def on(height: int, width: int) -> tuple[Tensor, Tensor]:
        rows = _drawn(height, down, chance[0], joint).flatten()
        return rows, _drawn(width, across, chance[1].T, joint).T.flatten()

    rows, columns = on(height, width)
    if joint:
        rows, columns = side * rows, side * columns
    region = place.anchor if joint else place.region
    if region is None:
        return rows, columns
    if joint:
        weights = region.cpu()[on(region.shape[0], region.shape[1])]
    else:  # a square's middle
        weights = region.cpu()[
            (rows + side // 2).clamp(max=place.size[0] - 1),
            (columns + side // 2).clamp(max=place.size[1] - 1),
        ]
    inside = weights >= min(0.5, weights.max().item())
    return rows[inside], columns[inside]


def _drawn(length: int, fields: int, chance: Tensor, joint: bool) -> Tensor:
    """Return a cell of each of the fields along a side of ``length`` cells, ``[fields, others]``."""
    edges = torch.arange(fields + 1, dtype=torch.float64) * length / fields
    if not joint:  # no cell in two fields
        edges = edges.floor()
    low, high = edges[:-1, None], edges[1:, None]
    return (low + chance * (high - low)).floor().long().clamp_(max=length - 1)


def _generator(seed: int, layer: str) -> torch.Generator:
    return torch.Generator().manual_seed((seed + zlib.crc32(layer.encode())) % 2**63)


class _Gram(torch.autograd.Function):
    """Keeps the features as they lie, not the copy in float32, in one piece or weighted for the product.

    G = F diag(w) F^T has the gradient (g + g^T) F diag(w): a layer's regions all keep its features.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(features, weights)
        if weights is None:
            return _product_with_itself(as_matrix(features))
        matrix = _wide_matrix(features)
        matrix = matrix * weights.flatten().to(matrix).sqrt()
        return matrix @ matrix.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        features, weights = ctx.saved_tensors
        pulls, matrix = (gradient + gradient.T).to(features.dtype), as_matrix(features)
        # The result lies as the features do: by rows, or with the channels last.
        pulled = pulls @ matrix if matrix.is_contiguous() else (matrix.T @ pulls).T
        if weights is not None:
            pulled *= weights.flatten().to(pulled)
        return pulled.view(features.shape), None


class _Waves(torch.autograd.Function):
    """Sums cos(W f) and sin(W f) over positions, in chunks: D M numbers are never held at a time."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, turns: Tensor, weights: Tensor | None) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(features, turns, weights)
        cosines, sines = torch.zeros_like(turns[:, 0]), torch.zeros_like(turns[:, 0])
        matrix, step = as_matrix(features), _CHUNK // len(turns)
        for start in range(0, matrix.shape[1], step):
            phases = turns @ matrix[:, start : start + step].to(turns.dtype)
            for total, waves in ((cosines, phases.cos()), (sines, phases.sin_())):
                total += waves.sum(1) if weights is None else waves @ weights[start : start + step]
        return torch.cat([cosines, sines])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        features, turns, weights = ctx.saved_tensors
        matrix, step = as_matrix(features), _CHUNK // len(turns)
        pulled = torch.empty_like(matrix)
        by_cosines, by_sines = gradient[:, None].chunk(2)
        for start in range(0, matrix.shape[1], step):
            phases = turns @ matrix[:, start : start + step].to(turns.dtype)
            slopes = phases.cos().mul_(by_sines).addcmul_(phases.sin_(), by_cosines, value=-1)
            pulled[:, start : start + step] = turns.T @ slopes
        if weights is not None:
            pulled *= weights
        return pulled.view(features.shape), None, None


def _product_with_itself(matrix: Tensor) -> Tensor:
    """Return F F^T in float32 at least."""
    if matrix.dtype != torch.bfloat16:
        return matrix @ matrix.T
    found = torch.zeros(len(matrix), len(matrix), device=matrix.device)
    step = max(1, _CHUNK // len(matrix))
    with _by_bf16() if matrix.device.type == "cpu" else contextlib.nullcontext():
        for start in range(0, matrix.shape[1], step):
            wide = matrix[:, start : start + step].float()
            found.addmm_(wide, wide.T)
    return found


@contextlib.contextmanager
def _by_bf16() -> Iterator[None]:
    """Multiply matrices in float32 by bf16 instructions: exactly, if their numbers are bf16 already.

    The instructions add up in float32; what they give for matrices in bf16, torch rounds to bf16.
    The setting is the process': other threads that multiply meanwhile do so by bf16, too.
    """
    settings = getattr(torch.backends.mkldnn, "matmul", None)  # since torch 2.9
    if settings is None:
        yield
        return
    with _SETTING:  # or what one thread has set were what another one finds, and leaves
        before = settings.fp32_precision
        try:
            settings.fp32_precision = "bf16"
            yield
        finally:
            settings.fp32_precision = before


def _wide_matrix(features: Tensor) -> Tensor:
    return as_matrix(features).to(_wide(features.dtype))


MEAN = Statistic("mean", lambda f, place: mean(f, place.weights), lambda n, _: (n, 1))
SQUARES = Statistic("squares", lambda f, place: squares(f, place.weights), lambda n, _: (n, 2))
GRAM = Statistic("gram", lambda f, place: gram(f, place.weights), lambda n, _: (n, n))
MOMENTS = Statistic("moments", lambda f, place: moments(f, place.weights), lambda n, _: (n, n + 1))
FOURIER = Statistic("fourier", fourier, lambda n, _: (2 * n, 1))
SAMPLES = Statistic("samples", samples, lambda n, place: (n, len(points(place)[0])), mean=False)
PATCHES = Statistic(
    "patches", patches, lambda n, place: (n * _PATCH**2, len(points(place, _PATCH)[0])), mean=False
)
COLUMNS = Statistic(
    "columns",
    columns,
    lambda n, place: (n * _field(place) ** 2, len(points(place, joint=True)[0])),
    mean=False,
)
