"""The whole story: a photograph and paintings in, events and a picture out. Reads and writes no picture.

Pictures are tensors ``[3, H, W]``, float32, sRGB in 0..1, of any size: they are brought to the plan's.
"""

import functools
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from impasto import color, masks, schedule, weights
from impasto import plan as planning
from impasto.cost import Masks
from impasto.errors import InputError
from impasto.events import Event, Finished, Started, Step
from impasto.objective import Evaluation, Known, Objective, Regions
from impasto.optimize import Outcome, descend
from impasto.parallel import ALONE, Team
from impasto.plan import Level, Plan
from impasto.recipe import Recipe
from impasto.styles import Learned, Style
from impasto.vgg import VGG19
from impasto.weights import Weights

__all__ = [
    "Done",
    "Pictures",
    "Shared",
    "follow",
    "picture",
    "plan_again",
    "plan_for",
    "run",
    "shapes",
    "sizes",
]


class Pictures(NamedTuple):
    """What a run looks at: no content for a texture, no styles for a content reconstruction.

    ``start`` is the picture to begin with where ``Recipe.init`` names a file. ``regions`` say which part
    is painted by which style; ``keep`` and ``strength``, ``[1, H, W]`` over the content, where the
    content stays, to the last bit from a half on, and how much of the painting is seen.
    """

    content: Tensor | None = None
    styles: tuple[Tensor | Style, ...] = ()
    start: Tensor | None = None
    regions: Regions | None = None
    keep: Tensor | None = None
    strength: Tensor | None = None

    @property
    def learned(self) -> tuple[Style, ...]:
        """The styles that were learned: there is no painting to look at."""
        return tuple(style for style in self.styles if isinstance(style, Style))

    @property
    def paintings(self) -> tuple[Tensor, ...]:
        """The styles that are pictures."""
        return tuple(style for style in self.styles if not isinstance(style, Style))


class Shared:
    """What runs of one recipe with the same styles share: the network, and summaries of the styles.

    The first run makes it, the others use it; a run gives the same bytes with it and without.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.styles = Known()
        self._networks: dict[Hashable, tuple[VGG19, Weights]] = {}

    @property
    def in_use(self) -> bool:
        """Whether a run has made what the next will use."""
        return bool(self._networks)

    def network(self, recipe: Recipe, plan: Plan) -> tuple[VGG19, Weights]:
        """Return the network as deep as it is needed, and the weights that it is made of."""
        key = plan.precision, plan.device, plan.by_winograd
        if key not in self._networks:
            parameters = weights.load(recipe.weights, recipe.weights_sha256 or None)
            network = VGG19.of(recipe, parameters, *key)
            self._networks[key] = network, replace(parameters, kernels={})  # it has those it needs
        return self._networks[key]


def run(
    recipe: Recipe,
    pictures: Pictures,
    plan: Plan,
    state: dict[str, Any] | None = None,
    team: Team = ALONE,
    shared: "Shared | None" = None,
) -> Generator[Event, None, None]:
    """Carry out a recipe; yield `Started`, a `Step` per iteration from 0, and `Finished`.

    ``state`` is what a step's ``state()`` gave: the run goes on after that step. The other ranks of a
    ``team`` `follow`, until they are told that all is done. Runs of one recipe with the same styles
    may have network and styles ``shared``.

    Raises:
        InputError: the recipe does not fit the pictures, or the weights cannot be used.
        RunError: the losses are not finite, even after stepping back.
    """
    done = Done(**state["done"]) if state else Done()
    team.tell((recipe, replace(plan, levels=plan.levels[done.levels :])))
    plan = replace(plan, device=team.place(plan.device))
    network, parameters = (shared or Shared()).network(recipe, plan)
    for style in pictures.learned:
        style.check_network(parameters.sha256, lambda layer: len(parameters.biases[layer]))
    finish = functools.partial(_finished, recipe, plan.size, _remembered(recipe, pictures))
    as_given, pictures = pictures.styles, _recoloured(recipe, pictures)
    # Styles in the colours of a photograph are that photograph's own.
    known = shared.styles if shared and pictures.styles is as_given else None
    yield Started(
        width=plan.size[1],
        height=plan.size[0],
        device=str(plan.device),
        precision=plan.arithmetic,
        iterations=recipe.iterations,
        notes=(*parameters.notes, *_notes(recipe, pictures, plan)),
        levels=tuple(level.describe() for level in plan.levels),
        finish=finish,
        done=done.iterations + state["iteration"] if state else None,
    )
    picture = state["best"] if state else _start(recipe, pictures, plan)
    detailed = recipe.init == "content" and bool(pictures.styles) and recipe.wants_content
    for level in plan.levels[done.levels :]:
        content, styles = _placed(recipe, pictures, plan, level)
        regions, keep = _regions(recipe, pictures, level.size), _kept(pictures, level.size)
        objective = _objective(recipe, network, content, styles, level, team, regions, known)
        if level is plan.levels[-1]:  # the targets have all that is needed of them
            pictures = Pictures()
        if done.levels and state is None:
            detail = content if detailed else None
            picture = schedule.enlarge(picture, level.size, detail, recipe.tileable)
        start = _place(picture, plan, level.size)
        if keep is not None and content is not None:
            start = torch.where(keep.to(start.device), content, start)
        del content, styles, picture, regions
        descent = descend(level.recipe(recipe), start, _holding(objective, keep), state)
        del start  # it is the descent's now, which frees it, as it does the state
        state = None
        outcome = yield from _numbered(descent, done, skip_start=bool(done.levels))
        done, picture = done.after(outcome), outcome.best
        if level is not plan.levels[-1]:
            team.tell("next level")
            del objective, descent  # before the next level makes its own
    yield Finished(
        reason=outcome.reason,
        iterations=done.iterations,
        evaluations=done.evaluations,
        picture=finish(picture),
        evaluate=lambda saved: objective.losses(_as_seen(recipe, saved)),
    )


def follow(team: Team) -> None:
    """Do this rank's part of a `run` that rank 0 leads, until it says that all is done."""
    told = team.tell()
    if told == "done":
        return
    recipe, plan = told
    plan = replace(plan, device=team.place(plan.device))
    network, _ = Shared().network(recipe, plan)
    for level in plan.levels:
        objective = _objective(recipe, network, None, [], level, team, None)
        like = torch.empty(3, *level.size, dtype=network.real, device=plan.device)
        if objective.follow(like) == "done":
            return


