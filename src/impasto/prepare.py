"""A run before its first event: files checked and read, its name, its plan, what it goes on from."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from impasto import images, memory, resume, transfer, weights
from impasto import plan as planning
from impasto.checkpoint import Checkpoint
from impasto.errors import InputError, near
from impasto.inputs import Writer, read, sized
from impasto.jobs import Files, check, check_clobber, start_file
from impasto.parallel import ALONE, Team
from impasto.plan import Forecast, Plan
from impasto.recipe import Recipe
from impasto.transfer import Pictures

__all__ = ["BRANCH", "Job", "Rehearsal", "planned", "prepared", "rehearse"]

BRANCH = "branch"
"""Stands for the picture of a kept run among starts, and for its state among inputs."""


class Job(NamedTuple):
    """A run that is ready to begin: what was read, what writes its pictures, what it is known by."""

    recipe: Recipe
    pictures: Pictures
    write: Writer
    digests: dict[str, list[str]]
    weights: str
    key: str
    shorter: Checkpoint | None = None
    """What is kept of the same run with another number of iterations, if this one branches off it."""
    note: str = ""


def prepared(recipe: Recipe, files: Files, team: Team, branch: str = "", fresh: bool = False) -> Job:
    """Check a run's files and read them.

    Raises:
        InputError: as `carry_out`.
    """
    start = None if branch else start_file(recipe)
    check(files, start)
    # Before the hashes, as it says better what is wrong with a file.
    recipe = sized(recipe, files.content, files.styles)
    pictures, write = read(recipe, files, start)
    identity = weights.verify(recipe.weights, recipe.weights_sha256 or None)
    digests = resume.digests(files.by_role(start))
    # The plan is made for so many, and the frames of a film are those of one film.
    made_with = f"{identity.sha256} {team.size} {files.timelapse}"
    job = Job(recipe, pictures, write, digests, identity.sha256, "")
    if branch:
        job = _branched(job, branch, made_with, fresh)
    else:
        job = job._replace(key=resume.key(recipe, digests, made_with))
    check_clobber(files, resume.known(job.key))
    return job


def _branched(job: Job, branch: str, made_with: str, fresh: bool) -> Job:
    """Return a run that branches off another; what is kept of itself it goes on from without that.

    Raises:
        InputError: nothing is kept of either.
    """
    recipe, digests = job.recipe, {**job.digests, BRANCH: [branch]}
    job = job._replace(digests=digests, key=resume.key(replace(recipe, init=BRANCH), digests, made_with))
    own = None if fresh else resume.known(job.key)
    if own:
        return job._replace(recipe=replace(recipe, init=own["recipe"]["init"]))
    origin = _origin(branch)
    at = f"iteration {origin.about['iteration']} of the run {branch}"
    then = {name: origin.about["recipe"][name] for name in ("iterations", "patience")}
    same = {role: several for role, several in digests.items() if role != BRANCH}
    if resume.key(replace(recipe, **then), same, made_with) == branch:
        return job._replace(shorter=origin, note=f"goes on from {at}")
    return job._replace(
        recipe=replace(recipe, init=BRANCH),
        pictures=job.pictures._replace(start=origin.state["best"].float()),
        note=f"begins with the picture of {at}",
    )


def _origin(branch: str) -> Checkpoint:
    """Return what is kept of the run of that name.

    Raises:
        InputError: nothing that can be used.
    """
    names = [run.key for run in resume.listing()]
    kept = resume.find(branch, mend=False) if branch in names else None
    if kept is None:
        raise InputError(
            f"--branch: there is no run {branch!r}{near(branch, names)}; see: impasto runs list"
        )
    return kept


def planned(
    job: Job,
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
    if before:
        with contextlib.suppress(InputError):  # there is too little memory to do it as it was done
            again = _as_before(plan, before)
            plan = transfer.plan_again(job.recipe, job.pictures, again, team, snapshots)
    return plan, False


def _longer(plan: Plan, job: Job) -> Plan:
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
    job = prepared(recipe, files, team, branch, fresh)
    recipe, pictures = job.recipe, job.pictures
    about = (None if fresh else resume.known(job.key)) or (job.shorter.about if job.shorter else None)
    plan, goes_on = planned(job, files, team, about)
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
