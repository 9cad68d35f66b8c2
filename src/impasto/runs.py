"""A run from files to files: check, decode, plan, transfer, write. Nothing else starts a run."""

import math
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from impasto import (
    cost,
    devices,
    images,
    learning,
    masks,
    memory,
    profiles,
    provenance,
    resume,
    schedule,
    styles,
    transfer,
    weights,
)
from impasto import plan as planning
from impasto.checkpoint import Checkpoint
from impasto.errors import ImpastoError, InputError, Interrupted, RunError, near
from impasto.events import Event, Finished, Losses, Noted, Started, Step
from impasto.objective import Regions
from impasto.parallel import ALONE, Team
from impasto.plan import Forecast, Plan
from impasto.provenance import INTERRUPTED, End, Made, Written
from impasto.recipe import Recipe, memory_bytes
from impasto.resume import Keeper
from impasto.styles import SUFFIX, Style
from impasto.transfer import Pictures, Shared
from impasto.watch import (
    Watcher,
    existing_frames,
    existing_snapshots,
    snapshots,
    timelapse,
    timelapse_folder,
)

__all__ = [
    "Files",
    "Rehearsal",
    "Replay",
    "Result",
    "assist",
    "carry_out",
    "check",
    "is_made",
    "learn",
    "rehearse",
    "replay",
    "story_of",
]


@dataclass(frozen=True)
class Files:
    """What a run reads and writes; ``others`` are files it uses besides pictures."""

    content: Path | None
    styles: tuple[Path, ...]
    out: Path
    log: Path | None = None
    no_clobber: bool = False
    save_every: int = 0
    timelapse: int = 0
    bit_depth: int = 8
    keep_profile: bool = False
    keep_metadata: bool = False
    others: tuple[Path, ...] = ()
    content_mask: tuple[Path, ...] = ()
    style_mask: tuple[Path, ...] = ()
    keep: Path | None = None
    strength_map: Path | None = None

    @property
    def has_snapshots(self) -> bool:
        """Whether pictures are written on the way."""
        return self.save_every > 0 or self.timelapse > 0

    @property
    def written(self) -> Written:
        """How the picture's file is written, besides its format."""
        return Written(16 if self.bit_depth == 16 else 8, self.keep_profile, self.keep_metadata)

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
    job = _prepared(recipe, files, team, branch)
    recipe, write = job.recipe, job.write
    with (
        resume.hold(resume.name_of(files.out), f"the file {files.out}"),
        resume.hold(job.key, "this run"),
    ):
        kept = (None if fresh else resume.find(job.key)) or job.shorter
        plan, goes_on = _planned(job, files, team, kept.about if kept else None, before)
        kept = kept if goes_on else None
        memory.keep(plan.ample)
        images.check_size(files.out, *plan.size)
        keeper = resume.Keeper(
            job.key, every, resume.about(recipe, files.by_role(None), files.out, plan)
        )
        note = keeper.note(kept) if kept and kept is not job.shorter else job.note
        story = transfer.run(recipe, job.pictures, plan, kept.state if kept else None, team, shared)
        if files.save_every:
            watchers = [*watchers, snapshots(files.out, files.save_every, write)]
        if files.timelapse:
            watchers = [*watchers, timelapse(files.out, files.timelapse, write)]
        made = provenance.begun(
            recipe, job.digests, job.weights, plan, resume.conditions(plan.device), files.written
        )
        del job, kept  # the run lets go of its pictures as soon as it can
        failures: list[str] = []
        with _memory_errors(plan.size):
            event = _followed(story, files, write, watchers, keeper, note, failures, team, made)
        end = End(event.reason, event.iterations, event.evaluations)
        # A finished run is not lost to a signal: it waits until the picture is written.
        late: list[int] = []
        with _signals(late.append):
            try:
                write(event.picture, files.out, made.ended(end))
            except InputError as error:
                raise InputError(f"{error}{keeper.promise}") from None
            keeper.close()
        if late:
            raise Interrupted(late[0], f"interrupted at the end; wrote {files.out}")
        with _memory_errors(plan.size):
            try:
                with images.trusted():  # it is the program's own
                    saved = images.read(files.out, transparency=recipe.transparency)
            except InputError as error:
                raise RunError(f"wrote {files.out}, but cannot read it again: {error}") from None
            losses = event.evaluate(_as_computed(saved, event.picture))
        # They are those of the picture on the disk: to stand in it, it is written once more.
        try:
            write(event.picture, files.out, made.ended(end, losses))
        except InputError as error:
            failures.append(str(error))
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


