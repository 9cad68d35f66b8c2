"""What is kept of a run until its picture is written: where, under which key, and who holds it.

A run's folder lies in the user's state folder (``XDG_STATE_HOME``) and is named by a digest of what
decides the picture: recipe, input files and weights. The same command finds it again.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from impasto import checkpoint, devices, files, winograd
from impasto import plan as planning
from impasto.checkpoint import Checkpoint
from impasto.errors import BusyError, InputError
from impasto.events import Step
from impasto.plan import Plan
from impasto.recipe import Recipe

__all__ = [
    "Keeper",
    "Kept",
    "about",
    "changes",
    "clean",
    "conditions",
    "differences",
    "digests",
    "find",
    "folder_of",
    "hold",
    "joined",
    "key",
    "known",
    "listing",
    "name_of",
    "plan_of",
]

_PATIENCE = 8.0
_LOOK = 0.2
"""Seconds after which what is held is held by a run, not by a listing that looks."""

_FINISHING = 0.25e-6
"""Seconds to finish and write a picture, per pixel: a PNG of 16 megapixels takes some three."""

_OVERHEAD = 50
"""A checkpoint is written no sooner than so many times what the last one took: 2 % of the time."""


def digests(inputs: Mapping[str, tuple[Path, ...]]) -> dict[str, list[str]]:
    """Return the SHA-256 of a run's files, by role.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        return {role: [files.sha256(path) for path in paths] for role, paths in inputs.items() if paths}
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from None


