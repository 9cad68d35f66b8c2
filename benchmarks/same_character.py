"""Does the same recipe give a picture of the same character at every size?

    python benchmarks/same_character.py [--pictures DIR] [--sizes 256 512 1024] [--iterations N]

Runs the default recipe at each size, in the precision that `auto` is, and measures what an 8-bit file
would hold: the content's and the style's balanced losses, in float32, at the picture's own size. The
aim is a content loss within 15 % of its mean over the sizes. About a quarter of an hour at 256 to 1024
px on two cores without bf16 instructions.
"""

import argparse
import time
from pathlib import Path

from common import machine, pairs, table
from impasto import images, measures, transfer
from impasto.recipe import Recipe


def main() -> None:
    """Run, measure, print a table."""
    parser = argparse.ArgumentParser(description="One recipe at several sizes.")
    parser.add_argument("--pictures", type=Path, metavar="DIR")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], metavar="N")
    parser.add_argument("--iterations", type=int, default=Recipe().iterations, metavar="N")
    options = parser.parse_args()
    for name, value in machine().items():
        print(f"{name:<10} {value}")
    print(flush=True)
    ((_, content, style),) = pairs(options.pictures, 1)
    found = []
    for size in options.sizes:
        recipe = Recipe(size=size, iterations=options.iterations)
        began = time.monotonic()
        picture = transfer.picture(content, style, size=size, iterations=options.iterations)
        seconds = time.monotonic() - began
        saved = images.to_8_bit(picture).permute(2, 0, 1).float() / 255
        found.append((size, measures.losses(recipe, saved, content, style), seconds))
    mean = sum(losses.content for _, losses, _ in found) / len(found)
    rows = [
        [
            str(size),
            f"{losses.content:.3f}",
            f"{losses.content / mean - 1:+.1%}",
            f"{losses.style:.4f}",
            f"{seconds:.0f}",
        ]
        for size, losses, seconds in found
    ]
    print(table(["size", "content", "from the mean", "style", "seconds"], rows))


if __name__ == "__main__":
    main()
