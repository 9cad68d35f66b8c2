"""Everything that tests keep a sample of, at length: one line for each kind of trouble.

    make torture        or: python tests/torture.py [SECTION ...] [--runs 20] [--kills 10] [--signals 20]

Runs are transfers through a tiny network, on two levels.

kills    Every run is killed (SIGKILL) so many times, at random instants between its start and its end,
         and started again by the same command; its picture must have the bytes of a run that nobody
         touched. A watcher looks at its name every millisecond: there is nothing, or the finished file.
signals  SIGTERM, Ctrl-C and Ctrl-C twice, at random instants: exit codes, a picture that opens, a state
         that is whole.
sweep    A sweep of 40 runs by two processes that are killed ten times, in the midst of a run: results
         have the bytes of a sweep in one process, no run ends twice, and all listen on loopback.
faults   The N-th open, read, write, fsync, rename, ... fails, for every N (`faults`).
mounts   A disk that is really full, at every number of pages left, and one that is really read-only.
weights  Files made to harm whoever reads weights, styles and states (`test_hostile_weights`).
mutants  Damaged pictures and bombs (`hostile`): each is read, or refused in one line, with small means.
guards   Each guard is removed in turn, and a test notices (`guards`).

Another section is a function that takes the options, prints, and returns how much was wrong: a row of
`SECTIONS`.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from PIL import Image

import faults
import guards
import hostile
import test_hostile_weights as hostile_weights
from conftest import make_tiny_weights
from impasto import checkpoint, weights

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


def pictures(folder: Path) -> None:
    """Write a photograph and a painting."""
    for name, seed in (("photo.png", 1), ("painting.png", 2)):
        chance = random.Random(seed)
        small = Image.new("RGB", (5, 4))
        small.putdata([tuple(chance.randrange(256) for _ in range(3)) for _ in range(20)])
        small.resize((80, 64), Image.Resampling.BICUBIC).save(folder / name)


# --- processes that are killed or asked to end ----------------------------------------------------


class Whole(NamedTuple):
    """What a run that nobody touched gave: its picture, and the seconds until it began and ended."""

    picture: bytes
    began: float
    ended: float


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


class Watch(threading.Thread):
    """Looks at a file every millisecond; remembers what was there besides nothing and ``whole``."""

    def __init__(self, path: Path, whole: bytes) -> None:
        super().__init__(daemon=True)
        # A picture is written twice, the second time with its losses: these are the same pixels.
        self.path, self.whole, self.over = path, whole, False
        self.looks, self.partial = 0, 0

    def run(self) -> None:
        """Look until it is over."""
        while not self.over:
            with contextlib.suppress(FileNotFoundError):
                self.partial += not faults.same(self.path.read_bytes(), self.whole)
            self.looks += 1
            time.sleep(0.001)


class Killed(NamedTuple):
    """What became of a run: what is wrong, how often it went on from a state, and looks at its name."""

    wrong: str
    resumed: int = 0
    looks: int = 0


def killed(
    folder: Path, whole: Whole, optimizer: str, kills: int, chance: random.Random, it: int
) -> Killed:
    """Kill a run so many times at random instants, and let it end."""
    out = folder / f"{optimizer}-killed.png"
    out.unlink(missing_ok=True)
    watch = Watch(out, whole.picture)
    watch.start()
    left, resumed = kills, 0
    while True:
        process = start(folder, out.name, optimizer, it)
        # Most instants lie in the descent, some before it. A run may end before its instant has come:
        # that is no kill, and the next one begins anew, over its picture.
        until = chance.uniform(0.5 * whole.began, whole.ended) if left else None
        try:
            _, said = process.communicate(timeout=until)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
        resumed += "resumed at iteration" in said
        if process.returncode == -signal.SIGKILL:
            left -= 1
        elif process.returncode or not left:
            break
    watch.over = True
    watch.join()
    return Killed(
        _after_kills(folder, out, whole, process.returncode, said, watch), resumed, watch.looks
    )


def _after_kills(folder: Path, out: Path, whole: Whole, status: int, said: str, watch: Watch) -> str:
    if status:
        return f"exit {status}: {said}"
    if out.read_bytes() != whole.picture:
        return "another picture"
    if watch.partial:
        return f"{watch.partial} of {watch.looks} looks saw a partial file"
    left = [path.name for path in folder.rglob("*") if path.suffix in (".part", ".json", ".lock")]
    # A process that is killed while it writes leaves a temporary file; it never bears a name of ours.
    return f"left {left}" if [name for name in left if not name.endswith(".part")] else ""


def kills(options: argparse.Namespace) -> int:
    """Kill so many runs so many times each."""
    chance, ended = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder)
        wholes = {one: untouched(folder, one, options.iterations) for one in OPTIMIZERS}
        for number in range(options.runs):
            one = OPTIMIZERS[number % 2]
            said = killed(folder, wholes[one], one, options.kills, chance, options.iterations)
            ended.append(said)
            if said.wrong:
                print(f"run {number + 1} ({one}): {said.wrong}", flush=True)
    good = sum(not one.wrong for one in ended)
    print(
        f"kills: {good} of {len(ended)} runs end in the same bytes after {options.kills} SIGKILLs each; "
        f"{sum(one.resumed for one in ended)} times one went on from a state; "
        f"{sum(one.looks for one in ended)} looks at the picture's name",
        flush=True,
    )
    return len(ended) - good


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
    for state in (folder / "state").glob("impasto/runs/*"):
        if list(state.glob("*.json")) and checkpoint.load(state) is None:
            return "no state is whole"
    if kind != "SIGINT twice" or out.exists():
        with Image.open(out) as image:
            image.load()
    return ""


def signals(options: argparse.Namespace) -> int:
    """Send every signal so many times."""
    chance = random.Random(options.seed)
    kinds = options.signals * ("SIGTERM", "SIGINT", "SIGINT twice")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder)
        whole = untouched(folder, "lbfgs", options.iterations)
        # So many iterations that no run ends before its signal.
        saids = [signalled(folder, whole, kind, chance, 50 * options.iterations) for kind in kinds]
    wrong = [f"{kind}: {said}" for kind, said in zip(kinds, saids, strict=True) if said]
    print("\n".join([*wrong, f"signals: {len(kinds) - len(wrong)} of {len(kinds)} right"]), flush=True)
    return len(wrong)


# --- sweeps whose workers are killed ----------------------------------------------------------------


def children(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *children(child)]
    return found


def opened(process: int) -> Iterator[str]:
    """Yield what a process has open, by the names of its links in /proc."""
    for link in Path(f"/proc/{process}/fd").glob("*"):
        with contextlib.suppress(OSError):
            yield str(link.readlink())


def listening(processes: Sequence[int]) -> list[str]:
    """Return the addresses, in hexadecimal digits, that processes listen on."""
    theirs = {name for process in processes for name in opened(process)}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in theirs:
                found.append(address)
    return found


def left_of(processes: Sequence[int]) -> list[int]:
    """Return the processes that are still there when what has lost its parent has had time to end."""
    for _ in range(50):
        if not (found := [one for one in processes if Path(f"/proc/{one}").exists()]):
            break
        time.sleep(0.1)
    return found


def sweeping(folder: Path, out: str, count: int, iterations: int, *more: str) -> "subprocess.Popen[str]":
    """Start a sweep of so many runs in ``folder``, in a process group of its own."""
    words = ["sweep", "photo.png", "painting.png", "--vary", "beta=1,2", "--seeds", str(count // 2)]
    words += ["--size", "64", "--levels", "1", "--iterations", str(iterations), "--init", "noise"]
    words += ["--optimizer", "adam", "--precision", "float32", "--checkpoint-every", "0.1", "-o", out]
    tiny = HERE / "tiny.py"
    more_of_it = {
        "XDG_STATE_HOME": str(folder / "state"),
        "IMPASTO_TOLD": str(folder / f"{out}.told"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(tiny), *words, *more],
        cwd=folder,
        env={**os.environ, **more_of_it},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def results(folder: Path) -> dict[str, bytes]:
    """Return the files of all runs by name, but for those that tell of seconds."""
    apart = ("seconds.csv", "run.json")
    found = (path for path in folder.glob("runs/*/**/*") if path.is_file() and path.name not in apart)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class Swept(NamedTuple):
    """What became of a sweep: what is wrong, and how often a worker was killed and a run went on."""

    wrong: str
    kills: int = 0
    resumed: int = 0
    listening: int = 0


def swept(folder: Path, serial: dict[str, bytes], kills: int, chance: random.Random, it: int) -> Swept:
    """Carry out a sweep by two workers, of which one is killed now and then, to these results."""
    count = sum(name.endswith("picture.png") for name in serial)
    process = sweeping(folder, "killed", count, it, "--workers", "2")
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.stderr or ()), daemon=True)
    victims, addresses = list[str](), set[str]()
    with process:
        reader.start()
        while process.poll() is None:
            family = [process.pid, *children(process.pid)]
            addresses |= set(listening(family))
            # Twice is what a run bears for sure. As the work goes on, so do the kills.
            busy = {one: log for one in family[1:] for log in opened(one) if log.endswith("losses.csv")}
            busy = {one: log for one, log in busy.items() if victims.count(log) < 2}
            done = len(list((folder / "killed").glob("runs/*/run.json")))
            if len(victims) < kills and busy and kills * (done + 1) > len(victims) * count:
                time.sleep(chance.uniform(0, 0.5))
                victim = chance.choice(list(busy))
                if busy[victim] in opened(victim):
                    os.kill(victim, signal.SIGKILL)
                    victims.append(busy[victim])
            time.sleep(0.1)
        reader.join()
    if process.returncode:
        return Swept(f"exit {process.returncode}: {''.join(told)}", len(victims))
    lines = (folder / "killed.told").read_text().splitlines()
    ended = [line for line in lines if line.startswith("ended")]
    numbers = len(victims), sum(line.startswith("resumed") for line in lines), len(addresses)
    if results(folder / "killed") != serial:
        return Swept("other results than in one process", *numbers)
    if twice := [line for line in set(ended) if ended.count(line) > 1]:
        return Swept(f"computed twice: {twice}", *numbers)
    if outside := [one for one in addresses if not one.startswith("0100007F:")]:
        return Swept(f"listens on {outside}", *numbers)
    if processes := left_of(family[1:]):
        return Swept(f"left the processes {processes}", *numbers)
    return Swept("" if len(victims) == kills else "too few kills found a run", *numbers)


def sweep(options: argparse.Namespace) -> int:
    """Kill the workers of a sweep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(folder)
        with sweeping(folder, "serial", 40, options.iterations) as process:
            process.communicate()
        serial, chance = results(folder / "serial"), random.Random(options.seed)
        said = swept(folder, serial, 10, chance, options.iterations)
    print(
        f"sweep: {said.wrong or '40 results of two workers have the bytes of one process'}; "
        f"{said.kills} SIGKILLs, {said.resumed} times a run went on from its state; "
        f"{said.listening} addresses listened on",
        flush=True,
    )
    return int(bool(said.wrong))