class _Job(NamedTuple):
    """A run that is ready to begin: what was read, what writes its pictures, what it is known by."""

    recipe: Recipe
    pictures: Pictures
    write: "_Writer"
    digests: dict[str, list[str]]
    weights: str
    key: str
    shorter: Checkpoint | None = None
    """What is kept of the same run with another number of iterations, if this one branches off it."""
    note: str = ""


def _prepared(recipe: Recipe, files: Files, team: Team, branch: str = "") -> _Job:
    """Check a run's files and read them.

    Raises:
        InputError: as `carry_out`.
    """
    origin = _origin(branch) if branch else None
    start = None if origin else _start_file(recipe)
    check(files, start)
    # Before the hashes, as it says better what is wrong with a file.
    recipe = _sized(recipe, files.content, files.styles)
    pictures, write = _read(recipe, files, start)
    identity = weights.verify(recipe.weights, recipe.weights_sha256 or None)
    digests = resume.digests(files.by_role(start))
    carried = f"{team.size} {files.has_snapshots}"  # the plan is made for so many, and for snapshots
    made_with = f"{identity.sha256} {carried}"
    shorter, note = None, ""
    if origin:
        at = f"iteration {origin.about['iteration']} of the run {branch}"
        then = {name: origin.about["recipe"][name] for name in ("iterations", "patience")}
        if resume.key(replace(recipe, **then), digests, made_with) == branch:
            shorter, note = origin, f"goes on from {at}"
        else:
            picture = origin.state["best"].float()
            recipe, note = replace(recipe, init=_BRANCH), f"begins with the picture of {at}"
            pictures = pictures._replace(start=picture)
        digests[_BRANCH] = [origin.sha256]
    key = resume.key(recipe, digests, made_with)
    _check_clobber(files, resume.known(key))
    return _Job(recipe, pictures, write, digests, identity.sha256, key, shorter, note)


_BRANCH = "branch"
"""Stands for the picture of a kept run among starts, and for its state among inputs."""


def _origin(branch: str) -> Checkpoint:
    """Return what is kept of the run of that name.

    Raises:
        InputError: nothing that can be used.
    """
    names = [run.key for run in resume.listing()]
    kept = resume.find(branch) if branch in names else None
    if kept is None:
        raise InputError(
            f"--branch: there is no run {branch!r}{near(branch, names)}; see: impasto runs list"
        )
    return kept


def _planned(
    job: _Job,
    files: Files,
    team: Team,
    about: Mapping[str, Any] | None,
    before: Plan | None = None,
) -> tuple[Plan, bool]:
    """Return a run's plan: that of the run to go on with, of which its manifest tells, if it can be.

    Raises:
        InputError: as `plan.make`.
    """
    snapshots = files.has_snapshots
    # There is none where nothing was kept, or on a machine that had what this one has not.
    if about and (plan := resume.plan_of(about)):
        plan = _longer(plan, job)
        return transfer.plan_again(job.recipe, job.pictures, plan, team, snapshots), True
    plan = transfer.plan_for(job.recipe, job.pictures, team, snapshots)
    return _as_before(plan, before) if before else plan, False


def _longer(plan: Plan, job: _Job) -> Plan:
    """Return the plan of the run that this one branches off from, longer or shorter in the end.

    Raises:
        InputError: that has come further already.
    """
    last = plan.levels[-1]
    iterations = job.recipe.iterations - sum(level.iterations for level in plan.levels[:-1])
    if iterations == last.iterations or job.shorter is None:
        return plan
    if iterations < 1 or job.shorter.about["iteration"] >= job.recipe.iterations:
        at = job.shorter.about["iteration"]
        raise InputError(f"--branch: that run is at iteration {at} already; give more --iterations")
    return replace(plan, levels=(*plan.levels[:-1], replace(last, iterations=iterations)))


def _as_before(plan: Plan, before: Plan) -> Plan:
    """Return the plan as another run of the same recipe was carried out; as it is if it cannot be."""
    same = [(level.size, level.iterations) for level in plan.levels]
    if same != [(level.size, level.iterations) for level in before.levels]:
        return plan
    if before.device != plan.device or (before.by_winograd and not plan.by_winograd):
        return plan
    return replace(before, budget=plan.budget, ample=plan.ample)


