"""Figure 3: the style of The Starry Night, over the iterations.

Shows: Style reconstruction from white noise at five layers, block1_conv1 to block5_conv1, each with w
= 1/5: 1000 iterations of Adam at 0.02, no photograph.

Command: impasto study figure-3 --pictures DIR --size 192

Takes: 1000 iterations, 3 minutes at 192 px on two cores with --workers 2.

Look for: What comes first, colours, strokes or swirls. Where they lie has nothing to do with where
they lie in the painting: sums over positions do not know places.
"""

from collections.abc import Iterator

from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "recipes"]

PANELS = (("style, relative to the start", "iteration"),)


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield one film."""
    iterations = scaled(1000, scale)
    style, title = pictures.styles["starry-night"], pictures.title("starry-night")
    yield Cell(title, "", report(size, iterations), None, (style,), along(iterations))
