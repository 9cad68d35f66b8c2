"""A style without its painting: summaries at some sizes, kept in a file and used where a picture is.

What a run needs of a painting are its summaries, some megabytes for any size of painting. They belong
to one network: its weights, pooling and padding stand beside them.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from impasto import files
from impasto.errors import InputError
from impasto.layers import LAYERS
from impasto.losses import STYLE_LOSSES, exact
from impasto.recipe import Recipe
from impasto.summaries import FOURIER, MOMENTS, SAMPLES, Place, Statistic

__all__ = ["SUFFIX", "Learned", "Made", "Style", "load", "save", "wanted"]

SUFFIX = ".safetensors"
"""How the name of a learned style ends."""

_HEADER = "impasto style"
_LARGEST = 1 << 30
_KEY = re.compile(
    r"(?P<height>[1-9]\d{0,5})x(?P<width>[1-9]\d{0,5})/(?P<statistic>[a-z]+)/(?P<layer>block\d_conv\d)"
)

_AS_LARGE = 1.05
"""Sizes that differ by less than this factor count as the same."""


@dataclass(frozen=True)
class Made:
    """The network that a style's summaries were taken with."""

    weights: str
    """SHA-256 of its weights."""
    pooling: str
    padding: str

    @classmethod
    def by(cls, recipe: Recipe, weights: str) -> "Made":
        """Return what a recipe makes of these weights."""
        return cls(weights, recipe.pooling, recipe.border)


class Learned(NamedTuple):
    """A style's summaries at one size, by statistic and layer, in float32."""

    summaries: Mapping[tuple[str, str], Tensor]

    def has(self, statistic: Statistic, layer: str) -> bool:
        """Say whether a layer's summary can be had."""
        return any((source.name, layer) in self.summaries for source in _sources(statistic))

    def take(self, statistic: Statistic, layer: str, seed: int, spread: float) -> Tensor:
        """Return a layer's summary in float64: as stored, a part of its moments, or from its samples.

        Random waves depend on ``seed`` and ``spread``, and a mix of styles has a spread of its own: of
        them the mean over the stored samples is taken, not over all positions.
        """
        (source,) = (one for one in _sources(statistic) if (one.name, layer) in self.summaries)
        found = exact(self.summaries[source.name, layer])
        if source is statistic:
            return found
        if source is MOMENTS:
            return _PARTS[statistic.name](found)
        features = found[:, None, :]
        return statistic.summarise(features, Place.whole(features, layer, seed, spread)) / found.shape[1]


_PARTS: dict[str, Callable[[Tensor], Tensor]] = {
    "gram": lambda moments: moments[:, :-1],
    "mean": lambda moments: moments[:, -1:],
    "squares": lambda moments: torch.stack([moments[:, -1], moments[:, :-1].diagonal()], dim=1),
}
"""Summaries that are parts of `MOMENTS`."""


def _sources(statistic: Statistic) -> tuple[Statistic, ...]:
    if statistic.name in _PARTS:
        return (MOMENTS,)
    return (SAMPLES,) if statistic is FOURIER else (statistic,)


def wanted(recipe: Recipe) -> dict[str, tuple[Statistic, ...]]:
    """Return by layer what is stored of a style: moments always, and what the style losses need more.

    Example:
        >>> [one.name for one in wanted(Recipe(style_loss=("gram", "sliced")))["block1_conv1"]]
        ['moments', 'samples']
    """
    needed = [source for name in recipe.style_loss for source in _sources(STYLE_LOSSES[name].statistic)]
    kept = {one.name: one for one in (MOMENTS, *needed)}
    return dict.fromkeys(recipe.style_layers, tuple(kept.values()))


