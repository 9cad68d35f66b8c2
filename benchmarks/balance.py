"""Do the style losses paint as strongly as each other, and what do they cost?

    python benchmarks/balance.py [--pictures DIR] [--size 160] [--iterations 50] [--losses NAME ...]

strength   Runs every style loss at the same alpha and beta and prints the content's relative error of
           what an 8-bit file would hold. The aim is within 25 % of Gram's: `SummaryLoss.balance` is set
           from it. The error of Gram matrices stands beside: how far each loss goes towards them too.
cost       One evaluation at 512 px of every loss, interleaved with one of Gram's; the median of the
           ratios. The aim is 1.3, and 2 for nearest, nearest-patches, sliced and wasserstein.

`--no-strength` and `--no-cost` leave a part out.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from common import machine, table

# torch reads what `common` sets
# isort: split
import torch
from torch import Tensor

from impasto import images, measures, memory, plan, samples, transfer, weights
from impasto.catalog import STYLE_LOSSES
from impasto.objective import Objective
from impasto.recipe import Recipe
from impasto.vgg import VGG19

REPORT = ("starry-night.jpg", "femme-nue-assise.jpg", "shipwreck-of-the-minotaur.jpg")


def pairs(folder: Path | None) -> list[tuple[str, Tensor, Tensor]]:
    """Return photographs and paintings: the report's from a folder, or built-in ones."""
    if folder:
        content = images.read(folder / "neckarfront-tuebingen.jpg")
        return [(name, content, images.read(folder / name)) for name in REPORT]
    found = []
    with tempfile.TemporaryDirectory() as name:
        for photo, painting in (("coffee", "swirl"), ("astronaut", "dabs")):
            paths = Path(name, "photo.png"), Path(name, "painting.png")
            samples.photo(photo).save(paths[0])
            samples.painting(painting).save(paths[1])
            content, style = map(images.read, paths)
            found.append((f"{photo} {painting}", content, style))
    return found


def strength(names: list[str], folder: Path | None, size: int, iterations: int) -> None:
    """Print how far from the content every loss leads."""
    for pair, content, style in pairs(folder):
        rows, first = [], 0.0
        for name in names:
            fields = {"size": size, "iterations": iterations, "levels": (1,)}
            picture = transfer.picture(content, style, style_loss=(name,), **fields)
            saved = images.to_8_bit(picture).permute(2, 0, 1).float() / 255
            found = measures.losses(Recipe(**fields), saved, content, style)  # type: ignore[arg-type]
            first = first or found.content
            rows.append(
                [name, f"{found.content:.3f}", f"{found.content / first - 1:+.0%}", f"{found.style:.3f}"]
            )
        print(f"{pair}, {size} px, {iterations} iterations")
        print(table(["style loss", "content", f"from {names[0]}", "gram error"], rows), flush=True)


def cost(names: list[str], side: int = 512, rounds: int = 5) -> None:
    """Print what an evaluation costs over one of Gram matrices."""
    pictures = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    memory.keep(ample=True)
    objectives = {}
    for name in dict.fromkeys(("gram", *names)):
        recipe = Recipe(style_loss=(name,), size=side)
        made = plan.make(recipe, (side, side), (side, side))
        network = VGG19.of(recipe, weights.load(), made.precision, made.device, made.by_winograd)
        pictures = pictures.to(made.device)
        objectives[name] = Objective(recipe, network, pictures[0], [pictures[1]])
    ratios: dict[str, list[float]] = {name: [] for name in objectives}
    for _ in range(rounds):
        for name, objective in objectives.items():
            spent = []
            for one in (objectives["gram"], objective):
                began = time.perf_counter()
                one(pictures[2]).gradient.flatten()[0].item()  # wait: a GPU answers before it is done
                spent.append(time.perf_counter() - began)
            ratios[name].append(spent[1] / spent[0])
    rows = [[name, f"{median(found):.2f}"] for name, found in ratios.items()]
    print(f"one evaluation at {side} px")
    print(table(["style loss", "over gram's"], rows), flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description="Style losses side by side.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--size", type=int, default=160, metavar="N")
    parser.add_argument("--iterations", type=int, default=50, metavar="N")
    parser.add_argument("--losses", nargs="+", default=list(STYLE_LOSSES), choices=list(STYLE_LOSSES))
    parser.add_argument("--strength", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cost", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    for name, value in machine().items():
        print(f"{name:<10} {value}")
    print(flush=True)
    if options.strength:
        strength(options.losses, options.pictures, options.size, options.iterations)
    if options.cost:
        cost(options.losses)


if __name__ == "__main__":
    main()
