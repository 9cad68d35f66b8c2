"""Figure 2: what the content layers keep of the photograph.

Shows: Content reconstruction from white noise, over the iterations and by layer: Adam at 0.02, no
style. The report's layer is block4_conv2, at 1000 iterations; the four others are added, at 250.

Command: impasto study figure-2 --pictures DIR --size 192

Takes: 2000 iterations, 4 minutes at 192 px on two cores with --workers 2; the network ends at the
layer, so those of the first two are cheap.

Look for: What is lost, and when. What a layer does not see stays noise: the deeper the layer, the more
of the colours and the fine detail. What stays are shapes and their places, which a style can be laid
over.
"""

from collections.abc import Iterator

from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "recipes"]

PANELS = (("content, relative to the start", "iteration"),)


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield a film for each layer."""
    for block in (4, 1, 2, 3, 5):  # the report's, and it is the longest
        layer = f"block{block}_conv2"
        iterations = scaled(1000 if block == 4 else 250, scale)
        recipe = report(size, iterations, content_layers=(layer,))
        yield Cell(layer, "", recipe, pictures.content, (), along(iterations))
