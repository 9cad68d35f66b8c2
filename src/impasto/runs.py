"""A run from files to files: check, decode, plan, transfer, write. Nothing else starts a run."""

import functools
import math
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy
import torch
from torch import Tensor

from impasto import (
    cost,
    images,
    learning,
    masks,
    memory,
    profiles,
    resume,
    schedule,
    styles,
    transfer,
    weights,
)
from impasto import plan as planning
from impasto.errors import ImpastoError, InputError, Interrupted, RunError, near
from impasto.events import Event, Finished, Losses, Noted, Started, Step
from impasto.objective import Regions
from impasto.parallel import ALONE, Team
from impasto.plan import Forecast, Plan
from impasto.recipe import Recipe, memory_bytes
from impasto.resume import Keeper
from impasto.styles import SUFFIX, Style
from impasto.transfer import Pictures
from impasto.watch import Watcher, existing_snapshots, snapshots

__all__ = ["Files", "Result", "assist", "carry_out", "check", "learn", "rehearse"]


@dataclass(frozen=True)
class Files:
    """What a run reads and writes; ``others`` are files it uses besides pictures."""

    content: Path | None
    styles: tuple[Path, ...]
    out: Path
    log: Path | None = None
    no_clobber: bool = False
    save_every: int = 0
    bit_depth: int = 8
    keep_profile: bool = False
    keep_metadata: bool = False
    others: tuple[Path, ...] = ()
    content_mask: tuple[Path, ...] = ()
    style_mask: tuple[Path, ...] = ()
    keep: Path | None = None
    strength_map: Path | None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The pictures that are read."""
        return tuple(path for paths in self.by_role(None).values() for path in paths)

    def kept(self, metadata: images.Metadata) -> images.Metadata:
        """Return what is kept of what the photograph's file says of it.

        Raises:
            InputError: its profile is to be kept, and no colours can be written in it.
        """
        profile = metadata.profile if self.keep_profile else None
        if profile and profiles.from_srgb(numpy.zeros((1, 1, 3), numpy.float32), profile) is None:
            raise InputError(
                f"--keep-profile: {self.content} has a profile that cannot be written in, "
                "of grey or inks; leave --keep-profile out"
            )
        metadata = metadata if self.keep_metadata else metadata.without_location()
        return metadata._replace(profile=profile)

    def by_role(self, start: Path | None) -> dict[str, tuple[Path, ...]]:
        """Return the pictures that are read, by what they are for."""
        single = {
            "content": self.content,
            "keep": self.keep,
            "strength_map": self.strength_map,
            "start": start,
        }
        return {
            **{role: (path,) for role, path in single.items() if path},
            "styles": self.styles,
            "content_mask": self.content_mask,
            "style_mask": self.style_mask,
        }


@dataclass(frozen=True)
class Result:
    """What a run left: the file, and the losses of the picture in that file."""

    path: Path
    losses: Losses
    reason: str
    iterations: int
    evaluations: int
    seconds: float


def carry_out(
    recipe: Recipe,
    files: Files,
    watchers: Sequence[Watcher] = (),
    team: Team = ALONE,
    every: float = 30,
    fresh: bool = False,
) -> Result:
    """Carry out a recipe on files; show every event to every watcher; return what was written.

    The run's state is kept about every ``every`` seconds until the picture is written: the same call
    goes on from there, unless a ``fresh`` start is asked for. In a ``team`` this is rank 0's; the
    other ranks `assist`.

    Raises:
        InputError: something the user can mend; found before the work starts wherever possible.
        RunError: the run failed, and nothing was written; or a log or snapshot did, and the picture was.
        BusyError: another process carries out this run, or writes to that file.
        Interrupted: Ctrl-C or SIGTERM came; the best picture so far has been written.
    """
    began = time.monotonic()
    start = _start_file(recipe)
    check(files, start)
    # Before the hashes, as it says better what is wrong with a file.
    recipe = _sized(recipe, files.content, files.styles)
    pictures, write = _read(recipe, files, start)
    identity = weights.verify(recipe.weights, recipe.weights_sha256 or None)
    carried = f"{team.size} {files.save_every > 0}"  # the plan is made for so many, and for snapshots
    key = resume.key(recipe, files.by_role(start), f"{identity.sha256} {carried}")
    with (
        resume.hold(resume.name_of(files.out), f"the file {files.out}"),
        resume.hold(key, "this run"),
    ):
        kept = None if fresh else resume.find(key)
        plan = resume.plan_of(kept) if kept else None
        if plan is None:  # nothing was kept, or on a machine that had what this one has not
            kept = None
            plan = transfer.plan_for(recipe, pictures, team, files.save_every > 0)
        memory.keep(plan.ample)
        images.check_size(files.out, *plan.size)
        keeper = resume.Keeper(key, every, resume.about(recipe, files.by_role(None), files.out, plan))
        note = keeper.note(kept) if kept else ""
        story = transfer.run(recipe, pictures, plan, kept.state if kept else None, team)
        if files.save_every:
            watchers = [*watchers, snapshots(files.out, files.save_every, write)]
        del pictures, kept  # the run lets go of them as soon as it can
        failures: list[str] = []
        with _memory_errors(plan.size):
            event = _followed(story, files, write, watchers, keeper, note, failures, team)
        # A finished run is not lost to a signal: it waits until the picture is written.
        late: list[int] = []
        with _signals(late.append):
            try:
                write(event.picture, files.out)
            except InputError as error:
                raise InputError(f"{error}{keeper.promise}") from None
            keeper.close()
        if late:
            raise Interrupted(late[0], f"interrupted at the end; wrote {files.out}")
        with _memory_errors(plan.size):
            try:
                saved = images.read(files.out, transparency=recipe.transparency)
            except InputError as error:
                raise RunError(f"wrote {files.out}, but cannot read it again: {error}") from None
            losses = event.evaluate(_as_computed(saved, event.picture))
        team.tell("done")
        if failures:
            raise RunError(f"wrote {files.out}, but on the way: {failures[0]}")
        return Result(
            path=files.out,
            losses=losses,
            reason=event.reason,
            iterations=event.iterations,
            evaluations=event.evaluations,
            seconds=time.monotonic() - began,
        )


def _followed(
    story: Generator[Event, None, None],
    files: Files,
    write: Callable[[Tensor, Path], None],
    watchers: Sequence[Watcher],
    keeper: Keeper,
    note: str,
    failures: list[str],
    team: Team,
) -> Finished:
    """Show a run's events to the watchers, keep its state; return the last event.

    Raises:
        Interrupted: a signal came; the best picture so far has been written.
    """
    last: Step | None = None
    asked = _Asked()
    try:
        with closing(asked), _signals(asked):
            for event in story:
                if isinstance(event, Started):
                    finish = event.finish
                    event = replace(event, notes=(*event.notes, note) if note else event.notes)
                elif isinstance(event, Step):
                    last, asked.patience = event, keeper.patience
                watchers = _show(event, watchers, failures)
                if isinstance(event, Step):
                    if said := keeper.see(event, now=asked.number is not None):
                        watchers = _show(Noted(said), watchers, failures)
                    asked.answer()
    except Interrupted as interruption:
        if last is None:
            interruption.args = (f"interrupted{keeper.promise}",)
            raise
        iteration, best = last.iteration, last.best
        # Finishing takes memory of its own: the run's goes first.
        del last, event
        story.close()
        traceback.clear_frames(interruption.__traceback__)
        said = f"interrupted at iteration {iteration}; "
        try:
            write(finish(best.cpu()), files.out)
            said += f"wrote the best picture to {files.out}"
        except InputError as error:
            said += str(error)
        if not files.no_clobber:
            said += keeper.promise
        if team.size > 1:
            said += " (torchrun interrupts all processes when one of them has ended)"
        interruption.args = (said,)
        raise
    assert isinstance(event, Finished)
    return event


def assist(team: Team) -> None:
    """Do the part of a rank other than 0, until rank 0 has done its run or has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 hears them too, and decides
        signal.signal(number, signal.SIG_IGN)
    memory.keep(ample=False)
    transfer.follow(team)


