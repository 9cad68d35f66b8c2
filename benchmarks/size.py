"""What a large picture costs: seconds per megapixel in tiles, memory kept to, processes side by side.

    python benchmarks/size.py [--tiled 4096] [--memory auto] [--peaks 512 1024 2048 4096] [--huge]

Four parts; `--no-cost`, `--no-ranks` and an empty `--peaks` leave parts out, `--huge` is one alone:

cost       One evaluation at 1024 px whole and one at `--tiled` px in the tiles that the plan chooses:
           seconds per megapixel, their ratio, and the floor, which is the work in the tiles' pixels.
ranks      One evaluation at 2048 px in one process with one thread, and in two with one thread each.
peaks      Whole processes, `impasto transfer --memory 2GiB --iterations 2`: most memory held and
           seconds, beside what `--dry-run` had said.
huge       One evaluation of 10,000 x 10,000 px in 8 GiB, in a process of its own (an hour on two cores).

Pictures are the built-in samples, enlarged.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from common import machine, process, program, table

# torch reads what `common` sets
# isort: split
import torch
from torch import Tensor

from impasto import images, memory, parallel, plan, samples, schedule, weights
from impasto.cost import Costs
from impasto.objective import Objective, looks
from impasto.parallel import ALONE, Team
from impasto.plan import Plan
from impasto.recipe import Recipe
from impasto.tiles import Cut
from impasto.vgg import VGG19

MEGA = 1e6


def pictures(side: int) -> tuple[Tensor, Tensor]:
    """Return a square photograph and painting with this side."""
    with tempfile.TemporaryDirectory() as name:
        paths = Path(name, "photo.png"), Path(name, "painting.png")
        samples.photo("astronaut").save(paths[0])
        samples.painting("swirl").save(paths[1])
        content, style = (schedule.resize(images.read(path), (side, side)) for path in paths)
        return content, style


def planned(side: int, budget: str, ranks: int = 1) -> tuple[Recipe, Plan]:
    """Return the plan of a single level, for an optimiser that holds next to nothing."""
    recipe = Recipe(size=side, memory=budget, levels=(1,), optimizer="adam")
    return recipe, plan.make(recipe, (side, side), (side, side), ranks=ranks)


def evaluate(recipe: Recipe, made: Plan, cut: Cut, team: Team = ALONE) -> tuple[float, Tensor]:
    """Return the seconds of one evaluation at a plan's size, and its gradient."""
    network = VGG19.of(recipe, weights.load(), made.precision, made.device, made.by_winograd)
    content, style = (picture.to(made.device) for picture in pictures(made.size[0]))
    objective = Objective(recipe, network, content, [style], cut, team)
    if not team.leads:
        objective.follow(content)
        return 0.0, content
    began = time.perf_counter()
    gradient = objective(style).gradient.cpu()  # wait: a GPU answers before it is done
    seconds = time.perf_counter() - began
    team.tell("done")
    return seconds, gradient


def cost(side: int, budget: str) -> None:
    """Print seconds per megapixel in tiles over those of a picture in one piece, and the floor."""
    recipe, whole = planned(1024, "64GiB")
    _, tiled = planned(side, budget)
    cut = tiled.levels[0].cut
    costs = Costs(recipe, tiled.precision, tiled.by_winograd, looks(recipe, content=True, style=True))
    windows = costs.windows(tiled.size, cut)
    look, gradient = costs.pace(windows.largest, tiled.device)
    evaluate(recipe, whole, Cut())
    small = min(evaluate(recipe, whole, Cut())[0] for _ in range(2))
    large, _ = evaluate(recipe, tiled, cut)
    per_pixel = large / side**2 / (small / 1024**2)
    halo = windows.pixels / side**2
    passes = 1 + look / gradient * (1 - min(cut.keep, windows.number) / windows.number)
    rows = [
        ["1024 whole", f"{small:.1f}", f"{small / 1024**2 * MEGA:.2f}", "1.00", ""],
        [
            f"{side} in {windows.number}",
            f"{large:.1f}",
            f"{large / side**2 * MEGA:.2f}",
            f"{per_pixel:.2f}",
            f"{passes * halo:.2f} = {passes:.2f} x {halo:.2f}",
        ],
    ]
    print(tiled.levels[0].describe())
    print(table(["px", "s", "s / MP", "ratio", "floor = passes x halo"], rows), flush=True)


