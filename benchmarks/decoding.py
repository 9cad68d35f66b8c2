"""What decoding in a child costs: the same files read by it and in the program, in turns, medians.

python benchmarks/decoding.py [--rounds 11]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy
import torch
from PIL import Image

from impasto import child, images


def pictures(folder: Path) -> list[Path]:
    """Write a small picture and three of 12 megapixels, with some noise."""
    chance = numpy.random.default_rng(0)
    coarse = Image.fromarray(chance.integers(0, 256, (300, 400, 3), dtype=numpy.uint8))
    smooth = numpy.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC)).astype(int)
    levels = (smooth + chance.integers(-6, 7, smooth.shape)).clip(0, 255).astype(numpy.uint8)
    names = ("320x320.png", "12 MP.jpg", "12 MP.png", "12 MP, 16 bits.png")
    small, jpeg, png, deep = (folder / name for name in names)
    Image.fromarray(levels[:320, :320]).save(small)
    Image.fromarray(levels).save(jpeg, quality=92)
    Image.fromarray(levels).save(png)
    deep.write_bytes(imagecodecs.png_encode(levels.astype(numpy.uint16) * 257))
    return [small, jpeg, png, deep]


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, metavar="N")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        paths = pictures(Path(name))
        cold = []
        for _ in range(rounds):
            child.stop()
            cold.append(seconds(lambda: images.read(paths[0])))
        print(f"the first file, for which the server starts: {1e3 * statistics.median(cold):.0f} ms")
        print("| file | child, ms | in the program, ms | more |\n|---|---|---|---|")
        for path in paths:
            by_child, here = [], []
            for _ in range(rounds if path is not paths[0] else 4 * rounds):
                by_child.append(seconds(lambda path=path: images.read(path)))  # type: ignore[misc]
                with images.trusted():
                    here.append(seconds(lambda path=path: images.read(path)))  # type: ignore[misc]
            ours, theirs = 1e3 * statistics.median(by_child), 1e3 * statistics.median(here)
            print(f"| {path.name} | {ours:.0f} | {theirs:.0f} | {ours - theirs:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
