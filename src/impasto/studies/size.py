"""Size: one recipe at three sizes, under two weightings.

Shows: The photograph in the manner of The Starry Night at half the size, the size and twice the size
of the study. Above in balanced weighting, the default recipe; below in the report's raw sums with
alpha/beta = 1e-2. 100 iterations of L-BFGS from the photograph, at one level.

Command: impasto study size --pictures DIR --size 192

Takes: 600 iterations, a third of them on four times the pixels; a fifth of them (--iterations-scale
0.2) 1 minute at 192 px on two cores with --workers 2.

Look for: Strokes have the same number of pixels at every size, so a larger picture has more and finer
ones. The balance of content and style stays in the upper row, and moves with the size in the lower
one. Measures of different sizes are not to be compared to the last digit.
"""

from collections.abc import Iterator

from impasto.recipe import Recipe
from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["recipes"]


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield three sizes for each weighting."""
    iterations = scaled(100, scale)
    styles = (pictures.styles["starry-night"],)
    for row in ("balanced", "the report's sums"):
        for side in (size // 2, size, 2 * size):
            if row == "balanced":
                recipe = Recipe(size=side, levels=(1,), iterations=iterations)
            else:
                recipe = report(side, iterations, alpha=1e-2, optimizer="lbfgs", init="content")
            yield Cell(row, f"{side} px", recipe, pictures.content, styles, along(iterations))
