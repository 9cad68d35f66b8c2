"""Many runs, each in a folder of its own: what is there, what is missing, where it is computed.

    OUT/inputs/                  pictures by their SHA-256, where runs are carried out elsewhere
    OUT/runs/DIGEST/picture.png  a picture, as any run writes it
        recipe.toml              its recipe
        losses.csv, seconds.csv  the losses of each iteration; when it was done
        steps/00100.png          pictures on the way
        run.json                 measures, losses, command, the SHA-256 of all this; written last

A folder is named by all that makes its picture. With its run.json it is whole, and never computed again.
"""

import contextlib
import csv
import dataclasses
import json
import math
import os
import shlex
import shutil
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from impasto import files, images, measures, replays, resume, runs, styles, watch, weights
from impasto.errors import BusyError, ImpastoError, InputError, Interrupted, shown
from impasto.events import Event, Losses, Noted, Started, Step
from impasto.inputs import sized
from impasto.jobs import Files, start_file, story_of
from impasto.recipe import Recipe, as_toml
from impasto.schedule import STARTS
from impasto.transfer import Shared
from impasto.watch import Watcher
from impasto.weights import REGISTRY

__all__ = [
    "MEASURED",
    "Cell",
    "Outcome",
    "Run",
    "carry_out",
    "command_of",
    "folder_of",
    "is_whole",
    "look",
    "read",
]

MEASURED = "measured.json"
"""What was measured of a run later: it may change, and is no part of what makes a folder whole."""

_FILE = "file"
"""Stands for the name of a file in what names a run."""

_ATTEMPTS = 3
"""A run that failed so often without having come further is given up."""

_LOST = 10
"""Nor is one tried more often that was lost with workers that had not begun it."""

_APART = (
    "alpha",
    "beta",
    "tv",
    "tv_norm",
    "layer_weights",
    "denoise",
    "optimizer",
    "iterations",
    "patience",
    "learning_rate",
    "adam_betas",
    "momentum",
    "temperature",
    "starts",
    "average",
    "history",
    "init",
)
"""Fields that neither the network nor the summaries of a style depend on."""


