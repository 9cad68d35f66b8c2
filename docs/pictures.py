"""Draw the README's picture, the gallery (every loss, every control), and one recipe at three sizes.

    make pictures          or: python docs/pictures.py [readme] [gallery] [strokes]

Half an hour on two cores. Made from built-in pictures only; writes docs/gallery.md and docs/strokes.md.
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from impasto import images, measures, samples
from impasto.__main__ import main
from impasto.catalog import STYLE_LOSSES
from impasto.recipe import Recipe

HEIGHT = 384
FOLDER = Path(__file__).resolve().with_name("pictures")
PAGE = FOLDER.with_name("gallery.md")
STROKES = FOLDER.with_name("strokes.md")
SIZES = 512, 1024, 2048

COMMON = ("--size", "224", "--iterations", "60")
"""What all runs of the gallery have in common."""

TRANSFER = ("transfer", "coffee.png", "swirl.png")

FIGURE_7 = (
    *("--style-layers", "conv1_1", "conv2_1", "conv3_1", "conv4_1"),
    "--layer-weights",
)
"""The report's figure 7 names four weights; they are taken for the first four of its layers."""

CONTROLS: dict[str, tuple[str, ...]] = {
    "the default": TRANSFER,
    "less content": (*TRANSFER, "--alpha", "0.01"),
    "more content": (*TRANSFER, "--alpha", "0.1"),
    "content by self-similarity": (*TRANSFER, "--content-loss", "self-similarity"),
    "smaller strokes": (*TRANSFER, "--style-scale", "0.5"),
    "larger strokes": (*TRANSFER, "--style-scale", "2"),
    "smaller and larger strokes of one painting": (
        *("transfer", "coffee.png", "swirl.png", "swirl.png"),
        *("--style-scale", "0.4", "1.6"),
    ),
    "figure 7, deep layers": (*TRANSFER, *FIGURE_7, "0.05", "0.05", "0.1", "0.8"),
    "figure 7, shallow layers": (*TRANSFER, *FIGURE_7, "0.8", "0.1", "0.05", "0.05"),
    "shallow layers": (*TRANSFER, "--layer-weights", "geometric", "0.25"),
    "deep layers": (*TRANSFER, "--layer-weights", "geometric", "4"),
    "the photograph's colours": (*TRANSFER, "--color", "content"),
    "half of them": (*TRANSFER, "--color", "content", "--color-strength", "0.5"),
    "luminance alone": (*TRANSFER, "--color", "content", "--color-method", "luminance"),
    "the painting in the photograph's colours": (*TRANSFER, "--color", "match"),
    "denoised": (*TRANSFER, "--denoise", "0.1"),
    "mean of the iterates": (*TRANSFER, "--average", "0.9"),
    "L1 variation": (*TRANSFER, "--tv-norm", "l1"),
    "max pooling": (*TRANSFER, "--pooling", "max"),
    "two paintings, mixed": (*TRANSFER, "facets.png"),
    "their barycentre": (
        *("transfer", "coffee.png", "swirl.png", "facets.png"),
        *("--style-loss", "wasserstein", "--style-mix", "barycenter"),
    ),
    "two paintings, by region": (*TRANSFER, "facets.png", "--content-mask", "regions.png"),
    "a part kept": (*TRANSFER, "--keep", "disc.png"),
    "stronger to the right": (*TRANSFER, "--strength-map", "ramp.png"),
    "texture": ("texture", "swirl.png"),
    "tileable, laid 2x2": ("texture", "swirl.png", "--tileable", "--size", "112x112"),
}
"""Every control once: its caption and its command."""