def rehearse(recipe: Recipe, files: Files, team: Team = ALONE) -> tuple[Plan, Forecast]:
    """Return the plan of a run, and what it will take, without carrying it out.

    Raises:
        InputError: as `carry_out`.
    """
    start = _start_file(recipe)
    check(files, start)
    recipe = _sized(recipe, files.content, files.styles)
    pictures, _ = _read(recipe, files, start)
    plan = transfer.plan_for(recipe, pictures, team, files.save_every > 0)
    memory.keep(plan.ample)
    images.check_size(files.out, *plan.size)
    forecast = planning.forecast(
        recipe,
        plan,
        *transfer.sizes(pictures),
        ranks=team.size,
        masks=transfer.shapes(pictures),
        snapshots=files.save_every > 0,
    )
    return plan, forecast


def learn(
    recipe: Recipe,
    painting: Path,
    out: Path,
    no_clobber: bool = False,
    others: Sequence[Path] = (),
) -> Style:
    """Learn a painting's style, write it, and return it; ``others`` are files that are used besides.

    Raises:
        InputError: something the user can mend, found before the work starts wherever possible.
    """
    if out.suffix != styles.SUFFIX:
        raise InputError(f"{out} must end in {styles.SUFFIX}: a style is known by its name")
    _check_target(out, [painting, *others])
    if no_clobber and out.exists():
        raise InputError(f"{out} exists and --no-clobber forbids replacing it")
    recipe = _sized(recipe, None, (painting,))
    (scale,) = recipe.scale_of_styles(1)
    with resume.hold(resume.name_of(out), f"the file {out}"):
        picture = _Reader(recipe).picture(painting, scale)
        with _memory_errors((picture.shape[1], picture.shape[2])):
            style = learning.learn(recipe, picture, out.name)
        try:
            styles.save(style, out)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror}") from None
    return style


