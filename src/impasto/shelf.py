"""Where tensors wait that are needed once per evaluation: in memory, or in a file on the disk."""

import os
import tempfile
import weakref
from typing import BinaryIO

import torch
from torch import Tensor

from impasto import files
from impasto.errors import RunError

__all__ = ["Shelf"]


class Shelf:
    """Tensors by number, in the order they were put.

    On disk they lie in an unnamed file in the user's cache folder, which is gone when the process ends,
    however it ends. What comes back is bit for bit what was put.

    Example:
        >>> shelf = Shelf(on_disk=True)
        >>> shelf.get(shelf.put(torch.tensor([1.5, 2.5]))).tolist()
        [1.5, 2.5]
    """

    def __init__(self, on_disk: bool = False) -> None:
        """Open the file only when something is put."""
        self._on_disk = on_disk
        self._file: BinaryIO | None = None
        self._places: list[Tensor | tuple[int, torch.Size, torch.dtype, torch.device]] = []

    def put(self, tensor: Tensor) -> int:
        """Keep a tensor; return its number.

        Raises:
            RunError: the disk is full, or there is no folder for the file.
        """
        if self._on_disk:
            self._places.append(self._write(tensor))
        else:
            # A part of a larger tensor would keep all of it.
            part = tensor.untyped_storage().nbytes() > tensor.nbytes
            self._places.append(tensor.clone() if part else tensor)
        return len(self._places) - 1

    def get(self, number: int) -> Tensor:
        """Return the tensor of that number, on the device it came from."""
        place = self._places[number]
        if isinstance(place, Tensor):
            return place
        offset, shape, dtype, device = place
        assert self._file is not None
        tensor = torch.empty(shape, dtype=dtype)
        self._file.seek(offset)
        try:
            if self._file.readinto(_bytes(tensor)) != tensor.nbytes:  # type: ignore[attr-defined]
                raise OSError(0, "the file is shorter than what was written")
        except OSError as error:
            raise RunError(f"cannot read the content's features back: {error.strerror}") from None
        return tensor.to(device)

    def _write(self, tensor: Tensor) -> tuple[int, torch.Size, torch.dtype, torch.device]:
        folder = files.cache_folder()
        try:
            if self._file is None:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            offset = self._file.seek(0, os.SEEK_END)
            rest = _bytes(tensor.cpu().contiguous())
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise RunError(
                f"cannot keep the content's features in {folder} ({error.strerror}): free some space, "
                "set XDG_CACHE_HOME, or give more --memory"
            ) from None
        return offset, tensor.shape, tensor.dtype, tensor.device


def _bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, sharing its memory."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
