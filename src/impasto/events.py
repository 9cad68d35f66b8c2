"""What a run yields. Frozen; watchers read them, nothing writes to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Event", "Finished", "Losses", "Noted", "Started", "Step"]


@dataclass(frozen=True)
class Losses:
    """The losses of one picture.

    ``content`` and ``style`` are before alpha and beta; ``total`` is the weighted sum with total
    variation. A loss that the run does not have is 0 and has no layers.
    """

    total: float
    content: float
    style: float
    tv: float
    content_layers: dict[str, float]
    style_layers: dict[str, float]


def _unchanged(picture: Tensor) -> Tensor:
    return picture


@dataclass(frozen=True)
class Started:
    """The run is about to descend: the picture's size, how it is computed, what to know."""

    width: int
    height: int
    device: str
    precision: str
    iterations: int
    notes: tuple[str, ...]
    levels: tuple[str, ...]
    """How each level is carried out, in words."""
    done: int | None = None
    """The iteration that the run goes on from, if it goes on from a state."""
    finish: Callable[[Tensor], Tensor] = _unchanged
    """Makes of a step's picture what is written: its full size, colours and noise as asked for."""


@dataclass(frozen=True)
class Step:
    """One iteration is done. ``iteration`` 0 is the start; ``level`` counts from 0, the coarsest.

    ``picture`` is this step's, ``best`` the one with the lowest total so far on its level; both are
    ``[3, H, W]`` in 0..1 and are never changed afterwards. ``state()`` makes a copy of all that is
    needed to go on from here: tensors and JSON scalars. Call it before asking for the next event;
    ``state(copied=False)`` takes no memory and holds no longer than that.
    """

    iteration: int
    evaluations: int
    losses: Losses
    picture: Tensor
    best: Tensor
    state: Callable[..., dict[str, Any]]
    level: int = 0


@dataclass(frozen=True)
class Noted:
    """Something to know while the run goes on, in one line."""

    note: str


@dataclass(frozen=True)
class Finished:
    """The run is over. ``picture`` is the best seen; ``evaluate`` gives the losses of any picture."""

    reason: str
    iterations: int
    evaluations: int
    picture: Tensor
    evaluate: Callable[[Tensor], Losses]


Event = Started | Step | Noted | Finished
