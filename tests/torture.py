"""Kill runs at random instants and see what is left: nothing may be lost, half-written, or different.

    make torture        or: python tests/torture.py [--runs 20] [--kills 10] [--signals 20]

The tests keep a sample of this. Runs are transfers through a tiny network, on two levels.

kills    Every run is killed (SIGKILL) at some instants between its start and its end and started again
         by the same command; its picture must have the bytes of a run that nobody touched. A watcher
         looks at the picture's name every millisecond: there is nothing, or the finished file.
signals  SIGTERM, Ctrl-C and Ctrl-C twice, at some instants: exit codes, and a picture that opens.
mutants  Damaged pictures and bombs (`hostile`): each is read, or refused in one line, with small means.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image

import hostile

HERE = Path(__file__).resolve().parent
TINY = f"""
import signal, sys
import torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
sys.path.insert(0, {str(HERE)!r})
from conftest import make_tiny_weights
import impasto.weights
torch.set_num_threads(1)
tiny = make_tiny_weights()
impasto.weights.load = lambda *_: tiny
from impasto.__main__ import main
sys.exit(main())
"""
OPTIMIZERS = "lbfgs", "adam"


class Whole(NamedTuple):
    """What a run that nobody touched gave: its picture, and the seconds until it began and ended."""

    picture: bytes
    began: float
    ended: float


def pictures(folder: Path) -> None:
    """Write a photograph and a painting."""
    for name, seed in (("photo.png", 1), ("painting.png", 2)):
        chance = random.Random(seed)
        small = Image.new("RGB", (5, 4))
        small.putdata([tuple(chance.randrange(256) for _ in range(3)) for _ in range(20)])
        small.resize((80, 64), Image.Resampling.BICUBIC).save(folder / name)


def start(
    folder: Path, out: str, optimizer: str, iterations: int, *more: str
) -> "subprocess.Popen[str]":
    """Start a transfer in ``folder``, which keeps its states there too."""
    words = ["transfer", "photo.png", "painting.png", "-o", out, "--optimizer", optimizer]
    words += ["--size", "64", "--levels", "32", "64", "--iterations", str(iterations)]
    words += ["--checkpoint-every", "0.1", "--precision", "float32"]
    return subprocess.Popen(
        [sys.executable, "-c", TINY, *words, *more],
        cwd=folder,
        env={**os.environ, "XDG_STATE_HOME": str(folder / "state")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def untouched(folder: Path, optimizer: str, iterations: int) -> Whole:
    """Carry out a run; return its picture and its times."""
    began = time.monotonic()
    process = start(folder, f"{optimizer}.png", optimizer, iterations)
    assert process.stderr is not None
    first = 0.0
    with process:
        for line in process.stderr:
            if line.startswith("iteration 0 "):
                first = time.monotonic() - began
    assert process.returncode == 0
    return Whole((folder / f"{optimizer}.png").read_bytes(), first, time.monotonic() - began)


def pixels(content: bytes) -> bytes:
    """Return the pixels of a picture file; nothing if it is none, or a part of one."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.tobytes()
    except (OSError, SyntaxError):
        return b""


class Watch(threading.Thread):
    """Looks at a file every millisecond; remembers what was there besides nothing and ``whole``."""

    def __init__(self, path: Path, whole: bytes) -> None:
        super().__init__(daemon=True)
        # A picture is written twice, the second time with its losses: these are the same pixels.
        self.path, self.whole, self.over = path, pixels(whole), False
        self.looks, self.partial = 0, 0

    def run(self) -> None:
        """Look until it is over."""
        while not self.over:
            with contextlib.suppress(FileNotFoundError):
                self.partial += pixels(self.path.read_bytes()) != self.whole
            self.looks += 1
            time.sleep(0.001)


def killed(
    folder: Path, whole: Whole, optimizer: str, kills: int, chance: random.Random, it: int
) -> str:
    """Kill a run so many times at random instants, let it end; return what is wrong, or nothing."""
    out = folder / f"{optimizer}-killed.png"
    out.unlink(missing_ok=True)
    watch = Watch(out, whole.picture)
    watch.start()
    for _ in range(kills):
        process = start(folder, out.name, optimizer, it)
        try:
            # Most instants lie in the descent, some before it and, once much is done, after its end.
            process.communicate(timeout=chance.uniform(0.5 * whole.began, whole.ended))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    process = start(folder, out.name, optimizer, it)
    _, said = process.communicate()
    watch.over = True
    watch.join()
    if process.returncode:
        return f"exit {process.returncode}: {said}"
    if out.read_bytes() != whole.picture:
        return "another picture"
    if watch.partial:
        return f"{watch.partial} of {watch.looks} looks saw a partial file"
    left = [path.name for path in folder.rglob("*") if path.suffix in (".part", ".json", ".lock")]
    # A process that is killed while it writes leaves a temporary file; it never bears a name of ours.
    return f"left {left}" if [name for name in left if not name.endswith(".part")] else ""


def signalled(folder: Path, whole: Whole, kind: str, chance: random.Random, it: int) -> str:
    """Send a signal at a random instant of a descent; return what is wrong, or nothing."""
    out = folder / "signalled.png"
    out.unlink(missing_ok=True)
    process = start(folder, out.name, "lbfgs", it, "--fresh")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("iteration 0 "):
            break
    time.sleep(chance.uniform(0, 0.5 * (whole.ended - whole.began)))
    began = time.monotonic()
    process.send_signal(signal.SIGTERM if kind == "SIGTERM" else signal.SIGINT)
    if kind == "SIGINT twice":
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGINT)
    process.communicate()
    seconds = time.monotonic() - began
    expected = 143 if kind == "SIGTERM" else 130
    codes = (expected, 130, -signal.SIGINT) if kind == "SIGINT twice" else (expected,)
    if process.returncode not in codes:
        return f"exit {process.returncode}, not {expected}"
    if seconds > 10:
        return f"ended after {seconds:.1f} s"
    if kind != "SIGINT twice" or out.exists():
        with Image.open(out) as image:
            image.load()
    return ""


def main() -> int:
    """Do what the command line asks for; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description="Kill runs and look at what is left.")
    parser.add_argument("--runs", type=int, default=20, metavar="N")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="of each run")
    parser.add_argument("--signals", type=int, default=20, metavar="N", help="of each kind")
    parser.add_argument("--iterations", type=int, default=400, metavar="N")
    parser.add_argument("--mutants", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    chance, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong += hostile.survive(options.mutants, folder, options.seed)
        pictures(folder)
        wholes = {one: untouched(folder, one, options.iterations) for one in OPTIMIZERS}
        good = 0
        for number in range(options.runs):
            one = OPTIMIZERS[number % 2]
            said = killed(folder, wholes[one], one, options.kills, chance, options.iterations)
            good += not said
            print(
                f"run {number + 1} ({one}), {options.kills} kills: {said or 'the same bytes'}",
                flush=True,
            )
        print(f"{good} of {options.runs} runs, {options.runs * options.kills} kills: the same bytes")
        wrong += options.runs - good
        for kind in ("SIGTERM", "SIGINT", "SIGINT twice"):
            saids = [
                signalled(folder, wholes["lbfgs"], kind, chance, options.iterations)
                for _ in range(options.signals)
            ]
            good = sum(not said for said in saids)
            print(f"{kind}: {good} of {len(saids)} right {[said for said in saids if said]}", flush=True)
            wrong += len(saids) - good
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
