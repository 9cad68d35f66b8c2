"""How long other programs take for a picture, and impasto for one whose loss is as low.

    python benchmarks/against_peers.py [--pictures DIR] [--sizes 256 512] [--steps 200 500]
        [--pairs 1 2 3 4 5 6] [--precision auto] [--out RESULT.json]

All minimise the report's objective, equations 1 to 5, from the photograph on, for the same two
pictures, resized beforehand. What counts is the picture on disk, as `impasto measure` judges it.
For each size (alpha/beta is 1e-3 up to 256 px, 1e-4 above) and pair:

    equality  pastiche's own loss of one picture must be what `impasto measure` finds
    peer      pastiche runs (average pooling, the objective's weights, else its defaults) and leaves its
              picture of each number of steps; the losses of these pictures are the targets
    search    impasto runs, saving every picture, until one meets the last target
    race      impasto runs for just as many iterations as each target needs

Equality and search are not timed. A time is the wall clock's for a whole process, from its start to
its end; pastiche's for fewer steps than the most is that from its start to its picture. The share is
impasto's time by pastiche's. The aims: a tenth in bfloat16 on a processor with the instructions for it,
a fifth in float32. Memory is the most that either process held.

The other peers, neural-style and pystiche, are asked whether they run with today's torch, and what they
say is printed. Pictures are six built-in pairs, or the report's photograph and paintings in DIR. On two
cores a pair takes some eight minutes at 256 px and half an hour at 512 px, most of it pastiche's.
Results go to --out after each; what is there already is not run again. Let nothing else run meanwhile.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import Ended, Pair, machine, pairs, planned, process, program, say, table
from impasto import devices, images, layers, schedule
from impasto.recipe import Recipe
from impasto.watch import snapshot_name

_TOLERANCE = 1e-4
"""How far the two programs' losses of one picture may differ, as a share: float32's rounding."""

_AIMS = {"bfloat16": 1 / 10}  # in any other arithmetic a fifth

_OTHERS = {"neural-style": "neural_style.neural_style", "pystiche": "pystiche"}
"""The other peers, by the module that must load."""


@dataclass(frozen=True)
class Task:
    """What both programs are given: two pictures of one size, and the objective's alpha."""

    content: Path
    style: Path
    size: tuple[int, int]
    alpha: float

    @classmethod
    def of(cls, pair: Pair, folder: Path, size: int) -> "Task":
        """Resize the pictures once, so that neither program does."""
        content, style = (schedule.fit(picture, size) for picture in (pair.content, pair.style))
        task = cls(
            content=folder / "content.png",
            style=folder / "style.png",
            size=(content.shape[1], content.shape[2]),
            alpha=1e-3 if size <= 256 else 1e-4,
        )
        images.write(content, task.content)
        images.write(style, task.style)
        return task

    @property
    def recipe(self) -> Recipe:
        """The objective as a recipe: the report's."""
        return Recipe.from_preset("report", alpha=self.alpha)

    def objective(self) -> list[str]:
        """Return impasto's flags for the objective."""
        recipe = self.recipe
        return [
            *("--weighting", recipe.weighting),
            *("--alpha", str(recipe.alpha)),
            *("--beta", str(recipe.beta)),
            *("--tv", str(recipe.tv)),
            *("--pooling", recipe.pooling),
            *("--padding", recipe.padding),
            *("--content-layers", *recipe.content_layers),
            *("--style-layers", *recipe.style_layers),
        ]

    def transfer(self, out: Path, iterations: int, precision: str, *words: str) -> Ended:
        """Run impasto, from the photograph and at one size like its peer; else by its defaults."""
        return process(
            [
                *program("impasto", "transfer", self.content, self.style),
                *("-o", str(out), "--fresh"),
                *("--size", str(max(self.size)), "--levels", "1"),
                *("--init", "content"),
                *self.objective(),
                *("--iterations", str(iterations)),
                *("--precision", precision),
                *words,
            ]
        )

    def measure(self, picture: Path) -> float:
        """Return the objective's value for a picture on disk, in float32."""
        pictures = program(
            "impasto", "measure", picture, "--content", self.content, "--style", self.style
        )
        said = process([*pictures, *self.objective(), "--json"]).said
        return float(json.loads(said)["total"])

    def pastiche(self, out: Path, steps: int, *words: str) -> list[str]:
        """Return pastiche's command, its weights such that its objective is the same.

        Its losses are means of squares: of N M features, and of N^2 entries of Gram matrices which
        it divides by M, as we do. So equation 1 takes the weight alpha N M / 2, and equation 3
        takes beta w_l / 4.
        """
        recipe = self.recipe
        height, width = self.size
        content = []
        for name in recipe.content_layers:
            stride = layers.stride(name)
            features = layers.LAYERS[name].channels * (height // stride) * (width // stride)
            content.append(recipe.alpha * features / 2 / len(recipe.content_layers))
        style = [recipe.beta * recipe.weight_of_layer[name] / 4 for name in recipe.style_layers]
        return [
            *program("pastiche", "--content", self.content, "--styles", self.style),
            *("--output", str(out)),
            *("--size", str(max(self.size)), "--style-size", str(max(self.size))),
            *("--pooling", "avg"),
            *("--num-steps", str(steps)),
            *("--content-layers", *map(_in_pastiche, recipe.content_layers)),
            *("--content-layer-weights", *map(repr, content)),
            *("--style-layers", *map(_in_pastiche, recipe.style_layers)),
            *("--style-layer-weights", *map(repr, style)),
            *words,
        ]


def _in_pastiche(layer: str) -> str:
    return layer.replace("conv", "relu")  # pastiche's conv is before the ReLU


@dataclass
class Race:
    """What was found for a pair at one size."""

    pair: str
    width: int
    height: int
    alpha: float
    precision: str
    arithmetic: str
    difference: float
    """By which share the two programs' losses of one picture differ."""
    held: tuple[int, int]
    """Bytes that pastiche and impasto held at most."""
    marks: list["Mark"] = field(default_factory=list)


@dataclass
class Mark:
    """One target: the loss of pastiche's picture after so many steps, and how both got there."""

    steps: int
    target: float
    iterations: int
    loss: float
    pastiche_seconds: float
    impasto_seconds: float

    @property
    def share(self) -> float:
        """Impasto's time by pastiche's."""
        return self.impasto_seconds / self.pastiche_seconds


def check_equality(task: Task, folder: Path) -> float:
    """Make sure that both programs find the same loss; return by which share they differ.

    They are asked about the style picture at the content's size, for which no loss is zero.
    """
    probe = folder / "probe.png"
    images.write(schedule.resize(images.read(task.style), task.size), probe)
    said = process(task.pastiche(folder / "unused.png", 0, "--init", str(probe))).said
    theirs, ours = float(said.split()[-1]), task.measure(probe)
    difference = abs(theirs / ours - 1)
    if difference > _TOLERANCE:
        raise SystemExit(f"pastiche's loss of a picture is {theirs:.8g}, impasto's {ours:.8g}")
    return difference


def run_pastiche(task: Task, steps: Sequence[int], folder: Path) -> tuple[list[tuple[float, Path]], int]:
    """Return when pastiche had its picture of each number of steps, and the memory that it held."""
    kept, out = folder / "kept", folder / "pastiche.png"
    kept.mkdir()
    every = min(steps)
    if any(count % every for count in steps):
        every = 100
    began = time.time()
    ended = process(
        task.pastiche(out, max(steps), "--workspace", str(kept), "--workspace-step", str(every))
    )
    found = []
    for count in steps[:-1]:
        (picture,) = (
            path for path in kept.iterdir() if int("".join(filter(str.isdigit, path.stem))) == count
        )
        found.append((picture.stat().st_mtime - began, picture))
    return [*found, (ended.seconds, out)], ended.held


def search(task: Task, targets: Sequence[float], precision: str, folder: Path) -> list[int]:
    """Return after how many iterations impasto's saved picture meets each target.

    The log has the loss of the picture before it is rounded to 8 bits, and with features in
    bfloat16: it says where to begin to look.
    """
    out, log = folder / "search.png", folder / "search.csv"
    for iterations in (75, 150, 300, 600):
        task.transfer(out, iterations, precision, "--log", str(log), "--save-every", "1")
        with log.open(encoding="utf-8", newline="") as file:
            totals = [float(row["total"]) for row in csv.DictReader(file)]
        found = [_first(task, target, totals, out) for target in targets]
        met = [iteration for iteration in found if iteration is not None]
        if len(met) == len(targets):
            return met
    raise SystemExit(f"impasto does not reach {min(targets):.4g} within {iterations} iterations")


def _first(task: Task, target: float, totals: Sequence[float], out: Path) -> int | None:
    for iteration, total in enumerate(totals):
        near = iteration > 0 and total <= target * 1.01
        if near and task.measure(snapshot_name(out, iteration)) <= target:
            return iteration
    return None


def race(pair: Pair, size: int, steps: Sequence[int], precision: str) -> Race:
    """Time both programs, one after the other, for every number of steps."""
    with tempfile.TemporaryDirectory() as name:
        folder, ours = Path(name), Path(name, "impasto.png")
        task = Task.of(pair, folder, size)
        difference = check_equality(task, folder)
        theirs, its_memory = run_pastiche(task, steps, folder)
        targets = [task.measure(picture) for _, picture in theirs]
        for count, (seconds, _), target in zip(steps, theirs, targets, strict=True):
            say(f"{pair.name}, {size} px: pastiche's {count} steps {seconds:.1f} s, loss {target:.4g}")
        found = Race(
            pair=pair.name,
            width=task.size[1],
            height=task.size[0],
            alpha=task.alpha,
            precision=precision,
            arithmetic=planned(precision).arithmetic,
            difference=difference,
            held=(its_memory, 0),
        )
        needed = search(task, targets, precision, folder)
        for count, (seconds, _), target, iterations in zip(steps, theirs, targets, needed, strict=True):
            ended = task.transfer(ours, iterations, precision)
            while (loss := task.measure(ours)) > target:  # on a GPU two runs may differ a little
                iterations += 1
                ended = task.transfer(ours, iterations, precision)
            mark = Mark(count, target, iterations, loss, seconds, ended.seconds)
            found.marks.append(mark)
            found.held = its_memory, max(found.held[1], ended.held)
            say(f"  impasto {iterations} iterations {ended.seconds:.1f} s: {mark.share:.3f}")
        return found


def others() -> list[str]:
    """Return what becomes of the other peers with this torch, a line each."""
    found = []
    for name, module in _OTHERS.items():
        command = [sys.executable, "-c", f"import sys; sys.argv = ['x']; import {module}"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        why = (ended.stderr.strip().splitlines() or [""])[-1]
        found.append(
            f"{name}: {f'does not run here: {why}' if ended.returncode else 'loads; not raced'}"
        )
    return found


HEAD = [
    *("pair", "size", "steps", "its loss", "our loss", "iterations"),
    *("its s", "our s", "share", "its MiB", "our MiB"),
]


def rows(races: Sequence[Race]) -> list[list[str]]:
    """Return a table's rows."""
    return [
        [
            one.pair,
            f"{one.width}x{one.height}",
            str(mark.steps),
            f"{mark.target:.4g}",
            f"{mark.loss:.4g}",
            str(mark.iterations),
            f"{mark.pastiche_seconds:.1f}",
            f"{mark.impasto_seconds:.1f}",
            f"{mark.share:.3f}",
            *(f"{held / 2**20:.0f}" for held in one.held),
        ]
        for one in races
        for mark in one.marks
    ]


def medians(races: Sequence[Race]) -> list[list[str]]:
    """Return the shares over all pairs, for each size and number of steps."""
    found: dict[tuple[int, str, int], list[float]] = {}
    for one in races:
        for mark in one.marks:
            key = max(one.width, one.height), one.arithmetic, mark.steps
            found.setdefault(key, []).append(mark.share)
    return [
        [
            f"{size} px",
            arithmetic,
            str(steps),
            str(len(shares)),
            f"{median(shares):.3f}",
            f"{min(shares):.3f}-{max(shares):.3f}",
            f"{_AIMS.get(arithmetic, 1 / 5):.3f}",
        ]
        for (size, arithmetic, steps), shares in sorted(found.items())
    ]


def main() -> None:
    """Race over all pairs at every size and print tables."""
    parser = argparse.ArgumentParser(
        description="Race against other programs to the loss of their pictures."
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], metavar="N")
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 500], metavar="N")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6], metavar="N")
    names = ("auto", *devices.DTYPES)
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=names)
    parser.add_argument("--out", type=Path, metavar="RESULT.json")
    options = parser.parse_args()

    facts = machine()
    for name, value in facts.items():
        print(f"{name:<10} {value}")
    for line in others():
        print(line)
    print(flush=True)
    steps = sorted(options.steps)
    found: list[Race] = []
    if options.out and options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        if before["machine"] != facts:
            raise SystemExit(f"{options.out} is of another machine or other versions; name another")
        kept = before["races"]
        found = [Race(**{**one, "marks": [Mark(**mark) for mark in one["marks"]]}) for one in kept]
    given = pairs(options.pictures)
    for size in options.sizes:
        for pair in (given[number - 1] for number in options.pairs):
            for precision in options.precision:
                key = pair.name, size, precision, steps
                if any(_key(one) == key for one in found):
                    continue
                found.append(race(pair, size, steps, precision))
                if options.out:
                    result: dict[str, Any] = {"machine": facts, "races": [asdict(one) for one in found]}
                    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(HEAD, rows(found)))
    print()
    print(table(["size", "how", "steps", "pairs", "share", "range", "aim"], medians(found)))


def _key(one: Race) -> tuple[str, int, str, list[int]]:
    return one.pair, max(one.width, one.height), one.precision, [mark.steps for mark in one.marks]


if __name__ == "__main__":
    main()
