"""Do the measures rank pictures as eyes do?

    python benchmarks/ranking.py draw --pictures DIR OUT
    python benchmarks/ranking.py compare OUT

draw     Makes ten pictures of each of three pairs, from a good recipe to spoilt ones, in OUT, and a
         sheet of each pair under letters that say nothing of the recipe.
compare  Kendall's tau of every measure with the order that eyes gave those pictures (`EYES`, written
         down from the sheets before any measure was taken): 1 the same order, 0 none, -1 turned round.

The three pairs: two of the report's, in DIR, and a built-in one.
"""

import argparse
import random
import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean

from PIL import Image, ImageDraw

from common import machine, table
from impasto import images, measures, quality, samples
from impasto.__main__ import main as impasto
from impasto.recipe import Recipe

COMMON = ("--size", "256", "--iterations", "60")

RECIPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "more content": ("--alpha", "0.3"),
    "more style": ("--alpha", "0.003"),
    "wasserstein": ("--style-loss", "wasserstein"),
    "nearest": ("--style-loss", "nearest"),
    "shallow layers": ("--style-layers", "conv1_1", "conv2_1"),
    "from noise": ("--init", "noise", "--tv", "0", "--padding", "zeros", "--pooling", "max"),
    "unfinished": ("--iterations", "6"),
    "the photograph's colours": ("--color", "content"),
    "too smooth": ("--denoise", "0.4"),
}
"""Ten recipes: their name and their options."""

PAIRS = {
    "starry": ("neckarfront-tuebingen.jpg", "starry-night.jpg"),
    "femme": ("neckarfront-tuebingen.jpg", "femme-nue-assise.jpg"),
    "astronaut": ("astronaut.png", "facets.png"),
}
"""Photograph and painting of each pair."""

EYES = {"starry": "JAFCEHGIDB", "femme": "IJBDCFGEHA", "astronaut": "CIAFBEDJGH"}
"""The letters of each pair's sheet, from the best picture to the worst."""

LETTERS = "ABCDEFGHIJ"


def lettered(pair: str) -> dict[str, str]:
    """Return the recipe behind each letter of a pair's sheet."""
    shuffled = list(RECIPES)
    random.Random(pair).shuffle(shuffled)
    return dict(zip(LETTERS, shuffled, strict=True))


def sources(pair: str, pictures: Path | None, folder: Path) -> tuple[Path, Path]:
    """Return photograph and painting of a pair, from ``pictures`` or, built-in, in ``folder``."""
    photo, painting = PAIRS[pair]
    if photo.endswith(".jpg"):
        if pictures is None:
            raise SystemExit(f"{photo} and {painting}: say where they are with --pictures DIR")
        return pictures / photo, pictures / painting
    paths = folder / photo, folder / painting
    samples.photo(paths[0].stem).save(paths[0])
    samples.painting(paths[1].stem).save(paths[1])
    return paths


def draw(pictures: Path | None, out: Path) -> None:
    """Make the pictures of every pair, and its sheet."""
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        for pair in PAIRS:
            content, style = sources(pair, pictures, Path(name))
            tiles = []
            for letter, recipe in lettered(pair).items():
                to = out / f"{pair}-{letter}.png"
                words = ("transfer", str(content), str(style), "-o", str(to))
                if not to.exists() and impasto((*words, *COMMON, *RECIPES[recipe])):
                    raise SystemExit(1)
                tiles.append((letter, to))
            sheet([*tiles, ("photograph", content), ("painting", style)]).save(out / f"{pair}.png")


def sheet(pictures: Sequence[tuple[str, Path]], columns: int = 4, side: int = 384) -> Image.Image:
    """Return pictures in rows, a caption over each."""
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * side, rows * (side + 16)), "white")
    for index, (caption, path) in enumerate(pictures):
        left, top = index % columns * side, index // columns * (side + 16)
        picture = Image.open(path).convert("RGB")
        scale = (side - 8) / max(picture.size)
        width, height = (round(scale * length) for length in picture.size)
        ImageDraw.Draw(canvas).text((left, top), caption, fill="black")
        canvas.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, top + 14))
    return canvas


def tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's tau-b of two lists of the same things' places; 0 where one is all ties.

    Reference: Kendall, "The treatment of ties in ranking problems" (1945).

    Example:
        >>> tau([1, 2, 3], [10, 20, 30]), tau([1, 2, 3], [3, 2, 1]), tau([1, 2], [5, 5])
        (1.0, -1.0, 0.0)
    """

    def sign(x: float) -> int:
        return (x > 0) - (x < 0)

    pairs = [
        (sign(a - b), sign(c - d)) for (a, c), (b, d) in combinations(zip(one, other, strict=True), 2)
    ]
    untied = [sum(bool(x) for x in column) for column in zip(*pairs, strict=True)]
    agreed = sum(x * y for x, y in pairs)
    return agreed / (untied[0] * untied[1]) ** 0.5 if all(untied) else 0.0


def compare(pictures: Path | None, out: Path) -> None:
    """Print the tau of every measure with the eyes' order, per pair and in the mean."""
    taus: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for pair, order in EYES.items():
            content, style = map(images.read, sources(pair, pictures, Path(name)))
            found = {}
            for letter in order:
                seen = measures.measure(
                    Recipe(), images.read(out / f"{pair}-{letter}.png"), content, style
                )
                found[letter] = {
                    "loss: total": -seen.losses.total,
                    "loss: content": -seen.losses.content,
                    "loss: style": -seen.losses.style,
                    **{key: _upward(key, value) for key, value in seen.measures.items()},
                }
            places = [-order.index(letter) for letter in order]
            for key in found[order[0]]:
                taus.setdefault(key, []).append(tau(places, [found[letter][key] for letter in order]))
    rows = [
        [key, *(f"{one:+.2f}" for one in several), f"{mean(several):+.2f}"]
        for key, several in sorted(taus.items(), key=lambda item: -mean(item[1]))
    ]
    print(table(["measure", *EYES, "mean"], rows))


def _upward(name: str, value: float) -> float:
    return value if quality.MEASURES[name].better == "higher" else -value


def main() -> None:
    """Draw or compare."""
    parser = argparse.ArgumentParser(description="Measures against eyes.")
    parser.add_argument("action", choices=("draw", "compare"))
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    options = parser.parse_args()
    for name, value in machine().items():
        print(f"{name:<10} {value}")
    (draw if options.action == "draw" else compare)(options.pictures, options.out)


if __name__ == "__main__":
    main()