def picture(content: Tensor | None, *styles: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    """Return the picture that `run` ends with; ``options`` are the fields of a `Recipe`.

    Example:
        >>> photo, painting = torch.rand(3, 48, 64), torch.rand(3, 32, 32)
        >>> tuple(picture(photo, painting, size=32, iterations=1).shape)
        (3, 24, 32)
    """
    recipe = Recipe(**options)
    pictures = Pictures(content, styles)
    # Only the last event is kept: each step holds a picture.
    (finished,) = deque(run(recipe, pictures, plan_for(recipe, pictures)), maxlen=1)
    assert isinstance(finished, Finished)
    return finished.picture


def plan_for(recipe: Recipe, pictures: Pictures, team: Team = ALONE, snapshots: bool = False) -> Plan:
    """Return the plan for these pictures on this machine; ``snapshots`` if steps are saved on the way.

    Raises:
        InputError: as `plan.make`, and masks do not fit their pictures or each other.
    """
    _check_learned(recipe, pictures)
    found, masked = sizes(pictures), shapes(pictures)
    made = planning.make(recipe, *found, ranks=team.size, masks=masked, snapshots=snapshots)
    _remembered(recipe, pictures)
    if pictures.strength is not None:
        masks.fit(pictures.strength, made.size, "--strength-map", sizes(pictures)[0])
    for level in made.levels:
        _regions(recipe, pictures, level.size)
        _kept(pictures, level.size)
    return made


def plan_again(
    recipe: Recipe, pictures: Pictures, plan: Plan, team: Team = ALONE, snapshots: bool = False
) -> Plan:
    """Return a plan that was made for these pictures earlier, cut smaller where it no longer fits.

    Raises:
        InputError: as `plan.again`.
    """
    found, masked = sizes(pictures), shapes(pictures)
    return planning.again(recipe, plan, *found, ranks=team.size, masks=masked, snapshots=snapshots)


def sizes(pictures: Pictures) -> list[tuple[int, int] | None]:
    """Return the (height, width) of the content, or None, and of the styles."""
    content = pictures.content
    return [
        None if content is None else (content.shape[1], content.shape[2]),
        *(
            one.size if isinstance(one, Style) else (one.shape[1], one.shape[2])
            for one in pictures.styles
        ),
    ]


def shapes(pictures: Pictures) -> Masks:
    """Return the shapes of the masks."""
    given = (*(pictures.regions or (None, None)), pictures.keep, pictures.strength)
    return Masks(*(None if one is None else (len(one), one.shape[1], one.shape[2]) for one in given))


class Done(NamedTuple):
    """How far a run is: the levels behind it, and their iterations and evaluations."""

    levels: int = 0
    iterations: int = 0
    evaluations: int = 0

    def after(self, outcome: Outcome) -> "Done":
        """Return how far it is after one level more."""
        return Done(
            self.levels + 1,
            self.iterations + outcome.iterations,
            self.evaluations + outcome.evaluations,
        )


def _numbered(
    descent: Generator[Step, None, Outcome], done: Done, skip_start: bool
) -> Generator[Step, None, Outcome]:
    """Yield a level's steps, counted from the run's beginning; return how the level ended.

    The start of a later level is the end of the one before it, and no step.
    """
    # Whoever keeps a step keeps its pictures, but not the optimiser that its state comes from.
    now: list[Step] = []
    try:
        while True:
            try:
                step = next(descent)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            now[:] = [step]
            if not (skip_start and step.iteration == 0):
                yield replace(
                    step,
                    level=done.levels,
                    iteration=done.iterations + step.iteration,
                    evaluations=done.evaluations + step.evaluations,
                    state=functools.partial(_state, now, step.iteration, done),
                )
            del step
    finally:
        now.clear()


def _state(now: list[Step], iteration: int, done: Done, copied: bool = True) -> dict[str, Any]:
    if not now or now[0].iteration != iteration:
        raise RuntimeError("the run has moved on; call state() before asking for the next event")
    return {**now[0].state(copied=copied), "done": done._asdict()}


def _notes(recipe: Recipe, pictures: Pictures, plan: Plan) -> list[str]:
    """Return what there is to say about learned styles: those of other sizes than the levels want."""
    at = [schedule.styles_at(recipe, level.size, _style_sizes(pictures)) for level in plan.levels]
    found = []
    for style, placed in zip(pictures.styles, zip(*at, strict=True), strict=True):
        if isinstance(style, Style) and (note := style.note(placed)):
            found.append(note)
    return found


def _style_sizes(pictures: Pictures) -> list[tuple[int, int]]:
    return [size for size in sizes(pictures)[1:] if size]


def _objective(
    recipe: Recipe,
    network: VGG19,
    content: Tensor | None,
    styles: Sequence[Tensor | Learned],
    level: Level,
    team: Team,
    regions: Regions | None,
    known: Known | None = None,
) -> Objective:
    """Return a level's objective; every rank sees rank 0's pictures."""
    content = team.show(content, network.device)
    learned = team.tell([style if isinstance(style, Learned) else None for style in styles])
    pictures = [None if isinstance(style, Learned) else style for style in styles]
    pictures += [None] * (len(learned) - len(styles))
    shown = [
        known or team.show(picture, network.device)
        for known, picture in zip(learned, pictures, strict=True)
    ]
    found = [style for style in shown if style is not None]
    parts = [team.show(part, network.device) for part in (regions or (None, None))]
    regions = None if parts[0] is None else Regions(parts[0], parts[1])
    return Objective(recipe, network, content, found, level.cut, team, regions, known)


def _regions(recipe: Recipe, pictures: Pictures, size: tuple[int, int]) -> Regions | None:
    """Return the regions at the sizes of a level.

    Raises:
        InputError: regions of the content and styles, or regions of the style, cannot be paired.
    """
    if pictures.regions is None:
        return None
    read, *styles = sizes(pictures)
    if recipe.style_weights:
        raise InputError("--style-weights mix styles, masks keep them apart; use one of them")
    content = masks.fit(pictures.regions.content, size, "the content's mask", read)
    if (style := pictures.regions.style) is not None:
        if len(styles) != 1:
            raise InputError("--style-mask is for one STYLE; leave it out to give a style per region")
        _refuse_learned(pictures, "--style-mask")
        (placed,) = schedule.styles_at(recipe, size, [found for found in styles if found])
        style = masks.fit(style, placed, "the style's mask", styles[0])
        masks.check(content, style, recipe.deepest_layer)
    else:
        if len(content) != len(styles):
            raise InputError(
                f"the content's masks have {len(content)} regions for {len(styles)} styles: "
                "give one STYLE per region, or one with --style-mask"
            )
        masks.check(content, content, recipe.deepest_layer)
    return Regions(content, style)


def _kept(pictures: Pictures, size: tuple[int, int]) -> Tensor | None:
    """Return where the content stays, ``[1, H, W]``."""
    like = sizes(pictures)[0]
    return None if pictures.keep is None else masks.fit(pictures.keep, size, "--keep", like) >= 0.5


def _holding(objective: Objective, keep: Tensor | None) -> Callable[[Tensor], Evaluation]:
    """Return the objective, without a gradient where pixels are kept: no optimiser moves them."""
    if keep is None:
        return objective

    def evaluate(picture: Tensor) -> Evaluation:
        found = objective(picture)
        held = keep.to(picture.device)
        return Evaluation(found.losses, found.gradient.masked_fill_(held, 0), held)

    return evaluate


def _placed(
    recipe: Recipe, pictures: Pictures, plan: Plan, level: Level
) -> tuple[Tensor | None, list[Tensor | Learned]]:
    """Return content and styles at a level's size, learned ones at the nearest."""
    content = None if pictures.content is None else _place(pictures.content, plan, level.size)
    at = schedule.styles_at(recipe, level.size, _style_sizes(pictures))
    return content, [
        style.at(size) if isinstance(style, Style) else _place(style, plan, size)
        for style, size in zip(pictures.styles, at, strict=True)
    ]


def _check_learned(recipe: Recipe, pictures: Pictures) -> None:
    """Refuse what learned styles were not learned for, and what needs the painting itself."""
    for style in pictures.learned:
        style.check(recipe)
    if recipe.color == "match":
        _refuse_learned(pictures, "--color match")
    if recipe.color_method == "luminance":
        _refuse_learned(pictures, "--color-method luminance")
    if recipe.init == "style":
        _refuse_learned(pictures, "--init style")


def _refuse_learned(pictures: Pictures, option: str) -> None:
    if pictures.learned:
        name = pictures.learned[0].name
        raise InputError(f"{option} looks at the painting, and {name} was learned: give the painting")


def _recoloured(recipe: Recipe, pictures: Pictures) -> Pictures:
    """Return the pictures in the colours that the descent is to see.

    Raises:
        InputError: there is no photograph to take colours from.
    """
    content = pictures.content
    if recipe.color == "style" or not recipe.color_strength:
        return pictures
    if content is None:
        raise InputError(f"--color {recipe.color}: this run has no photograph; use --color style")
    if recipe.color == "match":
        method = "monge" if recipe.color_method == "auto" else recipe.color_method
        matched = (color.match(x, content, method, recipe.color_strength) for x in pictures.paintings)
        return pictures._replace(styles=tuple(matched))
    if recipe.color_method != "luminance":
        return pictures
    grey = color.luminance(content)
    styles = (color.match_luminance(color.luminance(x), grey) for x in pictures.paintings)
    start = None if pictures.start is None else color.luminance(pictures.start)
    return pictures._replace(content=grey, styles=tuple(styles), start=start)


def _as_seen(recipe: Recipe, picture: Tensor) -> Tensor:
    """Return a finished picture in the colours that the descent saw."""
    grey = recipe.color_method == "luminance" and recipe.color_strength
    return color.luminance(picture) if grey else picture


def _remembered(recipe: Recipe, pictures: Pictures) -> Pictures:
    """Return of the pictures what a finished one still needs.

    Raises:
        InputError: there is no photograph to keep parts of.
    """
    parts = pictures.keep, pictures.strength
    if pictures.content is None and parts != (None, None):
        raise InputError("--keep and --strength-map keep parts of a photograph; this run has none")
    needed = recipe.color == "content" or parts != (None, None)
    return Pictures(pictures.content if needed else None, keep=parts[0], strength=parts[1])


def _finished(recipe: Recipe, size: tuple[int, int], given: Pictures, picture: Tensor) -> Tensor:
    """Return a picture as it is written: its full size, less noise, with what the content gives back."""
    if not recipe.denoise and given.content is None and tuple(picture.shape[1:]) == size:
        return picture
    picture = schedule.enlarge(picture.cpu().float(), size, wrap=recipe.tileable)
    picture = color.denoise(picture, recipe.denoise, wrap=recipe.tileable)
    if given.content is None:
        return picture
    content = schedule.resize(given.content, size)
    if recipe.color == "content":
        how = "luminance" if recipe.color_method == "luminance" else "lab"
        picture = color.restore(picture, content, how, recipe.color_strength)
    if given.strength is not None:
        strength = masks.fit(given.strength, size, "--strength-map", sizes(given)[0])
        picture = content.lerp(picture, strength)
    keep = _kept(given, size)
    return picture if keep is None else torch.where(keep, content, picture)


def _place(image: Tensor, plan: Plan, size: tuple[int, int]) -> Tensor:
    """Bring a picture to ``size`` and to the device; in float32 also where features are bf16."""
    real = torch.promote_types(plan.precision, torch.float32)
    return schedule.resize(image.to(real), size).to(plan.device)


def _start(recipe: Recipe, pictures: Pictures, plan: Plan) -> Tensor:
    """Return the picture to start from, of about the first level's size."""
    height, width = plan.levels[0].size
    if pictures.start is not None:
        return pictures.start
    if recipe.init == "content" and pictures.content is not None:
        return pictures.content
    if recipe.init == "style" and pictures.styles:
        return schedule.cover(pictures.paintings[0], plan.levels[0].size)
    if recipe.init == "gray":
        return torch.full((3, height, width), 0.5)
    if recipe.init == "noise":
        generator = torch.Generator().manual_seed(recipe.seed)
        return torch.rand(3, height, width, generator=generator)
    raise InputError(f"--init {recipe.init}: this run has no such picture; start from noise or gray")