def _sized(recipe: Recipe, content: Path | None, styles: Sequence[Path]) -> Recipe:
    """Return the recipe with a size in pixels: the photograph's, or else the painting's, for full."""
    if recipe.size != "full":
        return recipe
    like = next(path for path in (content, *styles) if path)
    if like.suffix == SUFFIX:
        raise InputError(f"--size full: {like} is a learned style; give a size, e.g. --size 512")
    return replace(recipe, size=images.long_side(like, schedule.SMALLEST_SIDE))


def _read(
    recipe: Recipe, files: Files, start: Path | None
) -> tuple[Pictures, Callable[[Tensor, Path], None]]:
    """Return a run's pictures and masks, none larger than needed, and what writes a picture of it."""
    recipe.weight_of_styles(len(files.styles))
    scales = recipe.scale_of_styles(len(files.styles))
    if files.style_mask and not files.content_mask:
        raise InputError("--style-mask needs --content-mask: which part is painted by which")
    reader = _Reader(recipe)
    photograph = reader.photograph(files.content) if files.content else None
    content = photograph.picture if photograph else None
    read = tuple(map(reader.style, files.styles, scales))
    painting = next((style for style in read if not isinstance(style, Style)), None)
    parts = reader.regions(files.content_mask, content)
    of_style = reader.regions(files.style_mask, painting, *scales[:1])
    pictures = Pictures(
        content=content,
        styles=read,
        start=reader.picture(start) if start else None,
        regions=None if parts is None else Regions(parts, of_style),
        keep=reader.greys((files.keep,) if files.keep else (), content),
        strength=reader.greys((files.strength_map,) if files.strength_map else (), content),
    )
    write = functools.partial(images.write, bit_depth=files.bit_depth)
    if photograph:
        metadata = files.kept(photograph.metadata)
        write = functools.partial(write, metadata=metadata, alpha=photograph.alpha)
    return pictures, write


class _Reader:
    """Reads a run's files, no larger than there is use for, each in the memory that the others leave."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.taken = 0

    def picture(self, path: Path, scale: float = 1.0) -> Tensor:
        """Return a picture, or a style that is used at a ``scale`` of the finished picture's size."""
        return self.photograph(path, scale).picture

    def photograph(self, path: Path, scale: float = 1.0) -> images.Photograph:
        """Return a picture with what its file says of it."""
        smallest = schedule.SMALLEST_SIDE
        transparency = self.recipe.transparency
        found = images.read_photograph(path, self._longest(scale), smallest, self._left, transparency)
        self._counted(found.picture)
        return found

    def style(self, path: Path, scale: float) -> Tensor | Style:
        """Return a painting, or what was learned of one."""
        return styles.load(path) if path.suffix == styles.SUFFIX else self.picture(path, scale)

    def regions(self, paths: Sequence[Path], over: Tensor | None, scale: float = 1.0) -> Tensor | None:
        """Return regions ``over`` a picture: one file has flat colours, of several each is a weight."""
        if len(paths) != 1:
            return self.greys(paths, over, scale)
        return self._counted(images.read_regions(paths[0], self._size(over, scale), self._left))

    def greys(self, paths: Sequence[Path], over: Tensor | None, scale: float = 1.0) -> Tensor | None:
        """Return the weights of grey masks ``over`` a picture, ``[R, H, W]``."""
        size = self._size(over, scale)
        several = [self._counted(images.read_grey(path, size, self._left)) for path in paths]
        return masks.together(several) if several else None

    @property
    def _left(self) -> int | None:
        if self.recipe.memory == "auto":
            return None
        return memory_bytes(self.recipe.memory) - cost.BASE - self.taken

    def _longest(self, scale: float) -> int:
        # Sides may be rounded up to the next multiple of 16.
        return math.ceil(scale * max(self.recipe.sides)) + 16 * self.recipe.tileable

    def _size(self, over: Tensor | None, scale: float) -> tuple[int, int] | None:
        if over is None:
            return None
        _, height, width = over.shape
        return schedule.fitted(height, width, self._longest(scale))

    def _counted(self, read: Tensor) -> Tensor:
        self.taken += read.nbytes
        return read


