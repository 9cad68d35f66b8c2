"""The whole story: a photograph and paintings in, events and a picture out. Reads and writes no picture.

Pictures are tensors ``[3, H, W]``, float32, sRGB in 0..1, of any size: they are brought to the plan's.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from impasto import plan as planning
from impasto import schedule, weights
from impasto.errors import InputError
from impasto.events import Event, Finished, Started
from impasto.objective import Objective
from impasto.optimize import descend
from impasto.plan import Plan
from impasto.recipe import Recipe
from impasto.vgg import VGG19

__all__ = ["Pictures", "picture", "run"]


class Pictures(NamedTuple):
    """What a run looks at: no content for a texture, no styles for a content reconstruction.

    ``start`` is the picture to begin with where ``Recipe.init`` names a file.
    """

    content: Tensor | None = None
    styles: tuple[Tensor, ...] = ()
    start: Tensor | None = None

    @property
    def all(self) -> tuple[Tensor, ...]:
        """Every picture there is, in this order: content, styles, start."""
        return tuple(x for x in (self.content, *self.styles, self.start) if x is not None)


def run(
    recipe: Recipe, pictures: Pictures, plan: Plan, state: dict[str, Any] | None = None
) -> Iterator[Event]:
    """Carry out a recipe; yield `Started`, a `Step` per iteration from 0, and `Finished`.

    ``state`` is what a step's ``state()`` gave: the run goes on after that step.

    Raises:
        InputError: the recipe does not fit the pictures, or the weights cannot be used.
        RunError: the losses are not finite, even after stepping back.
    """
    parameters = weights.load(recipe.weights, recipe.weights_sha256 or None)
    network = VGG19(
        parameters, recipe.pooling, recipe.padding, plan.precision, plan.device, plan.by_winograd
    )
    content = None if pictures.content is None else _place(pictures.content, plan, plan.size)
    styles = [_place(style, plan, _style_size(style, plan, recipe)) for style in pictures.styles]
    start = _place(_start(recipe, pictures, plan), plan, plan.size)
    objective = Objective(recipe, network, content, styles)
    yield Started(
        width=plan.size[1],
        height=plan.size[0],
        device=str(plan.device),
        precision=plan.arithmetic,
        iterations=recipe.iterations,
        notes=parameters.notes,
    )
    outcome = yield from descend(recipe, start, objective, state)
    yield Finished(
        reason=outcome.reason,
        iterations=outcome.iterations,
        evaluations=outcome.evaluations,
        picture=outcome.best,
        evaluate=objective.losses,
    )


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


def plan_for(recipe: Recipe, pictures: Pictures) -> Plan:
    """Return the plan for these pictures on this machine."""
    content, style = pictures.content, next(iter(pictures.styles), None)
    return planning.make(recipe, _size(content), _size(style))


def _size(image: Tensor | None) -> tuple[int, int] | None:
    return None if image is None else (image.shape[1], image.shape[2])


def _place(image: Tensor, plan: Plan, size: tuple[int, int]) -> Tensor:
    """Bring a picture to ``size`` and to the device; in float32 also where features are bf16."""
    real = torch.promote_types(plan.precision, torch.float32)
    return schedule.resize(image.to(real), size).to(plan.device)


def _style_size(style: Tensor, plan: Plan, recipe: Recipe) -> tuple[int, int]:
    """Return the style's size: the picture's long side, its own aspect."""
    size = schedule.fitted(style.shape[1], style.shape[2], max(plan.size))
    schedule.check_sides(*size, "a style", schedule.smallest_side(recipe))
    return size


def _start(recipe: Recipe, pictures: Pictures, plan: Plan) -> Tensor:
    """Return the picture to start from, of about the plan's size."""
    height, width = plan.size
    if pictures.start is not None:
        return pictures.start
    if recipe.init == "content" and pictures.content is not None:
        return pictures.content
    if recipe.init == "style" and pictures.styles:
        return schedule.cover(pictures.styles[0], plan.size)
    if recipe.init == "gray":
        return torch.full((3, height, width), 0.5)
    if recipe.init == "noise":
        generator = torch.Generator().manual_seed(recipe.seed)
        return torch.rand(3, height, width, generator=generator)
    raise InputError(f"--init {recipe.init}: this run has no such picture; start from noise or gray")
