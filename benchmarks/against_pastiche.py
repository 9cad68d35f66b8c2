"""How long pastiche takes for a picture, and impasto for one whose loss is as low.

    python benchmarks/against_pastiche.py [--pictures DIR] [--sizes 256 512] [--steps 200]
        [--repeats 2] [--precision auto] [--out RESULT.json]

Both minimise the report's objective, equations 1 to 5, from the photograph on, for the same two
pictures, resized beforehand. What counts is the picture on disk, as `impasto measure` judges it.
For each size (alpha/beta is 1e-3 up to 256 px, 1e-4 above):

    equality  pastiche's own loss of one picture must be what `impasto measure` finds
    target    pastiche runs 200 steps (average pooling, the objective's weights, else its defaults);
              the loss of the picture it saves is the target
    search    impasto runs, saving every picture, until one meets the target: the first that does
    race      impasto runs for just so many iterations; then pastiche again, and impasto again

Equality and search are not timed. A time is the wall clock's for a whole process, from its start to
its end; the share is the median over the pairs of impasto's time by pastiche's. The aims: 1/5 in
bfloat16 on a processor with the instructions for it, 1/3 in float32.

The pictures are the built-in coffee and swirl, or neckarfront-tuebingen.jpg and starry-night.jpg in
DIR. It takes half an hour or more on two cores, most of it pastiche's at 512 px; let nothing else
run meanwhile. What is found on the way is said on stderr.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from common import machine, planned, table
from impasto import devices, images, layers, samples, schedule
from impasto.errors import InputError
from impasto.recipe import Recipe
from impasto.watch import snapshot_name

_TOLERANCE = 1e-4
"""How far the two programs' losses of one picture may differ, as a share: float32's rounding."""

_AIMS = {torch.bfloat16: 1 / 5, torch.float32: 1 / 3, torch.float64: 1 / 3}


@dataclass(frozen=True)
class Task:
    """What both programs are given: two pictures of one size, and the objective's alpha."""

    content: Path
    style: Path
    size: tuple[int, int]
    alpha: float

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

    def transfer(self, out: Path, iterations: int, precision: str) -> list[str]:
        """Return impasto's command."""
        return [
            *_program("impasto", "transfer", self.content, self.style),
            *("-o", str(out)),
            *("--size", str(max(self.size)), "--levels", "1"),
            *("--init", "content"),
            *self.objective(),
            *("--iterations", str(iterations)),
            *("--precision", precision),
        ]

    def measure(self, picture: Path) -> float:
        """Return the objective's value for a picture on disk, in float32."""
        pictures = _program(
            "impasto", "measure", picture, "--content", self.content, "--style", self.style
        )
        said = _run([*pictures, *self.objective(), "--json"])
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
            *_program("pastiche", "--content", self.content, "--styles", self.style),
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


def _program(name: str, *words: str | Path) -> list[str]:
    return [sys.executable, "-m", name, *map(str, words)]


