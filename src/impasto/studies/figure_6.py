"""Figure 6: the ratio alpha/beta.

Shows: The photograph in the manner of The Starry Night for alpha/beta of 1e-4 to 1e-1: 500 iterations
of Adam at 0.02 from white noise, all five style layers.

Command: impasto study figure-6 --pictures DIR --size 192

Takes: 2000 iterations, 8 minutes at 192 px on two cores with --workers 2.

Look for: The smaller alpha/beta, the less content. The report found 1e-3 and 1e-2 best. The ratio is
of raw sums, which depend on the size of the picture: at another size the same look has another ratio
(study size).
"""

from collections.abc import Iterator

from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["recipes"]


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield a picture for each ratio."""
    iterations = scaled(500, scale)
    styles = (pictures.styles["starry-night"],)
    for ratio in (1e-4, 1e-3, 1e-2, 1e-1):
        recipe = report(size, iterations, alpha=ratio)
        column = f"alpha/beta = {ratio:.0e}".replace("e-0", "e-")
        yield Cell("", column, recipe, pictures.content, styles, along(iterations))
