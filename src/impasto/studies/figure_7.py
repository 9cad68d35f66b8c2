"""Figure 7: the weights of the style layers.

Shows: The photograph in the manner of The Starry Night at alpha/beta = 1e-2 with the layer weights
0.05, 0.05, 0.1, 0.8, and with the same reversed, 500 iterations each. The report names four weights
for its five layers; they are taken for the first four, block1_conv1 to block4_conv1. Equal weights of
all five stand beside them.

Command: impasto study figure-7 --pictures DIR --size 192

Takes: 1500 iterations, 500 of which figure-6 shares; 5 minutes at 192 px on two cores with --workers
2, after figure-6 3.

Look for: The first list keeps more style, the reversed one more content, as the report says: shallow
layers ask for colours and grain alone.
"""

from collections.abc import Iterator

from impasto.layers import REPORT_STYLE
from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["recipes"]


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield both lists, and equal weights."""
    iterations = scaled(500, scale)
    weights = (0.05, 0.05, 0.1, 0.8)
    styles = (pictures.styles["starry-night"],)
    for values in (weights, weights[::-1]):
        recipe = report(
            size, iterations, alpha=1e-2, style_layers=REPORT_STYLE[:4], layer_weights=values
        )
        column = ", ".join(f"{weight:g}" for weight in values)
        yield Cell("", column, recipe, pictures.content, styles, along(iterations))
    equal = report(size, iterations, alpha=1e-2)
    yield Cell("", "1/5 each, five layers", equal, pictures.content, styles, along(iterations))
