"""Watchers of a run: each is called with every event, in order, and shows or keeps something of it."""

import contextlib
import csv
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from impasto import files, images
from impasto.errors import InputError, shown
from impasto.events import Event, Finished, Losses, Noted, Started, Step

__all__ = [
    "Watcher",
    "existing_frames",
    "existing_snapshots",
    "loss_log",
    "progress",
    "snapshot_name",
    "snapshot_of",
    "snapshots",
    "summary",
    "time_log",
    "timelapse",
    "timelapse_folder",
    "timings",
]

Watcher = Callable[[Event], None]


def summary(losses: Losses) -> str:
    """Return the losses in one short line.

    Example:
        >>> summary(Losses(0.05, 1.0, 0.02, 0.0, {}, {}))
        'total 0.05  content 1  style 0.02'
    """
    parts = {"total": losses.total, "content": losses.content, "style": losses.style}
    if losses.tv:
        parts["tv"] = losses.tv
    return "  ".join(f"{name} {value:.4g}" for name, value in parts.items())


@contextmanager
def progress(console: Console) -> Iterator[Watcher]:
    """Show how far the run is: a bar on a terminal, elsewhere about ten plain lines.

    Where nobody reads any more (`... 2>&1 | head`), the run goes on in silence.
    """
    console.on_broken_pipe = lambda: setattr(console, "quiet", True)  # type: ignore[method-assign]
    with _bar(console) if console.is_terminal else _lines(console) as watcher:
        yield watcher