@dataclass(frozen=True)
class Style:
    """A learned style: its name for messages, the network it was made by, its summaries by size."""

    name: str
    made: Made
    sizes: Mapping[tuple[int, int], Learned]

    @property
    def size(self) -> tuple[int, int]:
        """The largest (height, width) that it was learned at."""
        return max(self.sizes, key=max)

    def at(self, size: tuple[int, int]) -> Learned:
        """Return the summaries of the size that is nearest."""
        return self.sizes[self._nearest(size)]

    def _nearest(self, size: tuple[int, int]) -> tuple[int, int]:
        return min(self.sizes, key=lambda have: abs(math.log(max(have) / max(size))))

    def note(self, sizes: Sequence[tuple[int, int]]) -> str:
        """Say, if so, that a run wants it larger or smaller than it was learned; else nothing."""
        off = [size for size in sizes if not 1 / _AS_LARGE < self._off(size) < _AS_LARGE]
        if not off:
            return ""
        have, want = (" and ".join(str(max(size)) for size in several) for several in (self.sizes, off))
        used = max(self._nearest(off[-1]))
        return (
            f"{self.name} was learned at {have} px and is wanted at {want} px: "
            f"strokes are those of {used} px; for others learn it with --size {max(off[-1])}"
        )

    def _off(self, size: tuple[int, int]) -> float:
        return max(self._nearest(size)) / max(size)

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe that asks for what was not learned.

        Raises:
            InputError: as above.
        """
        again = "learn it again with the options of this run, or give the painting itself"
        for field in ("pooling", "padding"):
            have, asked = getattr(self.made, field), getattr(Made.by(recipe, ""), field)
            if have != asked:
                raise InputError(f"{self.name} was learned with --{field} {have}, not {asked}; {again}")
        some = self.at(self.size)
        for name in recipe.style_loss:
            for layer in recipe.style_layers:
                if not some.has(STYLE_LOSSES[name].statistic, layer):
                    at = "" if any(key[1] == layer for key in some.summaries) else f" at {layer}"
                    raise InputError(f"{self.name} was not learned for --style-loss {name}{at}; {again}")

    def check_network(self, sha256: str, channels: Callable[[str], int]) -> None:
        """Refuse weights that it was not learned with, and summaries that are not of their channels.

        Raises:
            InputError: as above.
        """
        if self.made.weights != sha256:
            raise InputError(
                f"{self.name} was learned with other --weights (SHA-256 {self.made.weights[:12]}...); "
                "use those, or learn it again"
            )
        for learned in self.sizes.values():
            for (statistic, layer), summary in learned.summaries.items():
                rows, width = len(summary), channels(layer)
                # Columns and patches have several cells of each channel.
                if rows % width or (statistic == MOMENTS.name and rows != width):
                    raise InputError(
                        f"{self.name} is damaged: {statistic} of {layer} are of another width"
                    )


def save(style: Style, path: Path) -> None:
    """Write a style as safetensors: float32 summaries, and as one JSON header how they were made.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    from safetensors.torch import save as serialise

    tensors = {
        f"{height}x{width}/{statistic}/{layer}": summary.contiguous()
        for (height, width), learned in style.sizes.items()
        for (statistic, layer), summary in learned.summaries.items()
    }
    # One entry, as the library does not promise an order of several: same style, same bytes.
    content = serialise(tensors, {_HEADER: json.dumps(asdict(style.made))})
    with files.atomic_write(path) as file:
        file.write(content)


def load(path: Path) -> Style:
    """Read a style that `save` wrote.

    Raises:
        InputError: the file is missing, damaged, or none.
    """
    from safetensors import SafetensorError, safe_open

    sizes: dict[tuple[int, int], dict[tuple[str, str], Tensor]] = {}
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file; give a style file")
        if path.stat().st_size > _LARGEST:
            raise InputError(
                f"the style {path} is over {_LARGEST >> 20} MiB; learn fewer sizes or losses"
            )
        with safe_open(path, framework="pt") as file:
            made = _made((file.metadata() or {})[_HEADER])
            for key in file.keys():  # noqa: SIM118 (no mapping)
                words = _KEY.fullmatch(key)
                if words is None or words["layer"] not in LAYERS:
                    raise ValueError(f"{key!r} names no summary")
                summary = file.get_tensor(key).clone()  # or it would change with the file
                _check_summary(key, words["statistic"], summary)
                size = int(words["height"]), int(words["width"])
                sizes.setdefault(size, {})[words["statistic"], words["layer"]] = summary
        if len({tuple(found) for found in sizes.values()}) != 1:
            raise ValueError("its sizes hold other summaries than each other, or there is none")
    except OSError as error:
        raise InputError(f"cannot read the style {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"cannot read the style {path}: damaged, or not what `impasto style learn` writes ({error})"
        ) from None
    return Style(str(path), made, {size: Learned(found) for size, found in sorted(sizes.items())})


def _made(header: str) -> Made:
    said = json.loads(header)
    if not (isinstance(said, dict) and all(isinstance(word, str) for word in said.values())):
        raise ValueError("its header is not of words")
    return Made(**said)


def _check_summary(key: str, statistic: str, summary: Tensor) -> None:
    if summary.ndim != 2 or not summary.numel() or summary.dtype != torch.float32:
        raise ValueError(f"{key} is no summary")
    if not summary.isfinite().all():
        raise ValueError(f"{key} is not finite")
    if statistic == MOMENTS.name and summary.shape[1] != summary.shape[0] + 1:
        raise ValueError(f"{key} are no moments")