@dataclass(frozen=True)
class Cell:
    """One run of a study or sweep: where it stands on the sheet, and what makes it.

    ``row`` and ``column`` are words as printed; without ``content`` it is a texture, without ``styles``
    a reconstruction. Pictures of the iterations in ``snapshots`` are kept beside the last one.
    """

    row: str
    column: str
    recipe: Recipe
    content: Path | None
    styles: tuple[Path, ...]
    snapshots: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its folder, which is whole, or in one line what was wrong."""

    cell: Cell
    folder: Path
    error: str = ""
    exit_code: int = 0
    """That of the error: 2 where the user can mend it."""

    @property
    def told(self) -> str:
        """What became of it, in one line."""
        name = ", ".join(filter(None, (self.cell.row, self.cell.column)))
        return f"{name} failed: {self.error}" if self.error else f"{name} in {self.folder}"


@dataclass(frozen=True)
class Run:
    """What a folder holds of a run that came to its end.

    ``rows`` are numbers by name for each iteration from 0 on, with the ``seconds`` it was done after;
    ``losses`` and ``measures`` are of the saved picture, ``versions`` what its bytes depend on besides.
    """

    folder: Path
    picture: Path
    steps: dict[int, Path]
    rows: list[dict[str, float]]
    losses: Losses
    measures: dict[str, float]
    reason: str
    iterations: int
    evaluations: int
    seconds: float
    versions: dict[str, str]
    command: str


class _Said(NamedTuple):
    """What run.json says; ``files`` are the SHA-256 of the others by name."""

    command: str
    reason: str
    iterations: int
    evaluations: int
    seconds: float
    losses: Losses
    measures: dict[str, float]
    versions: dict[str, str]
    weights: str
    inputs: dict[str, list[str]]
    files: dict[str, str]
    schema: int = 1


# --- a run's folder -------------------------------------------------------------------------------


def folder_of(cell: Cell, out: Path) -> Path:
    """Return the folder of a run: a digest of its recipe, pictures, weights and snapshots, of no path.

    Raises:
        InputError: a file cannot be read.

    Example:
        >>> painting = Path(styles.__file__)  # any file: only its bytes count
        >>> cell = Cell("", "seed 1", Recipe(seed=1), None, (painting,))
        >>> elsewhere = replace(cell, row="again", recipe=replace(cell.recipe, memory="4GiB"))
        >>> folder_of(cell, Path("out")) == folder_of(elsewhere, Path("out"))
        True
    """
    recipe = cell.recipe
    return _folder(cell, out, weights.verify(recipe.weights, recipe.weights_sha256 or None).sha256)


def _folder(cell: Cell, out: Path, sha256: str) -> Path:
    recipe = sized(cell.recipe, cell.content, cell.styles)
    job = Files(cell.content, cell.styles, out)
    digests = resume.digests(job.by_role(start_file(recipe)))
    named = replace(
        recipe,
        init=recipe.init if recipe.init in STARTS else _FILE,
        weights=recipe.weights if recipe.weights in REGISTRY else _FILE,
        weights_sha256="",
    )
    snapshots = " ".join(map(str, sorted(set(cell.snapshots))))
    return out / "runs" / resume.key(named, digests, f"{sha256} {snapshots}")


def command_of(cell: Cell) -> str:
    """Return the command that makes a cell's picture, with the names of its files alone.

    Example:
        >>> recipe = Recipe(size=64, style_layers=("conv1_1", "conv2_1"))
        >>> command_of(Cell("", "", recipe, Path("photos/a photo.jpg"), (Path("painting.jpg"),)))
        "impasto transfer 'a photo.jpg' painting.jpg --size 64 --style-layers block1_conv1 block2_conv1"
    """
    name = "texture" if cell.content is None else "transfer" if cell.styles else "reconstruct"
    pictures = [shown(path.name) for path in (cell.content, *cell.styles) if path]
    words = _nameless(cell.recipe).words()
    if name != "transfer" and "--init" not in words:  # these commands begin with noise
        words += ["--init", cell.recipe.init]
    if each := math.gcd(*cell.snapshots):
        words += ["--save-every", str(each)]
    return shlex.join(["impasto", name, *pictures, *words])


def _nameless(recipe: Recipe) -> Recipe:
    """Return the recipe with the names of its files, without their folders."""
    given = {
        name: shown(Path(value).name)
        for name, value, known in (
            ("init", recipe.init, STARTS),
            ("weights", recipe.weights, REGISTRY),
        )
        if value not in known
    }
    return replace(recipe, **given)  # type: ignore[arg-type]


def is_whole(folder: Path) -> bool:
    """Say whether a folder holds a run that came to its end, to the last bit."""
    try:
        said = _said(folder)
        return all(files.sha256(folder / name) == sha256 for name, sha256 in said.files.items())
    except (InputError, OSError):
        return False


def read(folder: Path) -> Run:
    """Return what a folder holds.

    Raises:
        InputError: it is not whole.
    """
    said = _said(folder)
    try:
        with (
            (folder / "losses.csv").open(encoding="utf-8", newline="") as losses,
            (folder / "seconds.csv").open(encoding="utf-8", newline="") as seconds,
        ):
            rows = [
                {name: float(value) for name, value in (one | other).items()}
                for one, other in zip(csv.DictReader(losses), csv.DictReader(seconds), strict=True)
            ]
    except (OSError, ValueError):
        raise InputError(f"{folder} is damaged; remove it, and the same command makes it anew") from None
    return Run(
        folder=folder,
        picture=folder / "picture.png",
        steps={int(path.stem): path for path in sorted((folder / "steps").glob("*.png"))},
        rows=rows,
        losses=said.losses,
        measures=said.measures,
        reason=said.reason,
        iterations=said.iterations,
        evaluations=said.evaluations,
        seconds=said.seconds,
        versions=said.versions,
        command=said.command,
    )


def _said(folder: Path) -> _Said:
    try:
        return TypeAdapter(_Said).validate_json((folder / "run.json").read_bytes())
    except OSError as error:
        raise InputError(f"{folder} holds no whole run: {error.strerror}") from None
    except ValidationError:
        raise InputError(f"{folder / 'run.json'} is damaged, or of another version; remove it") from None


# --- one run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """A run that is to be carried out, as it may travel: what it is to say of itself is said."""

    folder: Path
    recipe: Recipe
    content: Path | None
    styles: tuple[Path, ...]
    snapshots: tuple[int, ...]
    weights: str
    command: str
    toml: str
    every: float
    threads: int | None

    @property
    def files(self) -> Files:
        """What the run reads and writes."""
        out = self.folder / "picture.png"
        return Files(self.content, self.styles, out, log=self.folder / "losses.csv")

    @property
    def start(self) -> Path | None:
        """The picture that the run begins with, if there is one."""
        return start_file(self.recipe)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The pictures that are read."""
        return tuple(path for path in (self.content, *self.styles, self.start) if path)

    def with_inputs(self, place: Mapping[Path, Path]) -> "_Task":
        """Return the same run with its pictures in other places."""
        return replace(
            self,
            content=self.content and place[self.content],
            styles=tuple(place[style] for style in self.styles),
            recipe=replace(self.recipe, init=str(place[self.start])) if self.start else self.recipe,
        )


