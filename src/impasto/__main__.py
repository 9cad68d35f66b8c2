"""The program's door: what can be said without loading anything heavy is said here."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from impasto import BEGAN, REPLACED
from impasto.catalog import COMMANDS
from impasto.errors import ImpastoError, InputError, Interrupted, LostError, near, shown

__all__ = ["SETTINGS", "main", "settings", "start"]

_ALLOCATION = {"glibc.malloc.tcache_count": "0", "glibc.malloc.mxfast": "0"}
"""glibc keeps small pieces apart where tensors were cut to their alignment: then no gap closes again."""

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
"""An idle thread of OpenMP's is to spin for a moment: to wake it takes longer than many an operation.
Not for long, as it would by itself: NNPACK's threads take turns with it."""

SETTINGS = {**_WAITING, "THP_MEM_ALLOC_ENABLE": "1"}
"""Large tensors are to lie in large pages: less to clear and to look up."""


def start() -> int:
    """Run the command line's command as `main` does, in a process that manages its memory well.

    glibc reads its settings once, before Python is there: the process is replaced by one that has them.
    A transfer of 512 px then holds an eighth less, and takes a little less time.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    told = sys.platform == "linux" and sys.argv[1:2] and sys.argv[1] in COMMANDS
    # Once: a program with privileges never sees these settings, however often it is executed.
    if told and sys.executable and REPLACED not in os.environ:
        missing = [f"{name}={value}" for name, value in _ALLOCATION.items() if name not in given]
        if missing:
            tunables = ":".join([*filter(None, [given]), *missing])
            settings = {**os.environ, "GLIBC_TUNABLES": tunables, REPLACED: repr(BEGAN)}
            with contextlib.suppress(OSError):  # then without
                os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], settings)
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status documented in the README."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _heard_sigterm():
            status = _dispatch(words)
        sys.stdout.flush()
        return status
    except ImpastoError as error:
        # What all processes of a run see alike, rank 0 says for them.
        rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
        if rank == "0" or not isinstance(error, InputError | LostError):
            _say(f"impasto: {error}" if rank == "0" else f"impasto (rank {rank}): {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("impasto: interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
        sys.stdout = None
        return 0
    except OSError as error:  # of which nobody knew more to say
        if os.environ.get("IMPASTO_DEBUG"):
            raise
        at = "" if error.filename is None else f"{error.filename}: "
        _say(f"impasto: {at}{error.strerror or error}; see to the disk or the system's limits")
        return 70
    except Exception as error:
        if os.environ.get("IMPASTO_DEBUG"):
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        _say(f"impasto: internal error, {what}; set IMPASTO_DEBUG=1 for the details")
        return 70


def settings() -> dict[str, str]:
    """Return what is to be set before torch is loaded, which reads it once; the user's word goes."""
    said = {"THP_MEM_ALLOC_ENABLE"} & set(os.environ)
    if not set(_WAITING).isdisjoint(os.environ):  # either alone says how to wait
        said |= set(_WAITING)
    return {name: value for name, value in SETTINGS.items() if name not in said}


@contextlib.contextmanager
def _heard_sigterm() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C is taken, where a run does not hear it itself."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    try:
        before = signal.getsignal(signal.SIGTERM)
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        before = None
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, before)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        (sys.stdout if words else sys.stderr).write(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"impasto {version('impasto')}\n")
        return 0
    if words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise InputError(f"unknown command {words[0]!r}; there are {known}{near(words[0], COMMANDS)}")
    os.environ.update(settings())
    from impasto.cli import run

    return run(words[0], words[1:])


def _overview() -> str:
    lines = [
        "impasto paints a photograph in the manner of a painting.",
        "",
        "usage: impasto COMMAND ...",
        "",
        *(f"  {name:<12} {line}" for name, line in COMMANDS.items()),
        "",
        "impasto COMMAND --help tells a command's options; impasto --version the version.",
        "",
    ]
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(shown(text) + "\n")


if __name__ == "__main__":
    sys.exit(start())
