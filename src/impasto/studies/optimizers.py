"""Optimizers: Adam, L-BFGS, gradient descent, and two that search more widely.

Shows: The report's own problem, The Starry Night at alpha/beta = 1e-2 from white noise, descended by
Adam, L-BFGS with its preconditioner and without, gradient descent with momentum, several starts of
which the best goes on, and Langevin's noise that falls to zero. 500 iterations each; the losses are
those of pictures saved on the way, read back from their 8 bits.

Command: impasto study optimizers --pictures DIR --size 192

Takes: 3000 iterations, 500 of which figure-6 shares; L-BFGS evaluates more than once in some; a fifth
of them (--iterations-scale 0.2) 3 minutes at 192 px on two cores with --workers 2.

Look for: Who is lowest after how many evaluations, and after how many seconds. Starts and noise only
pay if they end lower than L-BFGS does with as many evaluations.
"""

from collections.abc import Iterator

from impasto.studies.pictures import Pictures, along, report, scaled
from impasto.sweep import Cell

__all__ = ["PANELS", "VALUES", "recipes"]

VALUES = ("total",)
PANELS = (("total", "evaluations"), ("total", "seconds"))

_ROWS: dict[str, dict[str, object]] = {
    "Adam": {"optimizer": "adam"},
    "L-BFGS": {"optimizer": "lbfgs"},
    "L-BFGS without a preconditioner": {"optimizer": "lbfgs", "precondition": 0.0},
    "gradient descent": {"optimizer": "sgd"},
    "several starts": {"optimizer": "multistart"},
    "Langevin": {"optimizer": "langevin"},
}


def recipes(pictures: Pictures, size: int, scale: float) -> Iterator[Cell]:
    """Yield a film for each optimiser."""
    iterations = scaled(500, scale)
    styles = (pictures.styles["starry-night"],)
    for row, fields in _ROWS.items():
        recipe = report(size, iterations, alpha=1e-2, **fields)
        yield Cell(row, "", recipe, pictures.content, styles, along(iterations))
