"""Figure 8: the learning rate.

Shows: The photograph in the manner of The Starry Night at alpha/beta = 1e-2 over 500 iterations of
Adam, for four learning rates. A rate is a step in units of the pixels' range, 0 to 1.

Command: impasto study figure-8 --pictures DIR --size 192

Takes: 2000 iterations, 500 of which figure-6 shares; 7 minutes at 192 px on two cores with --workers
2, after figure-6 5.

Look for: The larger the learning rate, the sooner the style, as the report says; and whether the
largest, a fifth of the range in a step, ends lower than the others.
"""

from collections.abc import Iterator

from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "recipes"]

PANELS = (("total", "iteration"),)


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield a film for each learning rate."""
    iterations = scaled(500, scale)
    styles = (pictures.styles["starry-night"],)
    for rate in (0.005, 0.02, 0.05, 0.2):
        recipe = report(size, iterations, alpha=1e-2, learning_rate=rate)
        row = f"learning rate {rate:g}"
        yield Cell(row, "", recipe, pictures.content, styles, along(iterations))
