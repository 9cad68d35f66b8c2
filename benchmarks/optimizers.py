"""How low does each optimiser come in the same number of iterations?

    python benchmarks/optimizers.py [--pictures DIR] [--size 160] [--iterations 50] [--optimizers NAME]

Runs every optimiser at its defaults and prints the losses of what an 8-bit file would hold, measured in
float32, with the iterations and evaluations it took. Nothing is timed: an evaluation is what costs.
"""

import argparse
from collections import deque
from pathlib import Path

from common import machine, table

# torch reads what `common` sets
# isort: split
from torch import Tensor

from balance import pairs
from impasto import images, measures, transfer
from impasto.catalog import OPTIMIZERS
from impasto.events import Finished
from impasto.recipe import Recipe


def row(recipe: Recipe, content: Tensor, style: Tensor) -> list[str]:
    """Return what a recipe came to: total, content, style, iterations, evaluations."""
    pictures = transfer.Pictures(content, (style,))
    plan = transfer.plan_for(recipe, pictures)
    (end,) = deque(transfer.run(recipe, pictures, plan), maxlen=1)
    assert isinstance(end, Finished)
    saved = images.to_8_bit(end.picture).permute(2, 0, 1).float() / 255
    found = measures.losses(recipe, saved, content, style)
    losses = (f"{value:.4f}" for value in (found.total, found.content, found.style))
    return [recipe.optimizer, *losses, str(end.iterations), str(end.evaluations)]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Optimisers side by side.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--size", type=int, default=160, metavar="N")
    parser.add_argument("--iterations", type=int, default=50, metavar="N")
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=list(OPTIMIZERS))
    options = parser.parse_args()
    for name, value in machine().items():
        print(f"{name:<10} {value}")
    head = ["optimizer", "total", "content", "style", "iterations", "evaluations"]
    for pair, content, style in pairs(options.pictures):
        rows = []
        for name in options.optimizers:
            recipe = Recipe(optimizer=name, size=options.size, iterations=options.iterations)
            rows.append(row(recipe, content, style))
        print(f"\n{pair}, {options.size} px, {options.iterations} iterations")
        print(table(head, rows), flush=True)


if __name__ == "__main__":
    main()