class _Failure(NamedTuple):
    """Why a run failed, in one line, and whether to try again is in vain."""

    error: str
    final: bool = False
    exit_code: int = 70
    lost: bool = False
    """Nobody has answered: the worker died, or could not be reached."""


def _tried(
    task: _Task, watchers: Sequence[Watcher] = (), shared: Shared | None = None
) -> _Failure | None:
    """Carry out a run; return why it failed, if it did.

    Raises:
        Interrupted: as a run.
    """
    try:
        _carried_out(task, watchers, shared)
    except Interrupted:
        raise
    except ImpastoError as error:
        return _Failure(str(error), isinstance(error, InputError), error.exit_code)
    except Exception as error:  # one run's trouble is not the others'
        if os.environ.get("IMPASTO_DEBUG"):
            raise
        return _Failure(_described(error))
    return None


def _described(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _carried_out(task: _Task, watchers: Sequence[Watcher], shared: Shared | None) -> None:
    folder, waits = task.folder, False
    while True:
        try:
            with resume.hold(resume.name_of(folder / "run.json"), f"{folder}"):
                if not is_whole(folder):
                    _made(task, watchers, shared)
                return
        except BusyError as busy:  # another process makes this run, for this folder or another one
            if not waits:
                waits = True
                for watch in watchers:
                    watch(Noted(f"{busy}: waiting for it"))
            time.sleep(0.5)


def _made(task: _Task, watchers: Sequence[Watcher], shared: Shared | None) -> None:
    folder = task.folder
    sha256 = weights.verify(task.recipe.weights, task.recipe.weights_sha256 or None).sha256
    if sha256 != task.weights:
        raise InputError(f"--weights {task.recipe.weights} are others here: SHA-256 {sha256[:12]}...")
    try:
        if (folder / "run.json").exists():  # of what was damaged since nothing is to be trusted
            for name in ("picture.png", MEASURED, "run.json"):
                (folder / name).unlink(missing_ok=True)
        (folder / "steps").mkdir(parents=True, exist_ok=True)
        with files.atomic_write(folder / "recipe.toml") as file:
            file.write(task.toml.encode())
        # What was killed between its picture and run.json has its picture.
        if not _is_painted(task):
            _paint(task, watchers, shared)
        said = json.dumps(_asdict(_measured(task)), indent=2).encode()
        with files.atomic_write(folder / "run.json") as file:
            file.write(said)
    except OSError as error:
        raise InputError(f"cannot write in {folder}: {error.strerror}") from None


def _is_painted(task: _Task) -> bool:
    if not replays.is_made(task.recipe, task.files):
        return False
    end = story_of(task.files.out).end
    return end is not None and _followed(task) == end.iterations


def _followed(task: _Task) -> int:
    """Return up to which iteration the folder has all rows and pictures; -1 if one is missing."""
    numbers = []
    for name in ("losses.csv", "seconds.csv"):
        try:
            with (task.folder / name).open(encoding="utf-8", newline="") as file:
                numbers.append([int(row["iteration"]) for row in csv.DictReader(file)])
        except (OSError, KeyError, TypeError, ValueError):
            return -1
    last = min(map(len, numbers)) - 1
    rows = all(found[: last + 1] == list(range(last + 1)) for found in numbers)
    steps = all(_step(task.folder, number).exists() for number in task.snapshots if number <= last)
    return last if rows and steps else -1


def _step(folder: Path, iteration: int) -> Path:
    return folder / "steps" / f"{iteration:05d}.png"


def _paint(task: _Task, watchers: Sequence[Watcher], shared: Shared | None) -> None:
    # A state may outlive the folder that it was of, or be of the same run in another folder.
    fresh = _followed(task) < 0
    (task.folder / MEASURED).unlink(missing_ok=True)
    with (
        _in_threads(task.threads),
        watch.loss_log(task.folder / "losses.csv") as losses,
        watch.time_log(task.folder / "seconds.csv") as seconds,
    ):
        own = (losses, seconds, _steps(task.folder, task.snapshots))
        runs.carry_out(
            task.recipe, task.files, [*own, *watchers], every=task.every, fresh=fresh, shared=shared
        )


@contextlib.contextmanager
def _in_threads(count: int | None) -> Iterator[None]:
    """Compute in so many threads: sums depend on it, to their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _steps(folder: Path, iterations: Sequence[int]) -> Watcher:
    """Return a watcher that keeps the pictures of these iterations."""
    wanted = set(iterations)
    finish: Callable[[Tensor], Tensor]

    def watch(event: Event) -> None:
        nonlocal finish
        if isinstance(event, Started):
            finish = event.finish
        elif isinstance(event, Step) and event.iteration in wanted:
            images.write(finish(event.picture), _step(folder, event.iteration))

    return watch


def _measured(task: _Task) -> _Said:
    """Return what is to be said of a run whose picture is there."""
    folder, made = task.folder, story_of(task.folder / "picture.png")
    assert made.end is not None and made.losses is not None
    content = look(task.content, task.recipe) if task.content else None
    picture = look(folder / "picture.png", task.recipe)
    given = [look(style, task.recipe) for style in task.styles]
    with _in_threads(task.threads):
        found = measures.measure(task.recipe, picture, content, *given)
    with (folder / "seconds.csv").open(encoding="utf-8", newline="") as times:
        *_, last = csv.DictReader(times)
    written = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_ours(path)]
    return _Said(
        command=task.command,
        reason=made.end.reason,
        iterations=made.end.iterations,
        evaluations=made.end.evaluations,
        seconds=float(last["seconds"]),
        losses=made.losses,
        measures=found.measures,
        versions=made.conditions,
        weights=made.weights,
        inputs=made.inputs,
        files={str(path.relative_to(folder)): files.sha256(path) for path in written},
    )


def look(path: Path, recipe: Recipe) -> Any:  # noqa: ANN401 (a picture or a learned style)
    """Return a picture as a run of this recipe sees it, or a learned style.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix == styles.SUFFIX:
        return styles.load(path)
    return images.read(path, transparency=recipe.transparency)


def _is_ours(path: Path) -> bool:
    return path.name not in ("run.json", MEASURED) and not path.name.startswith(".")


def _asdict(said: _Said) -> dict[str, Any]:
    return {**said._asdict(), "losses": dataclasses.asdict(said.losses)}


# --- many runs ------------------------------------------------------------------------------------


def carry_out(
    cells: Iterable[Cell],
    out: Path,
    executor: Executor | None = None,
    watchers: Sequence[Watcher] = (),
    every: float = 30,
    threads: int | None = None,
) -> Iterator[Outcome]:
    """Carry out the runs that are missing in ``out``; yield what became of each cell, as it is known.

    Without an ``executor`` they are carried out here, one after the other, and ``watchers`` see their
    events. Equal runs are carried out once. One that fails three times without having come further is
    told of, as is at once one whose input is wrong; the rest completes. Each goes on from its state,
    kept about ``every`` seconds. ``threads`` are those of each run: the same number gives the same
    bytes, here and elsewhere; without it they are as many as the process has. An executor's threads may
    wait for runs, but not compute them: torch's settings are a process'.

    Raises:
        InputError: a file cannot be read, or ``out`` cannot be written to; before any run.
        Interrupted: as a run; what is whole is kept.

    Example:
        >>> list(carry_out([], Path("sweep")))
        []
    """
    by_folder: dict[Path, list[Cell]] = {}
    missing: list[_Task] = []
    known: dict[tuple[str, str], str] = {}
    for cell in cells:
        pinned = cell.recipe.weights, cell.recipe.weights_sha256
        if pinned not in known:
            known[pinned] = weights.verify(pinned[0], pinned[1] or None).sha256
        folder = _folder(cell, out.absolute(), known[pinned])
        if folder not in by_folder and not is_whole(folder):
            missing.append(_task(cell, folder, known[pinned], every, threads))
        by_folder.setdefault(folder, []).append(cell)
    to_do = {task.folder for task in missing}
    for folder, several in by_folder.items():
        if folder not in to_do:
            yield from (Outcome(cell, folder) for cell in several)
    if executor is None:
        ended = _here(missing, watchers)
    else:
        ended = _elsewhere(_with_copies(missing, out.absolute() / "inputs"), executor)
    for folder, failure in ended:
        error, code = (failure.error, failure.exit_code) if failure else ("", 0)
        yield from (Outcome(cell, folder, error, code) for cell in by_folder[folder])


def _task(cell: Cell, folder: Path, sha256: str, every: float, threads: int | None) -> _Task:
    recipe = sized(cell.recipe, cell.content, cell.styles)
    return _Task(
        folder=folder,
        recipe=recipe,
        content=cell.content,
        styles=cell.styles,
        snapshots=tuple(sorted(set(cell.snapshots))),
        weights=sha256,
        command=command_of(cell),
        toml=as_toml(_nameless(cell.recipe)),
        every=every,
        threads=threads,
    )


def _here(tasks: Iterable[_Task], watchers: Sequence[Watcher]) -> Iterator[tuple[Path, _Failure | None]]:
    """Carry out runs in this process; those beside each other share what they can."""
    before: object = None
    shared = Shared()
    for task in tasks:
        plain = replace(task.recipe, **{name: getattr(Recipe(), name) for name in _APART})
        if (plain, task.styles) != before:
            before, shared = (plain, task.styles), Shared()
        for _ in range(_ATTEMPTS):
            failure = _tried(task, watchers, shared)
            if failure is None or failure.final:
                break
        yield task.folder, failure


class _Answer(NamedTuple):
    """What a worker answers: why it failed, if it did; or the run's files by name, from afar.

    Nothing of it: the worker does not see the run's pictures.
    """

    failure: _Failure | None = None
    files: Mapping[str, bytes] = {}


def _perform(task: _Task, carried: Mapping[str, bytes] | None = None) -> _Answer:
    """Carry out a run where it has come to: in its folder, or with the pictures it has ``carried``."""
    if carried is None:
        if not all(path.is_file() for path in task.inputs):
            return _Answer()
        return _Answer(_tried(task))
    # In the state folder, where whoever goes on with the run finds its logs beside its state.
    place = files.state_folder() / "sweep" / task.folder.name
    run = place / "run"
    run.mkdir(parents=True, exist_ok=True)
    for name, content in carried.items():
        with files.atomic_write(place / name) as file:
            file.write(content)
    here = replace(task, folder=run).with_inputs({path: place / path.name for path in task.inputs})
    if failure := _tried(here):
        return _Answer(failure)
    found = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")]
    answer = _Answer(files={str(path.relative_to(run)): path.read_bytes() for path in found})
    shutil.rmtree(place, ignore_errors=True)
    return answer


class _Attempts:
    """How often a run failed without having come further, and how often it was lost before it began."""

    def __init__(self, task: _Task) -> None:
        """Nothing was tried yet."""
        self.task, self.carries = task, False
        self._failures = self._lost = 0
        self._begun, self._furthest = self._seen()

    def again(self, failure: _Failure) -> bool:
        """Count a failure; say whether to try again."""
        begun, size = self._seen()
        if begun == self._begun and failure.lost and not self.carries:
            self._lost += 1  # it waited for a worker that died of another run
            return self._lost < _LOST
        if size > self._furthest:
            self._failures = 0
        self._begun, self._furthest = begun, max(size, self._furthest)
        self._failures += 1
        return not failure.final and self._failures < _ATTEMPTS

    def _seen(self) -> tuple[int, int]:
        """Return when the run was last begun, and the size of its log."""
        recipe, log = self.task.folder / "recipe.toml", self.task.folder / "losses.csv"
        try:
            return recipe.stat().st_mtime_ns, log.stat().st_size if log.exists() else 0
        except OSError:
            return 0, 0


def _elsewhere(tasks: Sequence[_Task], executor: Executor) -> Iterator[tuple[Path, _Failure | None]]:
    """Carry out runs by an executor, whose workers may die."""
    running: dict[Future[_Answer], _Attempts] = {}

    def submit(attempts: _Attempts) -> None:
        task, carried = attempts.task, None
        try:
            if attempts.carries:
                carried = {path.name: path.read_bytes() for path in task.inputs}
            future = executor.submit(_perform, task, carried)
        except Exception as error:  # an executor that takes no more, or a picture that is gone
            future = Future()
            future.set_exception(error)
        running[future] = attempts

    try:
        for task in tasks:
            submit(_Attempts(task))
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                attempts = running.pop(future)
                folder = attempts.task.folder
                try:
                    answer = future.result()
                except Exception as error:
                    why = textwrap.shorten(_described(error), 100)
                    answer = _Answer(_Failure(f"lost with its worker: {why}", lost=True))
                failure = answer.failure
                if answer.files:
                    failure = _write(answer.files, folder)
                if failure is None and not is_whole(folder):
                    if not attempts.carries:
                        attempts.carries = True
                        submit(attempts)
                        continue
                    failure = _Failure("its files did not arrive")
                if failure and attempts.again(failure):
                    submit(attempts)
                else:
                    yield folder, failure
    finally:
        for future in running:
            future.cancel()


def _write(found: Mapping[str, bytes], folder: Path) -> _Failure | None:
    """Write the files of a run, run.json as the last; return why that failed, if it did."""
    if strange := [name for name in found if not (folder / name).resolve().is_relative_to(folder)]:
        return _Failure(f"a worker answered with a file of the name {shown(strange[0])}", final=True)
    try:
        (folder / "steps").mkdir(parents=True, exist_ok=True)
        for name in sorted(found, key=lambda name: name == "run.json"):
            with files.atomic_write(folder / name) as file:
                file.write(found[name])
    except OSError as error:
        said = f"cannot write in {folder}: {error.strerror}"
        return _Failure(said, final=True, exit_code=InputError.exit_code)
    return None


def _with_copies(tasks: Sequence[_Task], inputs: Path) -> list[_Task]:
    """Return runs whose pictures lie in one folder, named by their content.

    Raises:
        InputError: they cannot be copied there.
    """
    places: dict[Path, Path] = {}
    try:
        inputs.mkdir(parents=True, exist_ok=True)
        for path in (path for task in tasks for path in task.inputs):
            if path not in places:
                places[path] = inputs / (files.sha256(path) + path.suffix)
                with files.atomic_write(places[path]) as copy, path.open("rb") as file:
                    shutil.copyfileobj(file, copy)
    except OSError as error:
        raise InputError(f"cannot copy the pictures into {inputs}: {error.strerror}") from None
    return [task.with_inputs(places) for task in tasks]
