"""Figure 1: the photograph and the five paintings.

Shows: The pictures that all other figures are made of, at the size of the study. Each is a run of no
iterations that starts from its own picture.

Command: impasto study figure-1 --pictures DIR --size 192

Takes: 0 iterations, a few seconds at 192 px on two cores with --workers 2.

Look for: What each painting is made of. Spray and haze (Turner), long strokes that follow the air (van
Gogh), bands of colour (Munch), small forms all over (Kandinsky). Femme nue assise is the hard case:
one figure in planes of few dark tones. What it shows is in one place, and sums over positions do not
know places.
"""

from collections.abc import Iterator
from dataclasses import replace

from impasto.studies.pictures import STYLES, Pictures, report
from impasto.sweep import Cell

__all__ = ["VALUES", "recipes"]

VALUES = ()


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:  # noqa: ARG001 (as all studies)
    """Yield the photograph, then the paintings."""
    start = report(size, iterations=0)
    yield Cell("", pictures.content_title, replace(start, init="content"), pictures.content, ())
    for name in STYLES:
        column = pictures.title(name)
        yield Cell("", column, replace(start, init="style"), None, (pictures.styles[name],))
