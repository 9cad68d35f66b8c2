"""How one evaluation grows with the picture: seconds, seconds per megapixel, and the most memory held.

    python benchmarks/scaling.py [--pictures DIR] [--sizes 256 512 1024 2048 4096] [--memory auto]
        [--repeats 3]

Every size is measured in a process of its own, by the plan that it would be carried out by: whole, or
in tiles where `--memory` is less than it takes. The first evaluation warms up; seconds are the median of
the others. Memory is what the process held at most, less what it held with torch, weights and pictures.
Pictures are square parts, enlarged. Let nothing else run meanwhile.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from common import machine, pairs, table
from impasto import memory, schedule, weights
from impasto.objective import Objective
from impasto.vgg import VGG19
from size import MEGA, planned


def one(pictures: Path | None, side: int, budget: str, repeats: int) -> dict[str, Any]:
    """Return what evaluations at this side take, in this process."""
    recipe, made = planned(side, budget)
    memory.keep(made.ample)
    network = VGG19.of(recipe, weights.load(), made.precision, made.device, made.by_winograd)
    (pair,) = pairs(pictures, 1)
    content, style = (schedule.cover(x, (side, side)).to(made.device) for x in pair[1:])
    loaded = _resident()
    cut = made.levels[0].cut
    objective = Objective(recipe, network, content, [style], cut)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        objective(style).gradient.flatten()[0].item()  # wait: a GPU answers before it is done
        seconds.append(time.perf_counter() - began)
    where = f"tiles up to {cut.tile[1]} px" if cut.tile else "whole"
    return {"seconds": seconds[1:], "held": memory.used() - loaded, "where": where}


def _resident() -> int:
    """Return the bytes that this process holds now, and forget what it has held before."""
    if sys.platform != "linux":
        return memory.used()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def measured(pictures: Path | None, side: int, budget: str, repeats: int) -> dict[str, Any]:
    """Return the same, measured in a new process."""
    words = [sys.executable, __file__, "--one", str(side), "--memory", budget, "--repeats", str(repeats)]
    words += ["--pictures", str(pictures)] if pictures else []
    said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said)  # type: ignore[no-any-return]


def main() -> None:
    """Measure what the command line asks for and print a table."""
    parser = argparse.ArgumentParser(description="One evaluation from small to large pictures.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    sizes = [256, 512, 1024, 2048, 4096]
    parser.add_argument("--sizes", type=int, nargs="+", default=sizes, metavar="N")
    parser.add_argument("--memory", default="auto", metavar="SIZE")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.pictures, options.one, options.memory, options.repeats)))
        return
    for name, value in machine().items():
        print(f"{name:<10} {value}")
    print()
    rows = []
    for side in options.sizes:
        found = measured(options.pictures, side, options.memory, options.repeats)
        middle, held = median(found["seconds"]), found["held"]
        row = [f"{side}x{side}", str(found["where"]), f"{middle:.2f}", f"{middle / side**2 * MEGA:.2f}"]
        rows.append([*row, f"{held / 2**20:.0f}", f"{held / side**2:.0f}"])
    head = ["size", "how", "seconds", "seconds per MP", "MiB held", "bytes per pixel"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
