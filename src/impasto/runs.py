"""A run from files to files: check, decode, plan, transfer, write. Nothing else starts a run."""

import functools
import math
import re
import signal
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from impasto import images, learning, memory, provenance, resume, styles, transfer
from impasto.errors import ImpastoError, InputError, Interrupted, RunError
from impasto.events import Event, Finished, Losses, Noted, Started, Step
from impasto.inputs import Reader, Writer, sized
from impasto.interrupts import Asked, heard, interrupt
from impasto.jobs import Files, check_clobber, check_target
from impasto.parallel import ALONE, Team
from impasto.plan import Plan
from impasto.prepare import planned, prepared
from impasto.provenance import INTERRUPTED, End, Made
from impasto.recipe import Recipe
from impasto.resume import Keeper
from impasto.styles import Style
from impasto.transfer import Shared
from impasto.watch import Watcher, snapshots, timelapse

__all__ = ["Files", "Result", "assist", "carry_out", "learn"]


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
    before: Plan | None = None,
    shared: Shared | None = None,
    branch: str = "",
) -> Result:
    """Carry out a recipe on files; show every event to every watcher; return what was written.

    The run's state is kept about every ``every`` seconds until the picture is written: the same call
    goes on from there, unless a ``fresh`` start is asked for. In a ``team`` this is rank 0's; the
    other ranks `assist`. Where this machine can, a run is carried out by the plan of one ``before``.
    Several runs of one recipe may have the network and their styles ``shared``. A ``branch`` goes on
    from what is kept of the run of that name: with all of its state where this is the same run with
    another number of iterations, else from its picture.

    Raises:
        InputError: something the user can mend; found before the work starts wherever possible.
        RunError: the run failed, and nothing was written; or a log or snapshot did, and the picture was.
        BusyError: another process carries out this run, or writes to that file.
        Interrupted: Ctrl-C or SIGTERM came; the best picture so far has been written.
    """
    began = time.monotonic()
    job = prepared(recipe, files, team, branch, fresh)
    recipe, write = job.recipe, job.write
    with (
        resume.hold(resume.name_of(files.out), f"the file {files.out}"),
        resume.hold(job.key, "this run"),
    ):
        kept = (None if fresh else resume.find(job.key)) or job.shorter
        plan, goes_on = planned(job, files, team, kept.about if kept else None, before)
        kept = kept if goes_on else None
        memory.keep(plan.ample)
        images.check_size(files.out, *plan.size)
        conditions, note = resume.conditions(plan.device), job.note
        if kept:
            changed = resume.changes(kept.about, conditions, plan)
            note = note or f"resumed at iteration {kept.about['iteration']}"
            note += f"; last bits may differ: {changed}" if changed else ""
            conditions = resume.joined(kept.about["conditions"], conditions, changed)
        about = resume.about(recipe, files.by_role(None), files.out, plan, conditions)
        keeper = resume.Keeper(job.key, every, about, math.prod(plan.size))
        if kept and kept is not job.shorter:
            keeper.kept = kept.about["iteration"]
        story = transfer.run(recipe, job.pictures, plan, kept.state if kept else None, team, shared)
        made = provenance.begun(recipe, job.digests, job.weights, plan, conditions, files.written)
        on_the_way = functools.partial(write, made=made)
        if files.save_every:
            watchers = [*watchers, snapshots(files.out, files.save_every, on_the_way)]
        if files.timelapse:
            watchers = [*watchers, timelapse(files.out, files.timelapse, on_the_way)]
        del job, kept  # the run lets go of its pictures as soon as it can
        failures: list[str] = []
        with _memory_errors(plan.size):
            event = _followed(story, files, write, watchers, keeper, note, failures, team, made)
        losses = _delivered(event, files, write, keeper, made, recipe.transparency, failures)
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


def _delivered(
    event: Finished,
    files: Files,
    write: Writer,
    keeper: Keeper,
    made: Made,
    transparency: str,
    failures: list[str],
) -> Losses:
    """Write the picture, measure it as it is on the disk, write it with its losses, forget the run.

    Raises:
        InputError: it cannot be written.
        RunError: it is written, but cannot be measured.
        Interrupted: a signal came; the picture is written.
    """
    out, late = files.out, list[int]()
    end = End(event.reason, event.iterations, event.evaluations)
    with heard(late.append):  # a finished picture is not lost to a signal
        try:
            check_clobber(files, keeper.known, on_the_way=False)  # it may have come in the meantime
            write(event.picture, out, made.ended(end))
        except InputError as error:
            raise InputError(f"{error}{keeper.promise}") from None
    if late:
        raise Interrupted(late[0], f"interrupted at the end; wrote {out}{keeper.promise}")
    try:
        with heard(interrupt), _memory_errors((event.picture.shape[1], event.picture.shape[2])):
            with images.trusted():  # it is the program's own
                saved = images.read(out, transparency=transparency)
            losses = event.evaluate(saved.to(event.picture))
    except (InputError, RunError) as error:
        raise RunError(f"wrote {out}, but cannot measure it: {error}{keeper.promise}") from None
    except Interrupted as interruption:
        said = f"interrupted at the end; wrote {out}, without its losses{keeper.promise}"
        interruption.args = (said,)
        raise
    # The losses are those of the picture on the disk: to stand in it, it is written once more.
    with heard(late.append):
        try:
            write(event.picture, out, made.ended(end, losses))
        except InputError as error:
            failures.append(str(error))
        keeper.close()
    if late:
        raise Interrupted(late[0], f"interrupted at the end; wrote {out}")
    return losses


def _followed(
    story: Generator[Event, None, None],
    files: Files,
    write: Writer,
    watchers: Sequence[Watcher],
    keeper: Keeper,
    note: str,
    failures: list[str],
    team: Team,
    made: Made,
) -> Finished:
    """Show a run's events to the watchers, keep its state; return the last event.

    Raises:
        Interrupted: a signal came; the best picture so far has been written.
    """
    last: Step | None = None
    asked = Asked()
    try:
        with closing(asked), heard(asked):
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
        made = made.ended(End(INTERRUPTED, iteration, last.evaluations))
        # Finishing takes memory of its own: the run's goes first.
        del last, event
        story.close()
        traceback.clear_frames(interruption.__traceback__)
        said = f"interrupted at iteration {iteration}; "
        try:
            check_clobber(files, keeper.known, on_the_way=False)
            write(finish(best.cpu()), files.out, made)
            said += f"wrote the best picture to {files.out}"
        except InputError as error:
            said += str(error)
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
    check_target(out, [painting, *others])
    if no_clobber and out.exists():
        raise InputError(f"{out} exists and --no-clobber forbids replacing it")
    recipe = sized(recipe, None, (painting,))
    (scale,) = recipe.scale_of_styles(1)
    with resume.hold(resume.name_of(out), f"the file {out}"):
        picture = Reader(recipe).picture(painting, scale)
        with _memory_errors((picture.shape[1], picture.shape[2])):
            style = learning.learn(recipe, picture, out.name)
        try:
            styles.save(style, out)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror}") from None
    return style


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
