"""Optimizers: Adam, L-BFGS, gradient descent, and two that search more widely.

Shows: The report's own problem, The Starry Night at alpha/beta = 1e-2 from white noise, descended by
Adam, L-BFGS, gradient descent with momentum, several starts of which the best goes on, and Langevin's
noise that falls to zero. 500 iterations each; the losses are those of pictures saved on the way, read
back from their 8 bits.

Command: impasto study optimizers --pictures DIR --size 192

Takes: 2500 iterations, 500 of which figure-6 shares; L-BFGS evaluates more than once in some.

Look for: Who is lowest after how many evaluations, and after how many seconds. Starts and noise only
pay if they end lower than L-BFGS does with as many evaluations.
"""

from collections.abc import Iterator

from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "VALUES", "recipes"]

VALUES = ("total",)
PANELS = (("total", "evaluations"), ("total", "seconds"))

_NAMES = {
    "adam": "Adam",
    "lbfgs": "L-BFGS",
    "sgd": "gradient descent",
    "multistart": "several starts",
    "langevin": "Langevin",
}


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield a film for each optimiser."""
    iterations = scaled(500, scale)
    styles = (pictures.styles["starry-night"],)
    for optimizer, row in _NAMES.items():
        recipe = report(size, iterations, alpha=1e-2, optimizer=optimizer)
        yield Cell(row, "", recipe, pictures.content, styles, along(iterations))
