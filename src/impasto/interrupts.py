"""Ctrl-C and SIGTERM: heard in order, answered in time."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from impasto.errors import Interrupted

__all__ = ["Asked", "heard", "interrupt"]


@contextmanager
def heard(handle: Callable[[int], object]) -> Iterator[None]:
    """Give the first Ctrl-C or SIGTERM to ``handle``; a second one ends the program at once.

    A signal that the caller of this program ignores, as `nohup` may, stays ignored.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(number: int, _frame: FrameType | None) -> None:
        restore()
        handle(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, first)
    except ValueError:  # not in the main thread: whoever owns it handles signals
        before.clear()
    try:
        yield
    finally:
        restore()


def interrupt(number: int) -> None:
    """End what is being done.

    Raises:
        Interrupted: always.
    """
    raise Interrupted(number)


class Asked:
    """Ctrl-C or SIGTERM: the iteration may end, if it does within ``patience`` seconds.

    Before the first one there is nothing to wait for.
    """

    def __init__(self) -> None:
        """Be asked for nothing yet."""
        self.number: int | None = None
        self.patience = 0.0
        self._before: Any = None

    def __call__(self, number: int) -> None:
        """Take the signal of that number."""
        self.number = number
        if self.patience <= 0:
            self.answer()
        self._before = signal.signal(signal.SIGALRM, lambda *_: self.answer())
        signal.setitimer(signal.ITIMER_REAL, self.patience)

    def answer(self) -> None:
        """End the run, if it was asked to."""
        if self.number is not None:
            raise Interrupted(self.number)

    def close(self) -> None:
        """Wait no longer."""
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
