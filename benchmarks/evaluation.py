"""How near one evaluation of the objective comes to the peak of the machine.

    python benchmarks/evaluation.py [--pictures DIR] [--sizes 256 512] [--precision auto] [--repeats 10]

An evaluation is the losses of a picture and their gradient: what an optimiser asks for in every
iteration. Its work is counted as that of direct convolutions, 2 x 9 x inputs x outputs x height x
width operations for each 3x3 convolution down to the deepest layer in use, once forward and once for
the gradient of the input; Gram matrices, pooling and the rest are not counted, though their time is.
The peak is the best of 20 products of 4096 x 4096 matrices (`torch.mm`) in the same precision, on the
same threads. A picture of size N is N pixels wide and 3/4 N high. The aim is 0.75 of the peak at 512.

It takes a minute or two on two cores; let nothing else run meanwhile.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from common import Pair, machine, pairs, planned, table

# torch reads what `common` sets
# isort: split
import torch

from impasto import devices, memory, schedule, weights
from impasto.layers import LAYERS, deepest
from impasto.objective import Objective
from impasto.plan import Plan
from impasto.recipe import Recipe
from impasto.vgg import VGG19

_SIDE = 4096
_PRODUCTS = 20


def operations(recipe: Recipe, height: int, width: int) -> int:
    """Return the operations of one evaluation: forward and input gradient, direct convolution.

    Example:
        >>> operations(Recipe(content_layers=("conv1_1",), style_layers=("conv1_1",)), 16, 16)
        1769472
    """
    last = deepest((*recipe.content_layers, *recipe.style_layers))
    forward = 0
    for layer in list(LAYERS.values())[: list(LAYERS).index(last) + 1]:
        positions = (height >> (layer.block - 1)) * (width >> (layer.block - 1))
        forward += 2 * 9 * layer.inputs * layer.channels * positions
    return 2 * forward


def seconds(work: Callable[[], torch.Tensor], repeats: int) -> list[float]:
    """Return how long each of ``repeats`` runs took, after one to warm up."""
    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work().flatten()[0].item()  # wait: a GPU answers before it is done
        taken.append(time.perf_counter() - began)
    return taken[1:]


def peak(precision: torch.dtype, device: torch.device) -> float:
    """Return the machine's best operations per second in a large product of matrices."""
    a, b = (torch.rand(_SIDE, _SIDE, device=device).to(precision) for _ in range(2))
    return 2 * _SIDE**3 / min(seconds(lambda: torch.mm(a, b), _PRODUCTS))


def evaluation(pair: Pair, size: int, way: Plan) -> tuple[Callable[[], torch.Tensor], int]:
    """Return one evaluation of the default recipe, ready to run, and its operations."""
    recipe = Recipe()
    memory.keep(way.ample)  # as a run does
    parameters, device = weights.load(recipe.weights), way.device
    network = VGG19.of(recipe, parameters, way.precision, device, way.by_winograd)
    height, width = size * 3 // 4, size
    content, style = (schedule.cover(x, (height, width)).to(device) for x in (pair.content, pair.style))
    objective = Objective(recipe, network, content, [style])
    return lambda: objective(style).gradient, operations(recipe, height, width)


def main() -> None:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description="One evaluation against the peak of the machine.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], metavar="N")
    names = ("auto", *devices.DTYPES)
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=names)
    parser.add_argument("--repeats", type=int, default=10, metavar="N")
    options = parser.parse_args()

    for name, value in machine().items():
        print(f"{name:<10} {value}")
    print()
    rows = []
    (pair,) = pairs(options.pictures, 1)
    for name in options.precision:
        way = planned(name)
        most = peak(way.precision, way.device)
        for size in options.sizes:
            work, count = evaluation(pair, size, way)
            times = seconds(work, options.repeats)
            middle, best = median(times), min(times)
            row = [f"{size}x{size * 3 // 4}", way.arithmetic, f"{middle:.3f}", f"{best:.3f}"]
            row += [f"{count / middle / 1e9:.0f}", f"{most / 1e9:.0f}"]
            row += [f"{count / middle / most:.2f}", f"{count / best / most:.2f}"]
            rows.append(row)
    head = ["size", "precision", "median s", "best s", "GFLOP/s", "peak", "share", "best share"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