# --- runs in this process ------------------------------------------------------------------------


@contextlib.contextmanager
def stage(folder: Path, scene: str) -> Iterator[faults.Stage]:
    """Make a scene ready in a folder, through the tiny network."""
    before, tiny = Path.cwd(), make_tiny_weights()
    pictures(folder)
    with patch.dict(os.environ), patch.object(weights, "load", lambda *_: tiny), faults.quick():
        faults.keep_here(folder, os.environ.__setitem__)
        os.chdir(folder)
        try:
            yield faults.Stage(folder, faults.SCENES[scene])
        finally:
            os.chdir(before)


def all_faults(_: argparse.Namespace) -> int:
    """Let every call of every kind fail, once and from then on, with every code."""
    count, wrong = 0, []
    for scene in faults.SCENES:
        if scene == "samples":  # whose pictures take long to draw: the tests draw one
            continue
        with tempfile.TemporaryDirectory() as name, stage(Path(name), scene) as ready:
            for kind in faults.KINDS:
                for code in faults.CODES:
                    for lasting in (False, True):
                        calls, said = faults.every(ready, kind, code, lasting)
                        count += calls
                        wrong += [f"{scene}: {one}" for one in said]
    print(
        "\n".join([*wrong, f"faults: {count} calls failed in turn, {len(wrong)} went wrong"]), flush=True
    )
    return len(wrong)


