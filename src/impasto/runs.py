"""A run from files to files: check, decode, plan, transfer, write. Nothing else starts a run."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from impasto import images, transfer
from impasto.errors import InputError, Interrupted, RunError, near
from impasto.events import Finished, Losses, Step
from impasto.recipe import Recipe
from impasto.transfer import Pictures
from impasto.watch import Watcher, existing_snapshots

__all__ = ["Files", "Result", "carry_out"]

_STARTS = ("content", "noise", "style", "gray")


@dataclass(frozen=True)
class Files:
    """What a run reads and writes."""

    content: Path | None
    styles: tuple[Path, ...]
    out: Path
    log: Path | None = None
    no_clobber: bool = False
    save_every: int = 0

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The pictures that are read."""
        return (*((self.content,) if self.content else ()), *self.styles)


@dataclass(frozen=True)
class Result:
    """What a run left: the file, and the losses of the picture in that file."""

    path: Path
    losses: Losses
    reason: str
    iterations: int
    evaluations: int
    seconds: float


def carry_out(recipe: Recipe, files: Files, watchers: Sequence[Watcher] = ()) -> Result:
    """Carry out a recipe on files; show every event to every watcher; return what was written.

    Raises:
        InputError: something the user can mend; found before the work starts wherever possible.
        RunError: the run failed; nothing was written.
        Interrupted: Ctrl-C or SIGTERM came; the best picture so far has been written.
    """
    began = time.monotonic()
    start = _start_file(recipe)
    check(files, start)
    recipe.weight_of_styles(len(files.styles))
    pictures = Pictures(
        content=images.read(files.content) if files.content else None,
        styles=tuple(images.read(style) for style in files.styles),
        start=images.read(start) if start else None,
    )
    plan = transfer.plan_for(recipe, pictures)
    last: Step | None = None
    try:
        with _signals_raise(), _memory_errors(plan.size):
            for event in transfer.run(recipe, pictures, plan):
                if isinstance(event, Step):
                    last = event
                for watcher in watchers:
                    watcher(event)
    except Interrupted as interruption:
        if last is None:
            raise
        images.write(last.best, files.out)
        interruption.args = (
            f"interrupted at iteration {last.iteration}; wrote the best picture to {files.out}",
        )
        raise
    assert isinstance(event, Finished)
    images.write(event.picture, files.out)
    return Result(
        path=files.out,
        losses=event.evaluate(_as_computed(images.read(files.out), event.picture)),
        reason=event.reason,
        iterations=event.iterations,
        evaluations=event.evaluations,
        seconds=time.monotonic() - began,
    )


def check(files: Files, start: Path | None = None) -> None:
    """Refuse outputs that cannot be written or would destroy an input, before any work.

    Raises:
        InputError: as above.
    """
    inputs = [path for path in (*files.inputs, start) if path]
    for target in (files.out, *((files.log,) if files.log else ())):
        try:
            _check_place(target)
            _check_apart(target, inputs)
        except OSError as error:  # a name too long, a folder that may not be entered
            raise InputError(f"cannot write {target}: {error.strerror}") from None
    images.check_suffix(files.out)
    snapshots = existing_snapshots(files.out, files.save_every) if files.save_every else []
    for target in snapshots:
        _check_apart(target, inputs)
    if files.log and files.log.resolve() == files.out.resolve():
        raise InputError(f"--log and -o are the same file {files.out}; give two names")
    for target in (files.out, *snapshots):
        if files.no_clobber and target.exists():
            raise InputError(f"{target} exists and --no-clobber forbids replacing it")


def _check_place(target: Path) -> None:
    if target.is_dir():
        raise InputError(f"{target} is a folder; give a file name")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; make it first")
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is not a regular file; give another name")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"the folder {target.parent} cannot be written to; give another one")


def _check_apart(target: Path, inputs: Sequence[Path]) -> None:
    for path in inputs:
        if target.exists() and path.exists() and target.samefile(path):
            raise InputError(f"{target} is an input of this run and would be replaced; rename one")


def _start_file(recipe: Recipe) -> Path | None:
    """Return the picture file to start from, if ``init`` names one."""
    if recipe.init in _STARTS:
        return None
    start = Path(recipe.init)
    if not os.path.lexists(recipe.init) and (hint := near(recipe.init, _STARTS)):
        raise InputError(f"--init {recipe.init}: there is no such file{hint}")
    return start


def _as_computed(saved: Tensor, computed: Tensor) -> Tensor:
    """Return the saved picture where, and in the precision in which, the run computed."""
    return saved.to(computed)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into `Interrupted`; a second one ends the program at once."""
    before: dict[int, object] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def interrupt(number: int, _frame: FrameType | None) -> None:
        restore()
        raise Interrupted(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, interrupt)
    except ValueError:  # not in the main thread: whoever owns it handles signals
        before.clear()
    try:
        yield
    finally:
        restore()


@contextmanager
def _memory_errors(size: tuple[int, int]) -> Iterator[None]:
    """Say in one line that memory was not enough."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "allocate memory" not in str(error):
            raise
        height, width = size
        raise RunError(f"not enough memory for {width}x{height} px; use a smaller --size") from error