def ranks(side: int = 2048) -> None:
    """Print the seconds of one and of two processes with a thread each, for the same tiles."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2):
            out = Path(folder, f"{count}.pt")
            words = [__file__, "--rank", str(out), str(side)]
            launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(count)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(
                [sys.executable, *launch, *words], check=True, env=environment, stderr=subprocess.DEVNULL
            )
            found[count] = torch.load(out, weights_only=True)
    (one, first), (two, second) = found[1], found[2]
    same = "the same bytes" if torch.equal(first, second) else "DIFFERENT BYTES"
    print(f"{side} px: one process {one:.1f} s, two {two:.1f} s: {one / two:.2f} times as fast, {same}")


def rank(out: Path, side: int) -> None:
    """Do one process' part of `ranks`."""
    torch.set_num_threads(1)
    team = parallel.join()
    recipe, made = planned(side, "6GiB", ranks=2)
    seconds, gradient = evaluate(recipe, made, made.levels[0].cut._replace(keep=1), team)
    if team.leads:
        torch.save((seconds, gradient), out)
    team.leave()


def peaks(sides: list[int]) -> None:
    """Print what whole processes held and took, beside what was forecast."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photo, painting = (Path(folder, name) for name in ("photo.png", "painting.png"))
        samples.photo("astronaut").save(photo)
        samples.painting("swirl").save(painting)
        for side in sides:
            words: list[str | Path] = [
                "transfer",
                photo,
                painting,
                "--out",
                Path(folder, f"{side}.png"),
                "--levels",
                "1",
            ]
            words += ["--memory", "2GiB", "--iterations", "2", "--size", str(side)]
            said = process(program("impasto", *words, "--dry-run")).said
            (expected,) = re.findall(r"memory +about (.+) of", said)
            (seconds,) = re.findall(r"time +about (\d+) s", said)
            ended = process(program("impasto", *words))
            rows.append(
                [str(side), expected, memory.spoken(ended.held), seconds, f"{ended.seconds:.0f}"]
            )
    print(table(["px", "memory forecast", "held", "seconds forecast", "took"], rows), flush=True)


def huge(side: int = 10_000, budget: int = 8 << 30) -> None:
    """Print the memory and the seconds of one evaluation of a picture of 100 megapixels."""
    recipe, made = planned(side, "64GiB")
    costs = Costs(recipe, made.precision, made.by_winograd, looks(recipe, content=True, style=True))
    # No optimiser, but the picture and its gradient; content and style are kept.
    size = (side, side)
    cuts = (Cut((tile, tile), 1, on_disk=True) for tile in range(4096, 0, -256))
    cut = next(cut for cut in cuts if costs.memory(size, 4, 0, cut, [], [size], last=True) <= budget)
    print(replace(made.levels[0], cut=cut).describe(), flush=True)
    memory.keep(ample=False)
    seconds, _ = evaluate(recipe, made, cut)
    print(json.dumps({"px": side, "seconds": round(seconds), "held": memory.spoken(memory.used())}))


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description="What a large picture costs.")
    parser.add_argument("--tiled", type=int, default=4096, metavar="N")
    parser.add_argument("--memory", default="auto")
    parser.add_argument("--peaks", type=int, nargs="*", default=[512, 1024, 2048, 4096], metavar="N")
    parser.add_argument("--cost", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--ranks", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--huge", action="store_true")
    parser.add_argument("--rank", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank(Path(options.rank[0]), int(options.rank[1]))
        return
    for name, value in machine().items():
        print(f"{name:<10} {value}")
    print(flush=True)
    if options.huge:
        huge()
        return
    if options.cost:
        cost(options.tiled, options.memory)
    if options.ranks:
        ranks()
    if options.peaks:
        peaks(options.peaks)


if __name__ == "__main__":
    main()