PAGE = 4096
PAGES = 1024
SPARE = 80
"""The most pages that a run is left: with so many it ends, and keeps its states."""


@contextlib.contextmanager
def full(folder: Path, spare: int) -> Iterator[None]:
    """Fill a file system but for some pages."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(PAGE)) == PAGE:
            pass
    os.truncate(filler, max(0, filler.stat().st_size // PAGE - spare) * PAGE)
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Mount a file system read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def in_mounts(folder: Path) -> int:
    """Mount a small file system over a folder, and run in it while it is full, and read-only."""
    options = f"size={PAGES * PAGE},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "impasto", str(folder)], check=True)
    wrong, refused = [], 0
    for scene in ("a run", "a run that goes on"):
        with stage(folder, scene) as ready:
            troubles = {f"{spare} pages left": full(folder, spare) for spare in range(SPARE + 1)}
            for what, trouble in {**troubles, "read-only": read_only(folder)}.items():
                ready.reset()
                said = ready.disturbed(trouble)
                refused += ready.last.code != 0
                if said or ready.parts:
                    wrong.append(f"{scene}, {what}: {said or ready.parts}")
            ready.reset()
            for path in filter(Path.is_file, folder.iterdir()):
                path.unlink()
    print(
        "\n".join(wrong),
        f"mounts: {2 * (SPARE + 2)} runs on a full or read-only disk, {refused} refused, "
        f"{len(wrong)} went wrong",
        sep="\n" if wrong else "",
        flush=True,
    )
    return int(bool(wrong))


def mounts(_: argparse.Namespace) -> int:
    """Do `in_mounts` where mounts are seen by nobody else, if the system lets us."""
    script = "import sys, pathlib, torture; sys.exit(torture.in_mounts(pathlib.Path(sys.argv[1])))"
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        with tempfile.TemporaryDirectory() as name:
            try:
                able = subprocess.run(
                    [*unshare, "mount", "-t", "tmpfs", "none", name], check=False, capture_output=True
                )
            except FileNotFoundError:
                break
            if able.returncode == 0:
                words = [*unshare, sys.executable, "-c", script, name]
                return subprocess.run(words, check=False, cwd=HERE).returncode
    print("mounts: not permitted here; the section faults and tests/test_faults.py stand for them")
    return 0


def harmful(_: argparse.Namespace) -> int:
    """Read every hostile file as weights, as a style and as a state."""
    count, wrong = 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trace = folder / "trace"

        def files() -> Iterator[tuple[str, Callable[[Path], object]]]:
            for program, value in hostile_weights.programs(trace).items():
                for container, make in hostile_weights.CONTAINERS.items():
                    data = make(value)
                    yield f"{program} in {container}", lambda path, data=data: path.write_bytes(data)
            for lie, tell in hostile_weights.LIES.items():
                data = tell()
                yield lie, lambda path, data=data: path.write_bytes(data)
            yield from hostile_weights.PLACES.items()

        for what, put in files():
            count += 1
            for suffix in hostile_weights.SUFFIXES:
                path = folder / f"hostile{suffix}"
                put(path)
                for reader, read in hostile_weights.READERS.items():
                    if said := hostile_weights.refused(read, path):
                        wrong.append(f"{what}{suffix} as {reader}: {said}")
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
            if trace.exists():
                wrong.append(f"{what} was run")
                trace.unlink()
    said = f"weights: {count} hostile files under {len(hostile_weights.SUFFIXES)} suffixes"
    print("\n".join([*wrong, f"{said}: {len(wrong)} run or not refused"]), flush=True)
    return len(wrong)


def mutants(options: argparse.Namespace) -> int:
    """Read all bombs and so many damaged pictures."""
    with tempfile.TemporaryDirectory() as name:
        return hostile.survive(options.mutants, Path(name), options.seed)


SECTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "kills": kills,
    "signals": signals,
    "sweep": sweep,
    "faults": all_faults,
    "mounts": mounts,
    "weights": harmful,
    "mutants": mutants,
    "guards": lambda _: guards.main(),
}


def main() -> int:
    """Do what the command line asks for; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description="Make trouble, and look at what is left.")
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=" ".join(SECTIONS))
    parser.add_argument("--runs", type=int, default=20, metavar="N")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="of each run")
    parser.add_argument("--signals", type=int, default=20, metavar="N", help="of each kind")
    parser.add_argument("--iterations", type=int, default=400, metavar="N")
    parser.add_argument("--mutants", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]}; there are {' '.join(SECTIONS)}")
    torch.set_num_threads(1)
    return int(sum(SECTIONS[name](options) for name in options.sections or SECTIONS) > 0)


if __name__ == "__main__":
    sys.exit(main())
