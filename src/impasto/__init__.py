"""impasto paints a photograph in the manner of a painting, by optimisation.

    import impasto

    photo = impasto.images.read("photo.jpg")
    painting = impasto.images.read("painting.jpg")
    picture = impasto.transfer.picture(photo, painting, size=512)
    impasto.images.write(picture, "painted.png")

Submodules load when they are first used, so that importing this package does not import torch.
"""

import importlib
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impasto import errors, events, images, measures, samples, transfer
    from impasto.recipe import Recipe

REPLACED = "IMPASTO_BEGAN"
"""Set in a process that has replaced another one, to when that one had loaded the program."""


def _began() -> float:
    now = time.monotonic()
    try:
        before = float(os.environ[REPLACED])
    except (KeyError, ValueError):
        return now
    return before if 0 <= before <= now else now


BEGAN = _began()
"""When the program was loaded, for `--timings`: by the process that this one has replaced, if it has."""

__all__ = ["Recipe", "errors", "events", "images", "measures", "samples", "transfer"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "Recipe":
        return importlib.import_module("impasto.recipe").Recipe
    if name in __all__:
        return importlib.import_module(f"impasto.{name}")
    raise AttributeError(f"module 'impasto' has no attribute {name!r}")
