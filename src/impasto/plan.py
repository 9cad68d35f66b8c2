"""How a recipe is carried out on this machine: the picture's size, device and precision.

Nothing that is measured may stand here without being part of the plan: same plan, same bytes.
"""

from dataclasses import dataclass

import torch

from impasto import devices, schedule, winograd
from impasto.errors import InputError
from impasto.recipe import Recipe

__all__ = ["Plan", "make"]


@dataclass(frozen=True)
class Plan:
    """The size (height, width) of the picture, and where, in which precision and how it is computed."""

    size: tuple[int, int]
    device: torch.device
    precision: torch.dtype
    by_winograd: bool

    @property
    def arithmetic(self) -> str:
        """The precision, for people."""
        return str(self.precision).removeprefix("torch.") + " by Winograd" * self.by_winograd


def make(recipe: Recipe, content: tuple[int, int] | None, style: tuple[int, int] | None) -> Plan:
    """Return the plan for pictures of these sizes (height, width).

    The picture has the content's aspect, without a content the first style's.

    Raises:
        InputError: the network cannot take that size, or the machine has no such device.
    """
    like = content or style
    if like is None:
        raise InputError("nothing to do: give a content or a style picture")
    if len(recipe.sides) == 2:
        if content is not None:
            raise InputError(
                f"--size {recipe.size}: a picture keeps its photograph's aspect; "
                "give the long side alone, e.g. --size 512"
            )
        width, height = recipe.sides
        size = height, width
    else:
        size = schedule.fitted(*like, recipe.sides[0])
    schedule.check_sides(*size, "the picture", smallest=schedule.smallest_side(recipe))
    device = devices.choose_device(recipe.device)
    precision = devices.choose_precision(recipe.precision, device)
    # A precision that was asked for by name is meant to the last bit.
    fast = recipe.precision == "auto" and device.type == "cpu" and precision == torch.float32
    return Plan(size, device, precision, by_winograd=fast and winograd.available())
