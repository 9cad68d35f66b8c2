"""How much memory: what tensors take, counted; what this machine has; what this process keeps."""

import ctypes
import os
import re
import resource
import sys
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Count", "free", "keep", "spoken", "used"]

_LADDER = [(2 + half) << (shift - 1) for shift in range(28, 44) for half in (0, 1)]
"""256 MiB, 384, 512, 768, 1 GiB, 1.5, 2, 3, 4 ...: steps so wide that a plan seldom changes."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""The numbers of `mallopt`'s options in glibc's malloc.h."""

_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""


class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made inside of it: ``live`` now, ``peak`` at most.

    Those ``apart`` are older, and so are views of them.

    Tensors on the device ``meta`` have sizes but no memory, so that a computation of any size is
    counted in milliseconds, without doing it.

    Example:
        >>> with Count() as count:
        ...     two = torch.ones(1000, device="meta") + 1
        >>> count.peak, count.live  # the ones are gone again
        (8000, 4000)
    """

    def __init__(self, apart: Iterable[Tensor] = ()) -> None:
        """Begin with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in apart}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        _types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._see(result.untyped_storage())
        return results

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def spoken(size: float) -> str:
    """Return a number of bytes for people.

    Example:
        >>> spoken(2.5 * 2**30), spoken(300 * 2**20)
        ('2.5 GiB', '300 MiB')
    """
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size / (1 << 20):.0f} MiB"


def used() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    try:  # Linux counts into ru_maxrss what the process that started this one had held
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def keep(ample: bool) -> None:
    """Say what becomes of the memory of tensors that are gone: kept for the next, or given back.

    With ``ample`` memory all of it is kept, which spares the system to clear it again and again (up to
    a fifth of an evaluation's time). Else it is given back at once, and the process holds what its
    tensors take: left to itself, the C library keeps blocks that no later tensor fits into.

    For the whole process, and only with glibc; elsewhere nothing happens.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is None:
        return
    if ample:
        set_option(_MMAP_MAX, 0)
        set_option(_TRIM_THRESHOLD, -1)  # never
    else:
        set_option(_MMAP_MAX, 1 << 16)
        set_option(_MMAP_THRESHOLD, 1 << 20)
        set_option(_TRIM_THRESHOLD, 1 << 20)


def free(device: torch.device) -> int:
    """Return the bytes that a run may hold if nobody says otherwise: most of what is free.

    What is free changes from minute to minute; it is rounded down to a coarse step, for the same
    command to be carried out in the same way.
    """
    most = int(0.9 * available(device))
    return max((step for step in _LADDER if step <= most), default=_LADDER[0])


def available(device: torch.device) -> int:
    """Return the bytes that are free, to the last one."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else _free()


def _free() -> int:
    """Return the memory that a new process could have: the system's, or what a container allows."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        free = int(re.search(r"MemAvailable:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]
    except (OSError, TypeError):  # not Linux: macOS gives cached files back when they are asked for
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        limit = (_GROUP / "memory.max").read_text(encoding="ascii").strip()
        current = int((_GROUP / "memory.current").read_text(encoding="ascii"))
        cached = re.search(r"inactive_file (\d+)", (_GROUP / "memory.stat").read_text(encoding="ascii"))
        current -= int(cached[1]) if cached else 0  # given back when it is asked for
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - current))
