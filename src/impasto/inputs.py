"""A run's pictures and masks, none larger than there is use for; and what writes its pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from impasto import cost, images, masks, provenance, schedule, styles
from impasto.errors import InputError
from impasto.jobs import Files
from impasto.objective import Regions
from impasto.provenance import Made
from impasto.recipe import Recipe, memory_bytes
from impasto.styles import SUFFIX, Style
from impasto.transfer import Pictures

__all__ = ["Reader", "Writer", "read", "sized"]


def sized(recipe: Recipe, content: Path | None, styles: Sequence[Path]) -> Recipe:
    """Return the recipe with a size in pixels: the photograph's, or else the painting's, for full."""
    if recipe.size != "full":
        return recipe
    like = next(path for path in (content, *styles) if path)
    if like.suffix == SUFFIX:
        raise InputError(f"--size full: {like} is a learned style; give a size, e.g. --size 512")
    return replace(recipe, size=images.long_side(like, schedule.SMALLEST_SIDE))


def read(recipe: Recipe, files: Files, start: Path | None) -> tuple[Pictures, "Writer"]:
    """Return a run's pictures and masks, none larger than needed, and what writes a picture of it."""
    recipe.weight_of_styles(len(files.styles))
    scales = recipe.scale_of_styles(len(files.styles))
    if files.style_mask and not files.content_mask:
        raise InputError("--style-mask needs --content-mask: which part is painted by which")
    reader = Reader(recipe)
    photograph = reader.photograph(files.content) if files.content else None
    content = photograph.picture if photograph else None
    read = tuple(map(reader.style, files.styles, scales))
    painting = next((style for style in read if not isinstance(style, Style)), None)
    parts = reader.regions(files.content_mask, content)
    of_style = reader.regions(files.style_mask, painting, *scales[:1])
    pictures = Pictures(
        content=content,
        styles=read,
        start=reader.picture(start) if start else None,
        regions=None if parts is None else Regions(parts, of_style),
        keep=reader.greys((files.keep,) if files.keep else (), content),
        strength=reader.greys((files.strength_map,) if files.strength_map else (), content),
    )
    if photograph is None:
        return pictures, Writer(files.bit_depth)
    return pictures, Writer(files.bit_depth, files.kept(photograph.metadata), photograph.alpha)


class Reader:
    """Reads a run's files, no larger than there is use for, each in the memory that the others leave."""

    def __init__(self, recipe: Recipe) -> None:
        """Have read nothing yet."""
        self.recipe = recipe
        self.taken = 0

    def picture(self, path: Path, scale: float = 1.0) -> Tensor:
        """Return a picture, or a style that is used at a ``scale`` of the finished picture's size."""
        return self.photograph(path, scale).picture

    def photograph(self, path: Path, scale: float = 1.0) -> images.Photograph:
        """Return a picture with what its file says of it."""
        smallest = schedule.SMALLEST_SIDE
        transparency = self.recipe.transparency
        found = images.read_photograph(path, self._longest(scale), smallest, self._left, transparency)
        self._counted(found.picture)
        return found

    def style(self, path: Path, scale: float) -> Tensor | Style:
        """Return a painting, or what was learned of one."""
        return styles.load(path) if path.suffix == styles.SUFFIX else self.picture(path, scale)

    def regions(self, paths: Sequence[Path], over: Tensor | None, scale: float = 1.0) -> Tensor | None:
        """Return regions ``over`` a picture: one file has flat colours, of several each is a weight."""
        if len(paths) != 1:
            return self.greys(paths, over, scale)
        return self._counted(images.read_regions(paths[0], self._size(over, scale), self._left))

    def greys(self, paths: Sequence[Path], over: Tensor | None, scale: float = 1.0) -> Tensor | None:
        """Return the weights of grey masks ``over`` a picture, ``[R, H, W]``."""
        size = self._size(over, scale)
        several = [self._counted(images.read_grey(path, size, self._left)) for path in paths]
        return masks.together(several) if several else None

    @property
    def _left(self) -> int | None:
        if self.recipe.memory == "auto":
            return None
        return memory_bytes(self.recipe.memory) - cost.BASE - self.taken

    def _longest(self, scale: float) -> int:
        # Sides may be rounded up to the next multiple of 16.
        return math.ceil(scale * max(self.recipe.sides)) + 16 * self.recipe.tileable

    def _size(self, over: Tensor | None, scale: float) -> tuple[int, int] | None:
        if over is None:
            return None
        _, height, width = over.shape
        return schedule.fitted(height, width, self._longest(scale))

    def _counted(self, read: Tensor) -> Tensor:
        self.taken += read.nbytes
        return read


@dataclass(frozen=True)
class Writer:
    """Writes a run's pictures: how deep, and with what is kept of the photograph's file."""

    bit_depth: int
    metadata: images.Metadata = images.NO_METADATA
    alpha: Tensor | None = None

    def __call__(self, picture: Tensor, path: Path, made: Made | None = None) -> None:
        """Write a picture, and in it how it was ``made``."""
        xmp = provenance.packed(made) if made else b""
        images.write(picture, path, self.bit_depth, self.metadata, self.alpha, xmp)
