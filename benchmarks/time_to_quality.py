"""How soon a picture is good: the loss of the saved picture against seconds.

    python benchmarks/time_to_quality.py [--pictures DIR] [--size 256] [--pairs 1 2 3 4 5 6]
        [--variants "default=" "plain=--precondition 0"] [--every 5] [--out quality.png]

A variant is a name and the flags that `impasto transfer` gets besides. For every pair and variant:

    run       a whole process, saving every `--every`-th picture; a picture's time is that from the
              process' start to its file
    measure   the loss of each of these files by the default recipe in float32, whatever the variant

The first variant's last loss is a pair's unit. The table has the median and the range over the pairs: of
the last loss, of the seconds, and of the time to the first variant's end over the first variant's own;
what never gets there counts as infinite. A second table has every measure of the last pictures over
the first variant's. The drawing has a curve for each variant, the median over the pairs, and the range
as a band. It takes a minute per pair and variant at 256 px on two cores, and half as long to measure;
let nothing else run meanwhile.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from common import Pair, machine, pairs, process, program, say, table
from impasto import images, measures
from impasto.recipe import Recipe
from impasto.watch import existing_snapshots


@dataclass(frozen=True)
class Course:
    """One run: when each saved picture was there, its loss, and what is measured of the last."""

    seconds: list[float]
    totals: list[float]
    measures: dict[str, float]

    def reaches(self, total: float) -> float:
        """Return after how many seconds a loss is met, between two pictures in proportion."""
        before = self.seconds[0], self.totals[0]
        for now in zip(self.seconds, self.totals, strict=True):
            if now[1] <= total:
                fall = before[1] - now[1]
                part = (before[1] - total) / fall if fall > 0 else 1.0
                return before[0] + part * (now[0] - before[0])
            before = now
        return math.inf


def run(pair: Pair, size: int, flags: Sequence[str], every: int) -> Course:
    """Run one variant on one pair, and measure what it saved."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content, style, out = (folder / f"{what}.png" for what in ("content", "style", "out"))
        images.write(pair.content, content)
        images.write(pair.style, style)
        began = time.time()
        process(
            program(
                *("impasto", "transfer", content, style, "-o", out, "--fresh"),
                *("--size", str(size), "--save-every", str(every), *flags),
            )
        )
        found, recipe = [], Recipe(size=size)
        for path in [*existing_snapshots(out, every), out]:
            at = path.stat().st_mtime - began
            saved = images.read(path)
            found.append((at, measures.losses(recipe, saved, pair.content, pair.style).total))
        last = measures.measure(recipe, images.read(out), pair.content, pair.style).measures
        found.sort()
        return Course([at for at, _ in found], [total for _, total in found], last)


def draw(courses: dict[str, list[Course]], units: list[float], out: Path) -> None:
    """Draw the losses over the first variant's last ones against seconds, both on log scales."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, found in courses.items():
        first = max(course.seconds[0] for course in found)
        last = max(course.seconds[-1] for course in found)
        grid = np.geomspace(first, last, 100)
        curves = [
            np.interp(np.log(grid), np.log(course.seconds), np.log(np.divide(course.totals, unit)))
            for course, unit in zip(found, units, strict=True)
        ]
        (line,) = axes.loglog(grid, np.exp(np.median(curves, axis=0)), label=name)
        low, high = np.exp(np.min(curves, axis=0)), np.exp(np.max(curves, axis=0))
        axes.fill_between(grid, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.axhline(1, color="0.6", linewidth=0.8)
    axes.set_xlabel("seconds from the command")
    axes.set_ylabel("loss of the saved picture, over the first one's last")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(out, dpi=160)


def main() -> None:
    """Run all variants on all pairs, print a table, draw the curves."""
    parser = argparse.ArgumentParser(description="The loss of the saved picture against seconds.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--size", type=int, default=256, metavar="N")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6], metavar="N")
    variants = ["default=", "plain=--precondition 0"]
    parser.add_argument("--variants", nargs="+", default=variants, metavar="NAME=FLAGS")
    parser.add_argument("--every", type=int, default=5, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("quality.png"), metavar="FILE")
    options = parser.parse_args()

    for name, value in machine().items():
        print(f"{name:<10} {value}")
    print(flush=True)
    named = dict(variant.split("=", 1) for variant in options.variants)
    courses: dict[str, list[Course]] = {name: [] for name in named}
    given = pairs(options.pictures)
    for pair in (given[number - 1] for number in options.pairs):
        for name, flags in named.items():
            course = run(pair, options.size, flags.split(), options.every)
            courses[name].append(course)
            say(f"{pair.name}, {name}: {course.totals[-1]:.4f} after {course.seconds[-1]:.1f} s")
    base = next(iter(courses.values()))
    units = [course.totals[-1] for course in base]
    rows = []
    for name, found in courses.items():
        losses = [course.totals[-1] / unit for course, unit in zip(found, units, strict=True)]
        seconds = [course.seconds[-1] for course in found]
        ratios = [
            course.reaches(unit) / first.reaches(unit)
            for course, first, unit in zip(found, base, units, strict=True)
        ]
        columns = ((losses, ".3f"), (seconds, ".1f"), (ratios, ".2f"))
        rows.append([name, *(word for values, how in columns for word in _spread(values, how))])
    head = ["variant", "last loss", "range", "seconds", "range", "time to the first's end", "range"]
    print(table(head, rows))
    print()
    others = [name for name in named if courses[name] is not base]
    head = [
        "measure",
        *(word for name in others for word in (f"{name} over {next(iter(named))}", "range")),
    ]
    rows = []
    for measure in base[0].measures:
        rows.append([measure])
        for name in others:
            both = zip(courses[name], base, strict=True)
            values = [_over(one.measures[measure], first.measures[measure]) for one, first in both]
            rows[-1] += _spread(values, ".3f")
    print(table(head, rows))
    draw(courses, units, options.out)
    print(f"drawn: {options.out}")


def _over(value: float, unit: float) -> float:
    return value / unit if unit else 1.0 if value == unit else math.inf


def _spread(values: Sequence[float], how: str) -> list[str]:
    return [f"{median(values):{how}}", f"{min(values):{how}}-{max(values):{how}}"]


if __name__ == "__main__":
    main()
