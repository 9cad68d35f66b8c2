"""What can go wrong, and how the program says it.

    ImpastoError            anything this program says in one line
    |-- DifferError     1   a picture made again is another one
    |-- InputError      2   something the user can mend: a file, an option, a folder
    |-- RunError       70   the run itself failed: divergence, memory, a broken disk
    |-- BusyError      75   another run holds what this one needs
    `-- Interrupted 130/143 Ctrl-C or SIGTERM

A message says what was wrong, what is allowed and what to do, in one line.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "BusyError",
    "DifferError",
    "ImpastoError",
    "InputError",
    "Interrupted",
    "LostError",
    "RunError",
    "near",
    "shown",
]


class ImpastoError(Exception):
    """The root: its text is one line for the user, its ``exit_code`` the program's status."""

    exit_code = 70


class DifferError(ImpastoError):
    """What should be the same is not."""

    exit_code = 1


class InputError(ImpastoError):
    """Something the user can mend."""

    exit_code = 2


class RunError(ImpastoError):
    """The run failed though its input was legal."""

    exit_code = 70


class LostError(RunError):
    """Another process of this run cannot be reached: it has said why, or rank 0 will."""


class BusyError(ImpastoError):
    """What this run needs is in use by another run."""

    exit_code = 75


class Interrupted(ImpastoError):
    """A signal asked the run to stop; ``exit_code`` is 128 plus the signal's number."""

    def __init__(self, signal_number: int, message: str = "interrupted") -> None:
        """Remember which signal it was."""
        super().__init__(message)
        self.exit_code = 128 + signal_number


def shown(text: str) -> str:
    r"""Return a text as one line that a terminal shows and does not obey, whatever name is in it.

    Example:
        >>> shown("a\nb \x1b[2J \u202e \udcff é")
        'a b ?[2J ? ? é'
    """
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.splitlines()))


def near(word: str, known: Iterable[str]) -> str:
    """Say which known word was probably meant, or nothing.

    Example:
        >>> near("avrage", ["average", "max"])
        '; did you mean average?'
        >>> near("zebra", ["average", "max"])
        ''
    """
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