def _followed(
    story: Generator[Event, None, None],
    files: Files,
    write: "_Writer",
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
        made = made.ended(End(INTERRUPTED, iteration, last.evaluations))
        # Finishing takes memory of its own: the run's goes first.
        del last, event
        story.close()
        traceback.clear_frames(interruption.__traceback__)
        said = f"interrupted at iteration {iteration}; "
        try:
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


def story_of(picture: Path) -> Made:
    """Return how a picture of this project was made, as it says itself (`provenance`).

    Raises:
        InputError: it is no picture that can be read, or says nothing of this kind.
    """
    made = provenance.unpacked(images.read_xmp(picture))
    if made is None:
        raise InputError(
            f"{picture} does not say how it was made: another program wrote it, or took that out"
        )
    return made


@dataclass(frozen=True)
class Replay:
    """A picture made again: what was written, and where it differs from the one before.

    ``share`` of the pixels differ, by up to ``most`` of 0..1; ``conditions`` that could be why.
    """

    result: Result
    share: float
    most: float
    conditions: str


def is_made(recipe: Recipe, files: Files) -> bool:
    """Say whether the picture is there already: by this recipe, of these files, to the end.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        made = story_of(files.out)
    except InputError:
        return False
    recipe = _sized(recipe, files.content, files.styles)
    digests = resume.digests(files.by_role(_start_file(recipe)))
    sha256 = weights.verify(recipe.weights, recipe.weights_sha256 or None).sha256
    whole = made.end is not None and made.end.reason != INTERRUPTED and made.losses is not None
    return whole and made.is_of(recipe, digests, sha256, files.written)


def replay(
    picture: Path,
    files: Files,
    init: Path | None = None,
    own_weights: str = "",
    watchers: Sequence[Watcher] = (),
) -> Replay:
    """Make a picture again from its files, as it says that it was made, and compare the two.

    ``files`` name the inputs and where to write; how to write is the picture's to say. A start or
    weights from a file of the user's are given besides.

    Raises:
        InputError: the picture does not say, or was made from other files; or as `carry_out`.
    """
    made = story_of(picture)
    if made.end is None or made.end.reason == INTERRUPTED:
        raise InputError(f"{picture} is of an interrupted run: no run ends with it")
    if _BRANCH in made.inputs:
        raise InputError(f"{picture} went on from another run's state, which no file holds")
    recipe = provenance.recipe_of(made, init, own_weights)
    before = provenance.plan_of(made)
    files = replace(files, **asdict(made.written))
    check(files, init)
    _check_same(picture, made.inputs, files.by_role(init))
    if weights.verify(recipe.weights, recipe.weights_sha256 or None).sha256 != made.weights:
        raise InputError(f"{picture} was made with other weights; give them with --weights FILE")
    result = carry_out(recipe, files, watchers, before=before)
    one, other = (images.read_photograph(path) for path in (picture, result.path))
    if one.picture.shape != other.picture.shape:
        return Replay(result, 1.0, 1.0, "another size")
    pairs = [(one.picture, other.picture)]
    if one.alpha is not None and other.alpha is not None:
        pairs.append((one.alpha, other.alpha))
    apart = torch.cat([(a - b).abs() for a, b in pairs]).amax(0)
    now = resume.conditions(devices.choose_device(recipe.device))
    changed = resume.differences(made.conditions, now)
    return Replay(result, (apart > 0).float().mean().item(), apart.max().item(), changed)


def _check_same(
    picture: Path, inputs: Mapping[str, Sequence[str]], given: Mapping[str, tuple[Path, ...]]
) -> None:
    """Refuse files that a picture was not made from.

    Raises:
        InputError: one is missing, or too many, or another one.
    """
    found = resume.digests(given)
    for role in (*inputs, *(role for role in found if role not in inputs)):
        flag = _FLAGS.get(role, role)
        have, wanted = found.get(role, []), list(inputs.get(role, []))
        if len(have) != len(wanted):
            raise InputError(
                f"{flag}: {picture} was made from {len(wanted) or 'none'}, {len(have) or 'none'} given"
            )
        for path, one, other in zip(given.get(role, ()), have, wanted, strict=True):
            if one != other:
                raise InputError(
                    f"{picture} was made from another file than {flag} {path}: "
                    f"its SHA-256 is {one[:12]}..., not {str(other)[:12]}..."
                )


_FLAGS = {
    "content": "--content",
    "styles": "--style",
    "start": "--init",
    "content_mask": "--content-mask",
    "style_mask": "--style-mask",
    "keep": "--keep",
    "strength_map": "--strength-map",
}
"""What gives a file of each role to a replay."""


def assist(team: Team) -> None:
    """Do the part of a rank other than 0, until rank 0 has done its run or has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 hears them too, and decides
        signal.signal(number, signal.SIG_IGN)
    memory.keep(ample=False)
    transfer.follow(team)


class Rehearsal(NamedTuple):
    """The plan of a run, what it will take, and the iteration it would go on from, if there is one."""

    plan: Plan
    forecast: Forecast
    kept: int | None


def rehearse(
    recipe: Recipe, files: Files, team: Team = ALONE, fresh: bool = False, branch: str = ""
) -> Rehearsal:
    """Return the plan of a run, and what it will take, without carrying it out.

    The forecast is of the whole run, also where it would go on from what was kept of it.

    Raises:
        InputError: as `carry_out`.
    """
    job = _prepared(recipe, files, team, branch)
    recipe, pictures = job.recipe, job.pictures
    about = (None if fresh else resume.known(job.key)) or (job.shorter.about if job.shorter else None)
    plan, goes_on = _planned(job, files, team, about)
    memory.keep(plan.ample)
    images.check_size(files.out, *plan.size)
    forecast = planning.forecast(
        recipe,
        plan,
        *transfer.sizes(pictures),
        ranks=team.size,
        masks=transfer.shapes(pictures),
        snapshots=files.has_snapshots,
    )
    return Rehearsal(plan, forecast, about["iteration"] if about and goes_on else None)


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


def _read(recipe: Recipe, files: Files, start: Path | None) -> tuple[Pictures, "_Writer"]:
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
    if photograph is None:
        return pictures, _Writer(files.bit_depth)
    return pictures, _Writer(files.bit_depth, files.kept(photograph.metadata), photograph.alpha)


@dataclass(frozen=True)
class _Writer:
    """Writes a run's pictures: how deep, and with what is kept of the photograph's file."""

    bit_depth: int
    metadata: images.Metadata = images.NO_METADATA
    alpha: Tensor | None = None

    def __call__(self, picture: Tensor, path: Path, made: Made | None = None) -> None:
        """Write a picture, and in it how it was ``made``."""
        xmp = provenance.packed(made) if made else b""
        images.write(picture, path, self.bit_depth, self.metadata, self.alpha, xmp)


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
    for target in _earlier(files):
        _check_apart(target, inputs)
    if files.timelapse and (folder := timelapse_folder(files.out)).exists() and not folder.is_dir():
        raise InputError(f"--timelapse needs a folder {folder}, and that is a file; move it away")
    if files.log and files.log.resolve() == files.out.resolve():
        raise InputError(f"--log and -o are the same file {files.out}; give two names")


def _earlier(files: Files) -> list[Path]:
    """Return the files that bear the names of pictures that are written on the way."""
    try:
        found = existing_snapshots(files.out, files.save_every) if files.save_every else []
        return found + (existing_frames(files.out) if files.timelapse else [])
    except OSError as error:
        raise InputError(f"cannot look into {files.out.parent}: {error.strerror}") from None


def _check_clobber(files: Files, known: Mapping[str, Any] | None) -> None:
    """Refuse to replace pictures where that is forbidden, but for those of the run that goes on.

    Raises:
        InputError: as above.
    """
    if not files.no_clobber:
        return
    earlier = _earlier(files)
    if known and known.get("out") == str(files.out.absolute()) and _is_unfinished(files.out):
        earlier = []
    elif files.out.exists():
        earlier = [files.out]
    for target in earlier:
        raise InputError(f"{target} exists and --no-clobber forbids replacing it")


def _is_unfinished(out: Path) -> bool:
    """Say whether there is no picture yet, or that of an interruption."""
    if not out.exists():
        return True
    try:
        end = story_of(out).end
    except InputError:
        return False
    return end is not None and end.reason == INTERRUPTED


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