def _show(event: Event, watchers: Sequence[Watcher], failures: list[str]) -> list[Watcher]:
    """Show an event to every watcher; return those that could take it, and note why others could not.

    A full disk under a log or a snapshot is no reason to lose the picture.
    """
    willing = []
    for watcher in watchers:
        try:
            watcher(event)
        except Interrupted:
            raise
        except (ImpastoError, OSError) as error:
            failures.append(str(error))
        else:
            willing.append(watcher)
    return willing


def check(files: Files, start: Path | None = None) -> None:
    """Refuse outputs that cannot be written or would destroy an input, before any work.

    Raises:
        InputError: as above.
    """
    inputs = [path for path in (*files.inputs, start, *files.others) if path]
    for target in (files.out, *((files.log,) if files.log else ())):
        _check_target(target, inputs)
    images.check_suffix(files.out, files.bit_depth)
    try:
        earlier = existing_snapshots(files.out, files.save_every) if files.save_every else []
        for target in earlier:
            _check_apart(target, inputs)
        if files.log and files.log.resolve() == files.out.resolve():
            raise InputError(f"--log and -o are the same file {files.out}; give two names")
        for target in (files.out, *earlier):
            if files.no_clobber and target.exists():
                raise InputError(f"{target} exists and --no-clobber forbids replacing it")
    except OSError as error:
        raise InputError(f"cannot look into {files.out.parent}: {error.strerror}") from None


def _check_target(target: Path, inputs: Sequence[Path]) -> None:
    try:
        _check_place(target)
        _check_apart(target, inputs)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"cannot write {target}: {error.strerror}") from None


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
    if recipe.init in schedule.STARTS:
        return None
    start = Path(recipe.init)
    if not os.path.lexists(recipe.init) and (hint := near(recipe.init, schedule.STARTS)):
        raise InputError(f"--init {recipe.init}: there is no such file{hint}")
    return start


def _as_computed(saved: Tensor, computed: Tensor) -> Tensor:
    """Return the saved picture where, and in the precision in which, the run computed."""
    return saved.to(computed)


@contextmanager
def _signals(handle: Callable[[int], object]) -> Iterator[None]:
    """Give the first Ctrl-C or SIGTERM to ``handle``; a second one ends the program at once.

    A signal that the caller of this program ignores, as `nohup` may, stays ignored.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, _frame: FrameType | None) -> None:
        restore()
        handle(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, first)
    except ValueError:  # not in the main thread: whoever owns it handles signals
        before.clear()
    try:
        yield
    finally:
        restore()


class _Asked:
    """Ctrl-C or SIGTERM: the iteration may end, if it does within ``patience`` seconds.

    Before the first one there is nothing to wait for.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.patience = 0.0
        self._before: Any = None

    def __call__(self, number: int) -> None:
        self.number = number
        if self.patience <= 0:
            self.answer()
        self._before = signal.signal(signal.SIGALRM, lambda *_: self.answer())
        signal.setitimer(signal.ITIMER_REAL, self.patience)

    def answer(self) -> None:
        """End the run, if it was asked to."""
        if self.number is not None:
            raise Interrupted(self.number)

    def close(self) -> None:
        """Wait no longer."""
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)


@contextmanager
def _memory_errors(size: tuple[int, int]) -> Iterator[None]:
    """Say in one line that memory was not enough."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not re.search("allocate memory|out of memory", str(error)):
            raise
        height, width = size
        advice = "use a smaller --memory or --size"
        raise RunError(f"not enough memory for {width}x{height} px; {advice}") from error