@contextmanager
def _bar(console: Console) -> Iterator[Watcher]:
    columns = (
        TextColumn("iteration {task.completed:.0f} of {task.total:.0f}"),
        BarColumn(bar_width=16),
        TextColumn("{task.description}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1)
        began, done = time.monotonic(), 0

        def watch(event: Event) -> None:
            nonlocal began, done
            if isinstance(event, Started):
                bar.console.print(_opening(event), highlight=False, markup=False)
                bar.update(task, total=event.iterations)
                began, done = time.monotonic(), event.done or 0
            elif isinstance(event, Step):
                pace = (time.monotonic() - began) / max(1, event.iteration - done)
                text = f"{event.evaluations} evaluations  {summary(event.losses)}  {pace:.2f} s each"
                bar.update(task, completed=event.iteration, description=text)
            elif isinstance(event, Noted):
                bar.console.print(f"note: {shown(event.note)}", highlight=False, markup=False)

        yield watch


@contextmanager
def _lines(console: Console) -> Iterator[Watcher]:
    every, total, done, began = 1, 0, 0, time.monotonic()

    def watch(event: Event) -> None:
        nonlocal every, total, done, began
        if isinstance(event, Started):
            console.print(_opening(event), highlight=False, soft_wrap=True, markup=False)
            total, every, done, began = (
                event.iterations,
                max(1, event.iterations // 10),
                event.done or 0,
                time.monotonic(),
            )
        elif isinstance(event, Step) and event.iteration % every == 0:
            pace = (time.monotonic() - began) / max(1, event.iteration - done)
            text = f"iteration {event.iteration} of {total}  {event.evaluations} evaluations"
            text += f"  {summary(event.losses)}"
            if event.iteration:
                left = pace * (total - event.iteration)
                text += f"  {pace:.2f} s each  {left:.0f} s left"
            console.print(text, highlight=False, soft_wrap=True)
        elif isinstance(event, Noted):
            console.print(f"note: {shown(event.note)}", highlight=False, soft_wrap=True, markup=False)

    yield watch


@contextmanager
def timings(console: Console, began: float | None = None) -> Iterator[Watcher]:
    """Say at the end how long each stage of a run took.

    The program was loaded since it ``began`` (`time.monotonic`): not said of a batch's later runs.
    """
    now = time.monotonic()
    stages = [] if began is None else [("program loaded", now)]
    before = now if began is None else began
    first, going_on = True, False

    def watch(event: Event) -> None:
        nonlocal first, going_on
        if isinstance(event, Started):
            going_on = event.done is not None
            stages.append(("pictures read, plan made, network loaded", time.monotonic()))
        elif isinstance(event, Step) and first:
            first = False
            done = f"iteration {event.iteration}" if going_on else "the losses of the start"
            stages.append((f"targets, and {done}", time.monotonic()))
        elif isinstance(event, Finished):
            done = "up to " * going_on
            done += f"{event.iterations} iterations, {event.evaluations} evaluations"
            stages.append((done, time.monotonic()))

    yield watch
    stages.append(("picture written and measured", time.monotonic()))
    for done, ended in stages:
        console.print(f"{ended - before:8.2f} s  {done}", highlight=False, soft_wrap=True, markup=False)
        before = ended


def _opening(event: Started) -> str:
    notes = "".join(f"note: {shown(note)}\n" for note in event.notes)
    levels = "".join(f"\nlevel {number}: {level}" for number, level in enumerate(event.levels, start=1))
    return f"{notes}{event.width}x{event.height} px, {event.precision} on {event.device}{levels}"


@contextmanager
def loss_log(path: Path) -> Iterator[Watcher]:
    """Write a CSV with a row of losses per iteration, as the run goes: readable at any time.

    The file is opened when the run has started: a run that is refused leaves an old log alone, and one
    that goes on from a kept state keeps the rows up to it.

    Raises:
        InputError: the file cannot be written.
    """
    with ExitStack() as stack:
        file: TextIO
        headed = False

        def watch(event: Event) -> None:
            nonlocal file, headed
            if isinstance(event, Started):
                before = [] if event.done is None else _rows(path, event.done)
                file = _open_log(path, before)
                stack.callback(_close, file)
                headed = bool(before)
            if not isinstance(event, Step):
                return
            writer = csv.writer(file, lineterminator="\n")
            found = event.losses
            if not headed:
                headed = True
                layers = [f"content {name}" for name in found.content_layers]
                layers += [f"style {name}" for name in found.style_layers]
                head = ["iteration", "evaluations", "level", "total", "content", "style", "tv"]
                writer.writerow([*head, *layers])
            values = [found.total, found.content, found.style, found.tv]
            values += [*found.content_layers.values(), *found.style_layers.values()]
            writer.writerow([event.iteration, event.evaluations, event.level + 1, *values])

        yield watch


@contextmanager
def time_log(path: Path) -> Iterator[Watcher]:
    """Write a CSV with the seconds after which each iteration was done; a run that goes on adds to them.

    Raises:
        InputError: the file cannot be written.
    """
    with ExitStack() as stack:
        file: TextIO
        began = 0.0

        def watch(event: Event) -> None:
            nonlocal file, began
            if isinstance(event, Started):
                before = [] if event.done is None else _rows(path, event.done)
                file = _open_log(path, before or ["iteration,seconds\n"])
                stack.callback(_close, file)
                spent = float(before[-1].split(",")[1]) if len(before) > 1 else 0.0
                began = time.monotonic() - spent
            elif isinstance(event, Step):
                file.write(f"{event.iteration},{time.monotonic() - began:.3f}\n")

        yield watch


def _rows(path: Path, done: int) -> list[str]:
    """Return the head and the whole rows of an old log up to an iteration, if there is one."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError), path.open(newline="", encoding="utf-8") as old:
        for line in old:
            whole = line.endswith("\n") and (not found or line.count(",") == found[0].count(","))
            if whole and (not found or int(line.partition(",")[0]) <= done):
                found.append(line)
    return found


def _open_log(path: Path, before: list[str]) -> TextIO:
    """Return a log to go on with after the rows ``before``, which no kill can lose."""
    try:
        if before:
            with files.atomic_write(path) as file:
                file.writelines(line.encode() for line in before)
        return path.open("a" if before else "w", newline="", encoding="utf-8", buffering=1)
    except OSError as error:
        raise InputError(f"cannot write the log {path}: {error.strerror}") from None


def _close(log: TextIO) -> None:
    # Rows are written one by one. What is left for the end is one that could not be, which was said.
    with contextlib.suppress(OSError):
        log.close()


def snapshot_name(out: Path, iteration: int) -> Path:
    """Return where the picture of an iteration is kept, beside ``out``.

    Example:
        >>> snapshot_name(Path("out.png"), 20).name
        'out.0020.png'
    """
    return out.with_name(f"{out.stem}.{iteration:04d}{out.suffix}")


def snapshot_of(path: Path) -> Path:
    """Return the picture that a file would be a snapshot of, by its name; itself if it is none.

    Example:
        >>> snapshot_of(Path("out.0020.png")).name, snapshot_of(Path("out.png")).name
        ('out.png', 'out.png')
    """
    return path.with_name(re.sub(r"\.\d{4,}(?=\.[^.]+$)", "", path.name))


def existing_snapshots(out: Path, every: int) -> list[Path]:
    """Return the files beside ``out`` that bear the name of a snapshot to come."""
    name = re.compile(re.escape(out.stem) + r"\.(\d{4,})" + re.escape(out.suffix))
    matches = ((path, name.fullmatch(path.name)) for path in sorted(out.parent.iterdir()))
    return [path for path, match in matches if match and int(match[1]) % every == 0]


def snapshots(out: Path, every: int, write: Callable[[Tensor, Path], object] = images.write) -> Watcher:
    """Return a watcher that writes the picture of every ``every``-th iteration beside ``out``.

    It is finished like the result: of its size, in its colours, with what is kept of the photograph.
    """
    finish: Callable[[Tensor], Tensor]

    def watch(event: Event) -> None:
        nonlocal finish
        if isinstance(event, Started):
            finish = event.finish
        elif isinstance(event, Step) and event.iteration and event.iteration % every == 0:
            write(finish(event.picture), snapshot_name(out, event.iteration))

    return watch


def timelapse_folder(out: Path) -> Path:
    """Return where the frames of a film are kept, beside ``out``.

    Example:
        >>> timelapse_folder(Path("out.png")).name
        'out-timelapse'
    """
    return out.with_name(f"{out.stem}-timelapse")


def existing_frames(out: Path) -> list[Path]:
    """Return the files that bear the name of a frame to come."""
    folder = timelapse_folder(out)
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if re.fullmatch(r"\d{4}" + re.escape(out.suffix), path.name)]


def timelapse(out: Path, count: int, write: Callable[[Tensor, Path], object] = images.write) -> Watcher:
    """Return a watcher that writes ``count`` pictures of a run, evenly spaced, numbered from 0000.

    They are finished like the result, which is the last of them, so that films of them need no more:
    ``ffmpeg -i out-timelapse/%04d.png out.mp4``. A run that ends early, or has fewer iterations, leaves
    fewer. One that goes on leaves those before as they are; an older film is replaced whole.
    """
    finish: Callable[[Tensor], Tensor]
    due: list[int] = []
    number = 0

    def put(picture: Tensor) -> None:
        nonlocal number
        write(picture, timelapse_folder(out) / f"{number:04d}{out.suffix}")
        number += 1

    def watch(event: Event) -> None:
        nonlocal finish, due, number
        if isinstance(event, Started):
            finish = event.finish
            spaced = {round(i * event.iterations / max(1, count - 1)) for i in range(count - 1)}
            spaced.discard(event.iterations)  # the result is the last frame
            done = -1 if event.done is None else event.done
            number = sum(one <= done for one in spaced)
            due = sorted(one for one in spaced if one > done)
            timelapse_folder(out).mkdir(exist_ok=True)
            for old in existing_frames(out):
                if int(old.stem) >= number:
                    old.unlink()
        elif isinstance(event, Step) and due and event.iteration >= due[0]:
            del due[0]
            put(finish(event.picture))
        elif isinstance(event, Finished):
            put(event.picture)

    return watch
