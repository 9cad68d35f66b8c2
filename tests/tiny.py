"""The program through the tiny network; so are the processes that it starts, which read this file too.

    python tests/tiny.py COMMAND ...

A run that goes on from a state, or ends, adds a line to the file that `IMPASTO_TOLD` names.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

import impasto.weights
from conftest import make_tiny_weights
from impasto import runs
from impasto.events import Event, Started
from impasto.recipe import Recipe

_carry_out = runs.carry_out
_weights = make_tiny_weights()


def _tell(what: str, job: runs.Files) -> None:
    if told := os.environ.get("IMPASTO_TOLD"):
        with Path(told).open("a") as file:
            file.write(f"{what} {job.out.parent.name}\n")


def _told(recipe: Recipe, job: runs.Files, watchers: Sequence[Any] = (), **more: Any) -> runs.Result:
    def watch(event: Event) -> None:
        if isinstance(event, Started) and event.done:
            _tell("resumed", job)

    result = _carry_out(recipe, job, [*watchers, watch], **more)
    _tell("ended", job)
    return result


torch.set_num_threads(1)
impasto.weights.load = lambda *_: _weights  # type: ignore[assignment]
runs.carry_out = _told  # type: ignore[assignment]

if __name__ == "__main__":
    from impasto.__main__ import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    sys.exit(main())
