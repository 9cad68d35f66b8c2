"""What a level costs: bytes counted from tensors, seconds from a short measurement.

Nothing is decided here.
"""

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from impasto import color, layers, tiles, weights
from impasto.masks import at_layer
from impasto.memory import Count
from impasto.objective import Looks, Needs, needs, pull, see
from impasto.recipe import Recipe
from impasto.tiles import Cut
from impasto.vgg import VGG19

__all__ = ["BASE", "FINISHING", "NO_MASKS", "Costs", "Masks", "Windows"]

Size = tuple[int, int]
Shape = tuple[int, int, int]

BASE = (330 if torch.version.cuda is None else 690) << 20
"""Bytes of a process before the first picture: Python, torch (built for CUDA, more), what they load."""

FINISHING = 4
"""Pictures made, most in between, when one is finished: the photograph at its size, and changes."""

_KEPT_SUMMARIES, _MOST_SUMMARIES = 3, 6
"""How often the summaries are held in float64: targets, derivatives; and with them what distances keep.

Counted at eight regions: 2 to 3, and 5 to 6 (wasserstein).
"""

_SAMPLES = (256, 768)
"""Sides of the windows that are counted; others lie on the line through them."""

_FLOAT = torch.float32.itemsize

_TIMED = 512
"""The longest side of the window that is timed."""

_EVALUATIONS = 1.04
"""Evaluations for each iteration: a line search now and then needs a second one."""


class Windows(NamedTuple):
    """The windows of a cut picture: how many, their pixels together, the largest one's sides."""

    number: int
    pixels: int
    largest: Size


class Masks(NamedTuple):
    """The shapes ``(R, height, width)`` of a run's masks as they were read, None where there is none."""

    content: Shape | None = None
    style: Shape | None = None
    keep: Shape | None = None
    strength: Shape | None = None

    @property
    def regions(self) -> int:
        """The number of regions."""
        return self.content[0] if self.content else 0

    @property
    def bytes(self) -> int:
        """The memory that all of them take."""
        return _FLOAT * sum(math.prod(shape) for shape in self if shape)

    @property
    def remembered(self) -> int:
        """The memory of those that the finished picture needs."""
        return Masks(keep=self.keep, strength=self.strength).bytes

    def placed(self, size: Size, styles: Sequence[Size]) -> int:
        """Return the bytes that regions take beyond those, at the sizes of a level."""
        pairs = zip((self.content, self.style), (size, *styles), strict=False)
        return _FLOAT * sum(shape[0] * math.prod(at) for shape, at in pairs if shape and shape[1:] != at)


NO_MASKS = Masks()


