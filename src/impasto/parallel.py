"""Several processes on one picture: rank 0 decides, the others compute their tiles.

Alone, nothing happens here.

Every collective step is done by all ranks in the same order. What the tiles give comes to rank 0 one
by one, in the tiles' order, and is added there: so the sums do not depend on how many ranks there are.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed

from impasto.errors import LostError

__all__ = ["ALONE", "Team", "join"]


class Team:
    """The processes of a run, and this one's place among them."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Take rank ``rank`` of ``size``; torch.distributed has been set up if there are several."""
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which reads, optimises, decides, writes and reports."""
        return self.rank == 0

    def has(self, tile: int) -> bool:
        """Say whether a tile is computed here: they are dealt like cards."""
        return tile % self.size == self.rank

    def hand_in(self, tile: int, part: Tensor) -> Tensor:
        """Bring what a tile's owner computed to rank 0; the others' ``part`` is filled or left alone."""
        owner = tile % self.size
        if owner != 0 and self.rank in (0, owner):
            part = part.contiguous()
            with _others():
                distributed.recv(part, owner) if self.leads else distributed.send(part, 0)
        return part

    def share(self, tensor: Tensor) -> Tensor:
        """Bring rank 0's tensor to all ranks, in place."""
        if self.size > 1:
            with _others():
                distributed.broadcast(tensor, 0)
        return tensor

    def tell(self, word: Any = None) -> Any:  # noqa: ANN401
        """Bring rank 0's word (any small Python object) to all ranks, and return it."""
        if self.size == 1:
            return word
        box = [word]
        with _others():
            distributed.broadcast_object_list(box, 0)
        return box[0]

    def show(self, picture: Tensor | None, device: torch.device) -> Tensor | None:
        """Bring rank 0's picture, or none, to all ranks."""
        if self.size == 1:
            return picture
        found = self.tell(None if picture is None else (tuple(picture.shape), picture.dtype))
        if found is None:
            return None
        shape, dtype = found
        if picture is None:
            picture = torch.empty(shape, dtype=dtype, device=device)
        return self.share(picture.contiguous())

    def place(self, device: torch.device) -> torch.device:
        """Return this rank's device of that kind: each has a GPU of its own, the CPU is shared."""
        if self.size == 1 or device.type != "cuda":
            return device
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
        return own

    def leave(self) -> None:
        """Close the connections, in good order or not."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


ALONE = Team()
"""A run of one process."""


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """Say in one line that another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(
            "another process of this run has ended or cannot be reached; see its message, start again"
        ) from error


def join() -> Team:
    """Return the team that `torchrun` started this process for, or `ALONE`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return ALONE
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Team(distributed.get_rank(), size)