def strip(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures side by side at one height, on white."""
    sized = [
        picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT)) for picture in pictures
    ]
    gap = 8
    canvas = Image.new("RGB", (sum(p.width for p in sized) + gap * (len(sized) - 1), HEIGHT), "white")
    left = 0
    for picture in sized:
        canvas.paste(picture, (left, 0))
        left += picture.width + gap
    return canvas


def draw(photo: str, painting: str, out: Path) -> None:
    """Stylise a built-in photograph with the defaults and write the strip of three."""
    run("transfer", f"{photo}.png", f"{painting}.png", "-o", "out.png")
    names = (f"{photo}.png", f"{painting}.png", "out.png")
    strip([Image.open(name).convert("RGB") for name in names]).save(out, quality=88)


def run(*words: str) -> None:
    """Carry out a command, or stop."""
    if main(words):
        raise SystemExit(1)


def masks() -> None:
    """Draw the masks of the gallery, over the photograph's size."""
    width, height = Image.open("coffee.png").size
    disc = Image.new("L", (width, height))
    box = (0.2 * width, 0.15 * height, 0.75 * width, 0.9 * height)
    ImageDraw.Draw(disc).ellipse(box, fill=255)
    disc.save("regions.png")
    disc.filter(ImageFilter.GaussianBlur(2)).save("disc.png")
    Image.linear_gradient("L").rotate(90).resize((width, height)).save("ramp.png")


def paint(caption: str, words: Sequence[str]) -> str:
    """Carry out a gallery's command; return its picture's cell of a table."""
    name = "".join(sign if sign.isalnum() else "-" for sign in caption.lower()) + ".jpg"
    run(*words[:1], *words[1:], *(() if "--size" in words else COMMON[:2]), *COMMON[2:], "-o", "out.png")
    picture = Image.open("out.png").convert("RGB")
    if "--tileable" in words:
        twice = Image.new("RGB", (2 * picture.width, 2 * picture.height))
        for place in range(4):
            twice.paste(picture, (place % 2 * picture.width, place // 2 * picture.height))
        picture = twice
    picture.save(FOLDER / name, quality=88)
    return f"![{caption}](pictures/{name})<br>{caption}<br>`{shlex.join(words)}`"


def rows(cells: list[str], across: int = 3) -> str:
    """Return cells as a table of Markdown."""
    cells = cells + [""] * (-len(cells) % across)
    lines = ["|" + " |" * across, "|" + "---|" * across]
    lines += [
        "| " + " | ".join(cells[start : start + across]) + " |" for start in range(0, len(cells), across)
    ]
    return "\n".join(lines)


def gallery() -> str:
    """Paint everything; return the page."""
    masks()
    for name in ("coffee", "swirl", "facets"):
        picture = Image.open(f"{name}.png").convert("RGB")
        picture.thumbnail((224, 224))
        picture.save(FOLDER / f"{name}.jpg", quality=88)
    losses = [paint(name, (*TRANSFER, "--style-loss", name)) for name in STYLE_LOSSES]
    controls = [paint(caption, words) for caption, words in CONTROLS.items()]
    sources = [f"![{name}](pictures/{name}.jpg)<br>{name}.png" for name in ("coffee", "swirl", "facets")]
    return "\n\n".join(
        [
            "# Gallery",
            "Drawn by `make pictures` from the built-in pictures (`impasto samples DIR`), all with\n"
            f"`{shlex.join(COMMON)}` besides what stands below each.",
            rows(sources),
            "## Every style loss, at the default balance",
            rows(losses),
            "## Every control",
            rows(controls) + "\n",
        ]
    )


def strokes() -> str:
    """Paint one recipe at several sizes, shrunk to the first; return the page, with measures."""
    samples.painting("swirl", max(SIZES)).save("large.png")
    content, style = images.read(Path("coffee.png")), images.read(Path("large.png"))
    shown: list[Image.Image] = []
    columns = []
    for size in SIZES:
        run("transfer", "coffee.png", "large.png", "--size", str(size), *COMMON[2:], "-o", "out.png")
        picture = Image.open("out.png").convert("RGB")
        if shown:
            picture = picture.resize(shown[0].size, Image.Resampling.LANCZOS)
        shown.append(picture)
        picture.save("shrunk.png")
        picture.save(FOLDER / f"strokes-{size}.jpg", quality=88)
        recipe = Recipe(size=SIZES[0])
        found = measures.measure(recipe, images.read(Path("shrunk.png")), content, style)
        losses = {"content loss": found.losses.content, "style loss": found.losses.style}
        columns.append({**losses, **{f"`{name}`": value for name, value in found.measures.items()}})
    lines = [
        f"| of the picture at {SIZES[0]} px | {' | '.join(f'{size} px' for size in SIZES)} |",
        "|---" * (1 + len(SIZES)) + "|",
        *(
            f"| {name} | " + " | ".join(f"{column[name]:.4g}" for column in columns) + " |"
            for name in columns[0]
        ),
    ]
    cells = [f"![{size} px](pictures/strokes-{size}.jpg)<br>{size} px" for size in SIZES]
    return "\n\n".join(
        [
            "# One recipe at three sizes",
            "A painting is brought to the picture's long side (`--style-scale` times that), so that\n"
            "its strokes are as large in a preview as in a print. Drawn by `make pictures`:\n"
            f"`transfer coffee.png swirl.png {shlex.join(COMMON[2:])}` with a `--size` of\n"
            f"{', '.join(map(str, SIZES))}, the larger ones shrunk to {SIZES[0]} px.",
            rows(cells),
            "The same three by `impasto measure`, under the recipe of the smallest;\n"
            "[measures.md](measures.md) says what each is.",
            "\n".join(lines) + "\n",
        ]
    )


if __name__ == "__main__":
    parts = sys.argv[1:] or ["readme", "gallery", "strokes"]
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        main(["samples", folder])
        os.chdir(folder)
        if "readme" in parts:
            draw("chelsea", "swirl", FOLDER / "readme.jpg")
        if "gallery" in parts:
            PAGE.write_text(gallery(), encoding="utf-8")
        if "strokes" in parts:
            STROKES.write_text(strokes(), encoding="utf-8")