@dataclass(frozen=True)
class Costs:
    """The costs of a recipe in one precision, for these layers and so many regions."""

    recipe: Recipe
    precision: torch.dtype
    by_winograd: bool
    looks: Looks
    regions: int = 0

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that are looked at."""
        return self.looks.layers

    # --- bytes ----------------------------------------------------------------------------------

    @functools.cached_property
    def network(self) -> VGG19:
        """The network without its memory."""
        return self._network(weights.imagined("meta"), "meta")

    def _network(self, parameters: weights.Weights, device: torch.device | str) -> VGG19:
        return VGG19.of(self.recipe, parameters, self.precision, device, self.by_winograd)

    @functools.cached_property
    def _counted(self) -> tuple[Needs, Needs]:
        one, other = (self._needs(side) for side in _SAMPLES)
        return one, other

    def _needs(self, side: int) -> Needs:
        (tile,) = tiles.cut((side, side), self.layers)
        return needs(self.network, tile, self._of_regions(tile.size))

    def _of_regions(self, size: Size) -> Looks:
        """Return what is looked at, of so many regions, stripes of a picture of this size."""
        if not self.regions:
            return self.looks
        names = [name for name in self.looks.summaries if name in self.recipe.style_layers]
        grids = {name: _stripes(self.regions, *tiles.extent(size, name)) for name in names}
        return replace(self.looks, regions=grids)

    def weights(self, size: Size) -> tuple[int, int]:
        """Return the bytes of the regions' weights on the layers' grids, and what making them takes."""
        if not self.regions:
            return 0, 0
        names = self.recipe.style_layers
        cells = sum(math.prod(tiles.extent(size, name)) for name in names)
        return _FLOAT * self.regions * cells, _spreading(size, names, self.recipe.mask_spread)

    def window(self, size: Size) -> Needs:
        """Return the bytes of a window of this size: a fixed part, and a part for every pixel."""
        small, large = (side * side for side in _SAMPLES)
        share = (size[0] * size[1] - small) / (large - small)
        return Needs(*(int(a + share * (b - a)) for a, b in zip(*self._counted, strict=True)))

    def picture(self, size: Size) -> int:
        """Return the bytes of one picture."""
        return 3 * size[0] * size[1] * self.network.real.itemsize

    def targets(self, size: Size) -> int:
        """Return the bytes of the content's features."""
        cells = (tiles.extent(size, name) for name in self.looks.content)
        widths = (layers.LAYERS[name].channels for name in self.looks.content)
        return self.precision.itemsize * sum(
            width * height * across for width, (height, across) in zip(widths, cells, strict=True)
        )

    def fixed(self, windows: Windows) -> int:
        """Return the bytes of a process that computes such windows, but for the windows' tensors."""
        return BASE + self.network.bytes + self.network.workspace(*windows.largest)

    def memory(
        self,
        size: Size,
        held: int,
        making: int,
        cut: Cut,
        inputs: Sequence[Size],
        styles: Sequence[Size],
        last: bool,
        ranks: int = 1,
        masks: Masks = NO_MASKS,
        snapshots: Size | None = None,
    ) -> int:
        """Return the most bytes that all processes of a run hold on a level.

        ``held`` are the optimiser's tensors of a picture's size, ``making`` those that it makes besides
        while no window is looked at, ``styles`` as large as on this level,
        ``inputs`` the pictures and the ``masks`` as they were read, kept until the ``last`` level
        has its targets; what the finished picture needs of them, until the end. ``snapshots`` of steps
        are finished like the result, at this size.

        Raises:
            InputError: circular padding, and a picture or a style cannot be cut so.
        """
        windows = self.windows(size, cut)
        one = self.window(windows.largest)
        seen = [windows, *(self.windows(style, cut) for style in styles)]
        look = max(self.window(part.largest).look for part in seen) + _KEPT_SUMMARIES * one.sums
        fixed = max(self.fixed(part) for part in seen)
        read = sum(map(self.picture, inputs)) + masks.bytes
        placed = sum(map(self.picture, (size, *styles)))
        scaled = sum(self.picture(style) for style in styles if style not in inputs)
        regions = masks.placed(size, styles)
        grids, spreading = self.weights(size)
        style_grids, style_spreading = self.weights(styles[0]) if masks.style else (0, 0)
        kept = min(cut.keep, -(-windows.number // ranks)) - 1
        # Until the end of the level: the content's features, the regions' weights, where pixels stay.
        lasting = 0 if cut.on_disk else self.targets(size)
        lasting += ranks * grids + bool(masks.keep) * math.prod(size)
        aiming = (read + scaled if last else read + placed) + regions + lasting
        aiming += max(spreading, style_grids + style_spreading, ranks * (style_grids + look))
        aiming += (ranks - 1) * (placed + regions)
        if self.recipe.color_method == "luminance":  # seen in grey, remembered in colour
            aiming += self.picture(size)
        descending = (masks.remembered if last else read) + lasting + held * self.picture(size)
        descending += (ranks - 1) * self.picture(size) + ranks * _KEPT_SUMMARIES * one.sums
        window = max(one.pull, one.kept + (_MOST_SUMMARIES - _KEPT_SUMMARIES) * one.sums)
        descending += max(ranks * (kept * one.kept + window), making * self.picture(size))
        # At the end the last step and the best are there, at a snapshot all that the optimiser holds.
        finishing = masks.remembered + lasting + 2 * self.picture(size) + self._finishing(size, masks)
        if snapshots:
            saving = (masks.remembered if last else read) + lasting + held * self.picture(size)
            finishing = max(finishing, saving + self._finishing(snapshots, masks))
        recoloured = self.recipe.color == "match" or self.recipe.color_method == "luminance"
        recolouring = 2 * read + color.ROOM if recoloured else 0
        return ranks * fixed + max(recolouring, aiming, descending, finishing)

    def _finishing(self, size: Size, masks: Masks) -> int:
        """Return the bytes that are taken to finish a picture, or only to enlarge and write it."""
        changes = self.recipe.denoise or self.recipe.color == "content" or masks.remembered
        picture = 3 * _FLOAT * math.prod(size)
        return FINISHING * picture + color.ROOM if changes else 2 * picture

    def windows(self, size: Size, cut: Cut) -> Windows:
        """Return the windows that a picture is cut into."""
        return _windows(size, self.layers, cut.tile, self.recipe.border)

    # --- seconds --------------------------------------------------------------------------------

    def pace(self, largest: Size, device: torch.device) -> tuple[float, float]:
        """Return seconds per pixel of a look at a window, and of a gradient: the better of two tries."""
        height, width = (min(_TIMED, side) for side in largest)
        network = self._network(weights.imagined("cpu"), device)
        picture = torch.rand(3, height, width, device=device, dtype=network.real)
        (tile,) = tiles.cut((height, width), self.layers)
        wanted = self._of_regions(tile.size)
        looks, pulls = [], []
        for _ in range(3):
            began = time.perf_counter()
            see(network, picture, tile, wanted)
            looks.append(_since(began, device))
            began = time.perf_counter()
            view = see(network, picture, tile, wanted, graph=True)
            whole = [found.sum().double() for found in view.features.values()]
            pull(view, view.parts, sum(whole, torch.zeros((), dtype=torch.float64)))
            pulls.append(_since(began, device))
        return min(looks[1:]) / (height * width), min(pulls[1:]) / (height * width)

    def seconds(
        self,
        size: Size,
        iterations: int,
        cut: Cut,
        styles: Sequence[Size],
        pace: tuple[float, float],
    ) -> float:
        """Return the seconds of a level at this pace."""
        look, gradient = pace
        windows = self.windows(size, cut)
        kept = min(cut.keep, windows.number) / windows.number
        evaluation = windows.pixels * (gradient + look * (1 - kept if self.looks.summaries else 0))
        aimed = windows.pixels if self.looks.content else 0
        aimed += sum(self.windows(style, cut).pixels for style in styles)
        return aimed * look + (_EVALUATIONS * iterations + 1) * evaluation


@functools.cache
def _windows(size: Size, names: tuple[str, ...], tile: Size | None, padding: str) -> Windows:
    rows, columns = tiles.spans(size, names, tile, padding)
    down, across = [span.length for span in rows], [span.length for span in columns]
    return Windows(len(down) * len(across), sum(down) * sum(across), (max(down), max(across)))


@functools.cache
def _spreading(size: Size, names: tuple[str, ...], spread: str) -> int:
    region = torch.empty(1, *size, device="meta")
    with Count() as count:
        for name in names:
            at_layer(region, name, spread)
    return int(count.peak)


def _stripes(regions: int, height: int, width: int) -> Tensor:
    """Return as many regions of equal size, ``[R, height, width]``, that take next to no memory."""
    rows = torch.arange(height) * regions // height
    return (rows == torch.arange(regions)[:, None]).float()[:, :, None].expand(-1, -1, width)


def _since(began: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
