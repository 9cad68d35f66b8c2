"""A picture made again, by what it says of itself; and whether one is there already."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from impasto import devices, images, provenance, resume, weights
from impasto import plan as planning
from impasto.errors import InputError
from impasto.inputs import sized
from impasto.jobs import Files, check, start_file, story_of, told
from impasto.prepare import BRANCH
from impasto.recipe import Recipe
from impasto.runs import Result, carry_out
from impasto.watch import Watcher

__all__ = ["Replay", "is_made", "replay"]


@dataclass(frozen=True)
class Replay:
    """A picture made again: what was written, and where it differs from the one before.

    ``share`` of the pixels differ, by up to ``most`` of 0..1; ``conditions`` that could be why.
    """

    result: Result
    share: float
    most: float
    conditions: str


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
    if not made.finished:
        raise InputError(f"{picture} is of an interrupted run: no run ends with it")
    if BRANCH in made.inputs:
        raise InputError(f"{picture} went on from another run's state, which no file holds")
    recipe = provenance.recipe_of(made, init, own_weights)
    before = planning.from_json(made.plan)
    files = replace(files, **asdict(made.written))
    check(files, init)
    _check_same(picture, made.inputs, files.by_role(init))
    if weights.verify(recipe.weights, recipe.weights_sha256 or None).sha256 != made.weights:
        raise InputError(f"{picture} was made with other weights; give them with --weights FILE")
    result = carry_out(recipe, files, watchers, before=before)
    one, other = (images.read_photograph(path) for path in (picture, result.path))
    if one.picture.shape != other.picture.shape:
        return Replay(result, 1.0, 1.0, "another size")
    opaque = torch.ones(1, *one.picture.shape[1:])
    alphas = (opaque if seen.alpha is None else seen.alpha for seen in (one, other))
    pairs = [(one.picture, other.picture), tuple(alphas)]
    apart = torch.cat([(a - b).abs() for a, b in pairs]).amax(0)
    now = resume.conditions(devices.choose_device(recipe.device))
    changed = [resume.differences(made.conditions, now)]
    anew = told(result.path)
    if anew and anew.plan != made.plan:
        changed.append("it was carried out by another plan")
    conditions = "; ".join(filter(None, changed))
    return Replay(result, (apart > 0).float().mean().item(), apart.max().item(), conditions)


def is_made(recipe: Recipe, files: Files) -> bool:
    """Say whether the picture is there already: by this recipe, of these files, to the end.

    Raises:
        InputError: a file cannot be read.
    """
    made = told(files.out)
    if made is None or not made.whole:
        return False
    recipe = sized(recipe, files.content, files.styles)
    digests = resume.digests(files.by_role(start_file(recipe)))
    sha256 = weights.verify(recipe.weights, recipe.weights_sha256 or None).sha256
    return made.is_of(recipe, digests, sha256, files.written)


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
