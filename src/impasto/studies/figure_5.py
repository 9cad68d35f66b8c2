"""Figure 5: which style layers.

Shows: The photograph in the manner of The Starry Night at alpha/beta = 1e-2, by the style layers in
use, each with w = 1 / their number. Above: block1_conv1 alone, then with block2_conv1, and so on up to
all five, 1000 iterations as in the report. Below, added to the report: all five but one, and all
five, 500 iterations.

Command: impasto study figure-5 --pictures DIR --size 192

Takes: 8000 iterations, 500 of which figure-6 shares; 23 minutes at 192 px on two cores with --workers 2.

Look for: More layers, more style, as the report says: colours and grain from the first ones, strokes
and swirls from the deep ones. Below, which layer is missed most.
"""

from collections.abc import Iterator

from impasto.layers import REPORT_STYLE
from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["recipes"]


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield growing subsets, then all layers but one."""
    content, styles = pictures.content, (pictures.styles["starry-night"],)
    for count, last in enumerate(REPORT_STYLE, start=1):
        layers, column = REPORT_STYLE[:count], last if count == 1 else f"+ {last}"
        iterations = scaled(1000, scale)
        recipe = report(size, iterations, alpha=1e-2, style_layers=layers)
        yield Cell("growing", column, recipe, content, styles, along(iterations))
    for left_out in REPORT_STYLE:
        layers = tuple(layer for layer in REPORT_STYLE if layer != left_out)
        iterations = scaled(500, scale)
        recipe = report(size, iterations, alpha=1e-2, style_layers=layers)
        yield Cell("all but one", f"without {left_out}", recipe, content, styles, along(iterations))
    recipe = report(size, scaled(500, scale), alpha=1e-2)
    yield Cell("all but one", "all five", recipe, content, styles, along(recipe.iterations))
