"""Draw the README's picture and the gallery: what the defaults make, every loss, every control.

    make pictures

A quarter of an hour on two cores. Made from built-in pictures only; writes docs/gallery.md too.
"""

import os
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from impasto.__main__ import main
from impasto.catalog import STYLE_LOSSES

HEIGHT = 384
FOLDER = Path(__file__).resolve().with_name("pictures")
PAGE = FOLDER.with_name("gallery.md")

COMMON = ("--size", "224", "--iterations", "60")
"""What all runs of the gallery have in common."""

TRANSFER = ("transfer", "coffee.png", "swirl.png")

CONTROLS: dict[str, tuple[str, ...]] = {
    "the default": TRANSFER,
    "less content": (*TRANSFER, "--alpha", "0.01"),
    "more content": (*TRANSFER, "--alpha", "0.1"),
    "content by self-similarity": (*TRANSFER, "--content-loss", "self-similarity"),
    "smaller strokes": (*TRANSFER, "--style-scale", "0.5"),
    "larger strokes": (*TRANSFER, "--style-scale", "2"),
    "shallow layers": (*TRANSFER, "--layer-weights", "geometric", "0.25"),
    "deep layers": (*TRANSFER, "--layer-weights", "geometric", "4"),
    "the photograph's colours": (*TRANSFER, "--color", "content"),
    "luminance alone": (*TRANSFER, "--color", "content", "--color-method", "luminance"),
    "the painting in the photograph's colours": (*TRANSFER, "--color", "match"),
    "denoised": (*TRANSFER, "--denoise", "0.1"),
    "mean of the iterates": (*TRANSFER, "--average", "0.9"),
    "L1 variation": (*TRANSFER, "--tv-norm", "l1"),
    "max pooling": (*TRANSFER, "--pooling", "max"),
    "two paintings, mixed": (*TRANSFER, "facets.png"),
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


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        main(["samples", folder])
        os.chdir(folder)
        draw("chelsea", "swirl", FOLDER / "readme.jpg")
        PAGE.write_text(gallery(), encoding="utf-8")
