"""Draw the README's picture: a photograph, a painting, and what the default makes of them.

    make pictures

About two minutes on two cores. Made from built-in pictures only.
"""

import tempfile
from pathlib import Path

from PIL import Image

from impasto.__main__ import main

HEIGHT = 384
FOLDER = Path(__file__).with_name("pictures")


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
    with tempfile.TemporaryDirectory() as folder:
        main(["samples", folder])
        content, style, picture = (Path(folder, f"{name}.png") for name in (photo, painting, "out"))
        if main(["transfer", str(content), str(style), "-o", str(picture)]):
            raise SystemExit(1)
        strip([Image.open(path).convert("RGB") for path in (content, style, picture)]).save(
            out, quality=88
        )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    draw("chelsea", "swirl", FOLDER / "readme.jpg")