def _run(command: Sequence[str]) -> str:
    """Run a command and return what it printed; end the benchmark in one line if it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[-1]
        raise SystemExit(f"{command[2]} does not run here: {last}")
    return ended.stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _time(command: Sequence[str]) -> float:
    """Return the seconds that a command takes as a whole process."""
    began = time.perf_counter()
    _run(command)
    return time.perf_counter() - began


def prepare(pictures: Path | None, folder: Path, size: int) -> Task:
    """Resize the pictures once, so that neither program does."""
    if pictures is None:
        samples.write(folder)
        found = folder / "coffee.png", folder / "swirl.png"
    else:
        found = pictures / "neckarfront-tuebingen.jpg", pictures / "starry-night.jpg"
    content, style = (schedule.fit(images.read(path), size) for path in found)
    task = Task(
        content=folder / f"content-{size}.png",
        style=folder / f"style-{size}.png",
        size=(content.shape[1], content.shape[2]),
        alpha=1e-3 if size <= 256 else 1e-4,
    )
    images.write(content, task.content)
    images.write(style, task.style)
    return task


def check_equality(task: Task, folder: Path) -> float:
    """Make sure that both programs find the same loss; return by which share they differ.

    They are asked about the style picture at the content's size, for which no loss is zero.
    """
    probe = folder / "probe.png"
    images.write(schedule.resize(images.read(task.style), task.size), probe)
    said = _run(task.pastiche(folder / "unused.png", 0, "--init", str(probe)))
    theirs, ours = float(said.split()[-1]), task.measure(probe)
    difference = abs(theirs / ours - 1)
    if difference > _TOLERANCE:
        raise SystemExit(f"pastiche's loss of a picture is {theirs:.8g}, impasto's {ours:.8g}")
    return difference


def search(task: Task, target: float, precision: str, folder: Path) -> int:
    """Return after how many iterations impasto's saved picture meets the target.

    The log has the loss of the picture before it is rounded to 8 bits, and with features in
    bfloat16: it says where to begin to look.
    """
    out, log = folder / "search.png", folder / "search.csv"
    for iterations in (25, 50, 100, 200, 400, 800):
        watched = ["--log", str(log), "--save-every", "1"]
        _run([*task.transfer(out, iterations, precision), *watched])
        with log.open(encoding="utf-8", newline="") as file:
            totals = [float(row["total"]) for row in csv.DictReader(file)]
        for iteration, total in enumerate(totals):
            near = iteration > 0 and total <= target * 1.01
            if near and task.measure(snapshot_name(out, iteration)) <= target:
                return iteration
    raise SystemExit(f"impasto does not reach {target:.4g} within {iterations} iterations")


@dataclass
class Race:
    """What was found at one size, in one precision."""

    size: str
    alpha: float
    precision: str
    difference: float
    target: float
    iterations: int
    loss: float
    pastiche_seconds: list[float]
    impasto_seconds: list[float]

    @property
    def shares(self) -> list[float]:
        """Impasto's time by pastiche's, pair by pair."""
        pairs = zip(self.impasto_seconds, self.pastiche_seconds, strict=True)
        return [ours / theirs for ours, theirs in pairs]

    def row(self) -> list[str]:
        """Return the table's row."""
        shares = self.shares
        return [
            self.size,
            f"{self.alpha:.0e}",
            planned(self.precision).arithmetic,
            f"{self.target:.4g}",
            f"{self.loss:.4g}",
            str(self.iterations),
            f"{median(self.pastiche_seconds):.1f}",
            f"{median(self.impasto_seconds):.1f}",
            f"{median(shares):.3f}",
            f"{min(shares):.3f}-{max(shares):.3f}",
            f"{_AIMS[planned(self.precision).precision]:.3f}",
        ]


HEAD = [
    *("size", "alpha", "precision", "its loss", "our loss", "iterations"),
    *("its s", "our s", "share", "range", "aim"),
]


def race(task: Task, chosen: Sequence[str], steps: int, repeats: int, folder: Path) -> list[Race]:
    """Time both programs in alternation."""
    theirs, ours = folder / "pastiche.png", folder / "impasto.png"
    difference = check_equality(task, folder)
    first = _time(task.pastiche(theirs, steps))
    target = task.measure(theirs)
    height, width = task.size
    _say(f"{width}x{height}: both programs' losses of one picture differ by a share of {difference:.0e}")
    _say(f"pastiche: {first:.1f} s, loss {target:.4g}")
    found = [
        Race(
            size=f"{width}x{height}",
            alpha=task.alpha,
            precision=precision,
            difference=difference,
            target=target,
            iterations=search(task, target, precision, folder),
            loss=float("inf"),
            pastiche_seconds=[],
            impasto_seconds=[],
        )
        for precision in chosen
    ]
    for repeat in range(repeats):
        its_seconds = _time(task.pastiche(theirs, steps)) if repeat else first
        for one in found:
            our_seconds = _time(task.transfer(ours, one.iterations, one.precision))
            while (loss := task.measure(ours)) > target:  # on a GPU two runs may differ a little
                one.iterations += 1
                our_seconds = _time(task.transfer(ours, one.iterations, one.precision))
            one.loss = loss
            one.pastiche_seconds.append(its_seconds)
            one.impasto_seconds.append(our_seconds)
            _say(f"pastiche {its_seconds:.1f} s, impasto in {one.precision} {our_seconds:.1f} s")
    return found


def main() -> None:
    """Race at every size and print a table."""
    parser = argparse.ArgumentParser(description="Race against pastiche to the loss of its picture.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], metavar="N")
    parser.add_argument("--steps", type=int, default=200, metavar="N")
    parser.add_argument("--repeats", type=int, default=2, metavar="N")
    names = ("auto", *devices.DTYPES)
    parser.add_argument("--precision", nargs="+", default=["auto"], choices=names)
    parser.add_argument("--out", type=Path, metavar="RESULT.json")
    options = parser.parse_args()

    facts = machine()
    for name, value in facts.items():
        print(f"{name:<10} {value}")
    print(flush=True)
    races: list[Race] = []
    chosen: list[str] = options.precision
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                task = prepare(options.pictures, folder, size)
            except InputError as error:
                raise SystemExit(str(error)) from None
            races += race(task, chosen, options.steps, options.repeats, folder)
    print(table(HEAD, [one.row() for one in races]))
    if options.out:
        result: dict[str, Any] = {"machine": facts, "steps": options.steps}
        result["races"] = [{**asdict(one), "shares": one.shares} for one in races]
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