def key(recipe: Recipe, inputs: Mapping[str, list[str]], weights: str) -> str:
    """Return the name of a run: a digest of its recipe, of those of its files, and of its weights.

    How much memory it may take is no part of it: a run goes on with more or less.
    """
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if name != "memory"}
    said = json.dumps([checkpoint.SCHEMA, fields, inputs, weights], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def conditions(device: torch.device) -> dict[str, str]:
    """Return what the bytes of a picture depend on besides its recipe, inputs and weights."""
    from importlib.metadata import version

    return {
        "processor": devices.processor(device),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "impasto": version("impasto"),
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say in what two runs' conditions differ; nothing where they do not.

    Example:
        >>> differences({"threads": "2", "torch": "2.13"}, {"threads": "4", "torch": "2.13"})
        'threads 2, now 4'
    """
    pairs = ((name, before.get(name, "unknown"), value) for name, value in now.items())
    return "; ".join(f"{name} {one}, now {other}" for name, one, other in pairs if one != other)


def changes(about: Mapping[str, Any], now: Mapping[str, str], plan: Plan) -> str:
    """Say what is not as it was when a run was kept, of all that its bytes depend on."""
    found = [differences(about["conditions"], now)]
    before = planning.from_json(about["plan"])
    if before is None or [level.cut for level in before.levels] != [level.cut for level in plan.levels]:
        found.append(_RECUT)
    return "; ".join(filter(None, found))


_RECUT = "less memory, so it is cut smaller"


def joined(before: Mapping[str, str], now: Mapping[str, str], changed: str) -> dict[str, str]:
    """Return the conditions of a run under several, one after the other.

    Example:
        >>> joined({"threads": "1"}, {"threads": "2"}, "")
        {'threads': '1, then 2'}
    """
    several = {
        name: value if before.get(name, value) == value else f"{before[name]}, then {value}"
        for name, value in now.items()
    }
    cut = before.get("memory") or (_RECUT if _RECUT in changed else "")
    return {**several, "memory": cut} if cut else several


def plan_of(about: Mapping[str, Any]) -> Plan | None:
    """Return the plan that a manifest tells of; None where this machine cannot carry it out."""
    plan = planning.from_json(about.get("plan", {}))
    if plan is None or (plan.by_winograd and not winograd.available()):
        return None
    try:
        devices.choose_device(str(plan.device))
    except InputError:
        return None
    return plan


class Keeper:
    """Writes a run's state now and then, never for more than 2 % of the time."""

    def __init__(self, name: str, every: float, about: dict[str, Any], pixels: int = 0) -> None:
        """Write about every ``every`` seconds; ``about`` stands in each manifest.

        The picture will have so many ``pixels``.
        """
        self.folder, self.every, self.about, self.pixels = folder_of(name), every, about, pixels
        self.failure = ""
        """Why the last state could not be written."""
        self.kept: int | None = None
        """The iteration of the state that is on the disk."""
        self._last = self._seen = time.monotonic()
        self._cost = 0.0

    def see(self, step: Step, now: bool = False) -> str:
        """Write the state of a step if it is time to, or ``now``.

        A disk that is full stops no run: what to say of it, if that is new, is returned.
        """
        began, before = time.monotonic(), self.failure
        # An iteration that takes longer is dropped when a signal comes: what was before it counts.
        every = 0.0 if began - self._seen > self.patience else self.every
        self._seen = began
        if not now and began - self._last < max(every, _OVERHEAD * self._cost):
            return ""
        said = {**self.about, "iteration": step.iteration, "total": step.losses.total}
        try:
            checkpoint.save(self.folder, step.state(copied=False), said)
            self.kept, self.failure = step.iteration, ""
        except OSError as error:
            self.failure = f"cannot keep the run's state in {self.folder}: {error.strerror}"
        self._last = time.monotonic()
        self._cost = self._last - began
        self._seen = self._last
        return "" if self.failure == before else self.failure

    @property
    def known(self) -> dict[str, Any] | None:
        """What the manifest on the disk says."""
        return checkpoint.about(self.folder)

    @property
    def promise(self) -> str:
        """What to add to a message of a run that ends now: where it goes on, once something was kept."""
        return "" if self.kept is None else f"; the same command goes on from iteration {self.kept}"

    @property
    def patience(self) -> float:
        """How many seconds an interrupted iteration may take to end, for all to be over in ten."""
        return max(0.0, _PATIENCE - self._cost - _FINISHING * self.pixels)

    def close(self) -> None:
        """Remove what was kept: the picture is written."""
        checkpoint.remove(self.folder)


def about(
    recipe: Recipe,
    inputs: Mapping[str, tuple[Path, ...]],
    out: Path,
    plan: Plan,
    conditions: Mapping[str, str],
) -> dict[str, Any]:
    """Return what a manifest says of a run: how it is carried out, and for people, of what."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "inputs": {role: [str(path) for path in paths] for role, paths in inputs.items()},
        "out": str(out.absolute()),
        "plan": planning.as_json(plan),
        "conditions": dict(conditions),
    }


def name_of(out: Path) -> str:
    """Return the name under which an output file is held."""
    return "out-" + hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]


class Kept(NamedTuple):
    """A run that has not ended yet: its key, what its manifest says, its bytes, and if it is running."""

    key: str
    about: dict[str, Any]
    bytes: int
    running: bool

    def describe(self) -> str:
        """Say in a line which run it is, and how far."""
        recipe, inputs = self.about.get("recipe", {}), self.about.get("inputs", {})
        if not (recipe and inputs):
            return f"{self.key}  nothing that can be used, {self.bytes / 1e6:.1f} MB"
        names = [Path(path).name for role in ("content", "styles") for path in inputs.get(role, ())]
        return (
            f"{self.key}  iteration {self.about.get('iteration')} of {recipe.get('iterations')}  "
            f"{' '.join(names)} -> {self.about.get('out')}, {self.bytes / 1e6:.1f} MB"
            + (", running" if self.running else "")
        )


def find(name: str, mend: bool = True) -> Checkpoint | None:
    """Return the state of a run, if there is one; who does not hold the run is not to ``mend`` it."""
    return checkpoint.load(folder_of(name), mend)


def known(name: str) -> dict[str, Any] | None:
    """Return what the manifest of a run says, if there is one, without loading its state."""
    return checkpoint.about(folder_of(name))


def folder_of(name: str) -> Path:
    """Return the folder of a run."""
    return files.state_folder() / "runs" / name


def listing() -> list[Kept]:
    """Return the runs that have not ended, the newest last."""
    found: list[tuple[float, Kept]] = []
    folders: list[Path] = []
    with contextlib.suppress(OSError):
        folders = list((files.state_folder() / "runs").iterdir())
    for folder in folders:
        with contextlib.suppress(OSError):  # a run that ends meanwhile, or no folder
            said = checkpoint.about(folder) or {}
            size = sum(path.stat().st_size for path in folder.iterdir())
            run = Kept(folder.name, said, size, _held(_lock_of(folder.name)))
            found.append((folder.stat().st_mtime, run))
    return [run for _, run in sorted(found, key=lambda pair: pair[0])]


def clean(names: list[str]) -> list[str]:
    """Remove runs, or all but what is running; return those that were removed.

    Raises:
        BusyError: one that was named is running.
    """
    removed = []
    for run in listing():
        if run.key in names or not names:
            # All but what is running; a run that was named and is running is told of.
            with (
                contextlib.suppress(*() if names else (BusyError,)),
                hold(run.key, f"the run {run.key}"),
            ):
                checkpoint.remove(folder_of(run.key))
                removed.append(run.key)
    return removed


@contextlib.contextmanager
def hold(name: str, what: str) -> Iterator[None]:
    """Hold a name alone among all processes of this user; a process that dies lets go of it.

    Raises:
        BusyError: another process holds it.
    """
    path = _lock_of(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _soon_locked(path)
    except BlockingIOError:
        who = ""
        with contextlib.suppress(OSError):  # it may just have ended
            who = path.read_text(encoding="utf-8").strip()
        who = who or "another process"
        raise BusyError(f"{what} is in use by {who}; wait for it, or stop it") from None
    except OSError:  # a folder that cannot be written to, a file system without locks: go on unheld
        yield
        return
    with file:
        with contextlib.suppress(OSError):  # the lock is what counts; its holder's name is a courtesy
            file.truncate(0)
            file.write(f"process {os.getpid()}".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # whoever comes next takes a name that is still there
                path.unlink(missing_ok=True)


def _soon_locked(path: Path) -> BinaryIO:
    """Return a file that this process alone holds; a listing that looks at it lets go at once."""
    begun = time.monotonic()
    while True:
        try:
            if file := _locked(path):
                return file
        except BlockingIOError:
            if time.monotonic() - begun > _LOOK:
                raise
            time.sleep(_LOOK / 20)


def _locked(path: Path) -> BinaryIO | None:
    """Return a file that this process alone holds; None if its holder before removed its name."""
    # Without a buffer: closing it has nothing left to write, and so cannot fail.
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _held(path: Path) -> bool:
    """Say whether a process holds a name, by trying to share it: `_soon_locked` bears with that."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock_of(name: str) -> Path:
    return files.state_folder() / "locks" / f"{name}.lock"
