"""Make the N-th call that touches our files fail, for every N, and see what is left.

This is how SQLite tests itself: an operation of one kind fails once, or from then on, in the N-th
place where it occurs, and N grows until a run passes without reaching it. Only what lies below one
folder counts: inputs, outputs, state, locks, cache. A write that fails has written half of its bytes,
as on a disk that fills up.

What C libraries do behind Python's back is not seen here: `bounded` and `few_files` let the system
itself refuse.
"""

import builtins
import contextlib
import errno
import fcntl
import functools
import io
import itertools
import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import safetensors
import torch

from impasto import checkpoint, cli, images, resume, weights
from impasto.__main__ import main
from impasto.errors import InputError

KINDS = ("open", "read", "write", "fsync", "rename", "unlink", "mkdir", "chmod", "list", "stat", "lock")
CODES = ("ENOSPC", "EIO", "EROFS", "EMFILE")
ENDINGS = (0, 2, 70)
"""Exit codes that a fault may lead to: done, something that the user can mend, the run failed."""


class Fault(NamedTuple):
    """The ``number``-th call of a kind fails with a code of `errno`, or it and all later ones."""

    kind: str
    code: str
    number: int
    lasting: bool


class Faults:
    """Lets a fault happen below a folder; ``met`` says whether it did.

    ``look`` is called at the first one, undisturbed.
    """

    def __init__(self, folder: Path, fault: Fault, look: Callable[[], object] = lambda: None) -> None:
        self.folder, self.fault, self.look = os.path.realpath(folder), fault, look
        self.count, self.met, self.idle = 0, False, False

    def meet(self, kind: str, name: object = None) -> None:
        """Count a call, and fail if it is the one."""
        if kind != self.fault.kind or self.idle:
            return
        self.count += 1
        if self.count == self.fault.number:
            self.met = self.idle = True
            self.look()
            self.idle = False
        if self.count == self.fault.number or (self.met and self.fault.lasting):
            code = getattr(errno, self.fault.code)
            named = [os.fspath(name)] if isinstance(name, str | bytes | os.PathLike) else []
            raise OSError(code, os.strerror(code), *named)

    def ours(self, name: Any) -> bool:
        """Say whether a path, or what is open under a number, is one of our files."""
        if isinstance(name, int):
            return stat.S_ISREG(os.fstat(name).st_mode)
        return os.path.realpath(os.fsdecode(name)).startswith(self.folder)

    def on(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of paths that may fail."""

        @functools.wraps(real)
        def call(name: Any = ".", *rest: Any, **options: Any) -> Any:
            if not self.idle and (options.get("dir_fd") is not None or self.known(name)):
                self.meet(kind, name)
            return real(name, *rest, **options)

        return call

    def known(self, name: Any) -> bool:
        """Say the same as `ours`, without being disturbed by what that takes."""
        idle, self.idle = self.idle, True
        try:
            return hasattr(name, "fileno") or self.ours(name)
        finally:
            self.idle = idle

    def open(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return `open`, whose files may fail when they are opened, read and written."""

        def call(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Any = None,
        ) -> Any:
            if not self.known(file):
                return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if not isinstance(file, int):
                self.meet("open", file)
            raw = _Raw(file, "".join(sign for sign in mode if sign in "rwax+"), closefd, opener)
            raw.meet = self.meet
            if buffering == 0:
                return raw
            kind = io.BufferedRandom if "+" in mode else io.BufferedReader
            buffered = kind(raw) if "+" in mode or "r" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return buffered
            return io.TextIOWrapper(
                buffered,  # type: ignore[type-var]
                encoding,
                errors,
                newline,
                line_buffering=buffering == 1,
            )

        return call

    @contextlib.contextmanager
    def happen(self) -> Iterator[None]:
        """Let the fault happen inside the block."""
        opened = self.open(io.open)
        calls = {
            "open": [(os, "open"), (safetensors, "safe_open")],
            "fsync": [(os, "fsync")],
            "rename": [(os, "replace"), (os, "rename")],
            "unlink": [(os, "unlink"), (os, "remove"), (os, "rmdir")],
            "mkdir": [(os, "mkdir")],
            "chmod": [(os, "chmod")],
            "list": [(os, "listdir"), (os, "scandir")],
            "stat": [(os, "stat"), (os, "lstat")],
            "lock": [(fcntl, "flock")],
        }
        with contextlib.ExitStack() as stack:
            stack.enter_context(patch.object(io, "open", opened))
            stack.enter_context(patch.object(builtins, "open", opened))
            for kind, places in calls.items():
                for owner, name in places:
                    call = self.on(kind, getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, call))
            yield


class _Raw(io.FileIO):
    """An unbuffered file that may fail; the buffers around it are the library's own."""

    meet: Callable[[str], None]

    def write(self, data: Any) -> int:
        try:
            self.meet("write")
        except OSError:
            super().write(memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
            raise
        return super().write(data)

    def readinto(self, buffer: Any) -> int:
        self.meet("read")
        return super().readinto(buffer)

    def readall(self) -> bytes:
        self.meet("read")
        return super().readall()

    def read(self, size: int | None = -1) -> bytes:
        self.meet("read")
        return super().read(-1 if size is None else size)


# --- a run under faults ---------------------------------------------------------------------------


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    said: str


def command(words: Sequence[str]) -> Outcome:
    """Carry out a command in this process."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(words)
    return Outcome(code, said.getvalue())


@contextlib.contextmanager
def quick() -> Iterator[None]:
    """Let the same words be parsed once, the weights be hashed once, and no clock say what is kept."""
    parse, verify, known = cli._parse, weights.verify, {}

    def parsed(kind: Any, name: str, words: Sequence[str], *rest: Any) -> Any:
        if (key := (name, *words)) not in known:
            known[key] = parse(kind, name, words, *rest)
        return known[key]

    with (
        patch.object(cli, "_parse", parsed),
        patch.object(weights, "verify", functools.cache(verify)),
        patch.object(resume, "_OVERHEAD", 0),
    ):
        yield


class Scene(NamedTuple):
    """What is done under faults: a command, and what was done before it."""

    words: str
    result: str
    """The file that it makes."""
    earlier: str = ""
    """What is added to the words to make older files in the places of what the command writes."""
    stopped: int = 0
    """The renaming at which the same command failed before, and left a state; 0 for none."""


_SMALL = "--size 40 --precision float32 --style-layers conv1_1"
_RUN = f"transfer photo.png painting.png {_SMALL} --levels 24 40 --iterations 3 --content-layers conv2_1"
_KEPT = f"{_RUN} --checkpoint-every 0 --log log.csv --save-every 2 -o out.png"
SCENES = {
    "a run": Scene(f"{_KEPT} --optimizer adam", "out.png", "--seed 1"),
    "a run that goes on": Scene(f"{_KEPT} --optimizer lbfgs", "out.png", "--seed 1", stopped=6),
    "samples": Scene("samples samples", "samples/coffee.png"),
    "learning": Scene(
        f"style learn painting.png {_SMALL} -o style.safetensors", "style.safetensors", "--size 32"
    ),
}
"""A result is written over an older one."""


def writing(out: str) -> Scene:
    """Return the scene of a run that writes a file of this name; ``deep`` has 16 bits."""
    depth = 16 if out.startswith("deep") else 8
    return Scene(f"{_RUN} --iterations 1 --bit-depth {depth} -o {out}", out, "--seed 1 --init noise")


class Stage:
    """A folder in which a command runs again and again from the same start.

    It holds the inputs; ``before`` are the other files at the start, by name, ``after`` those of an
    undisturbed run, of which the result must be the same if a run before it failed.
    """

    def __init__(self, folder: Path, scene: Scene) -> None:
        """Prepare a scene in a folder of its own, which is the working directory."""
        self.folder, self.words, self.result = folder, scene.words.split(), scene.result
        self.inputs = self.files()
        command([*self.words, *scene.earlier.split()])
        if scene.stopped:
            with Faults(folder, Fault("rename", "EIO", scene.stopped, lasting=True)).happen():
                command(self.words)
        self.before = {name: data for name, data in self.files().items() if name not in self.inputs}
        assert any(name.startswith("state") for name in self.before) == bool(scene.stopped)
        ended = command(self.words)
        assert ended.code == 0, ended.said
        self.after = self.files()

    def files(self) -> dict[str, bytes]:
        """Return every file below the folder, by name."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def reset(self) -> None:
        """Make everything as it was before the first run."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in self.inputs:
                path.unlink()
        for name, data in self.before.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def kept(self) -> int:
        """Return the iteration of the newest state that is whole; -1 if there is none."""
        found = [checkpoint.load(path) for path in self.folder.glob("state/impasto/runs/*")]
        return max((int(one.about["iteration"]) for one in found if one), default=-1)

    def remember(self) -> None:
        """Note which state is there when the trouble begins: it must not be lost."""
        self.had = self.kept()

    def disturbed(self, disturb: contextlib.AbstractContextManager[None]) -> str:
        """Run while something disturbs, and then in peace; return what is wrong, or nothing."""
        self.had = -1
        with disturb:
            self.last = ended = command(self.words)
        left = self.files()
        self.parts = [name for name in left if ".part" in name]
        if ended.code not in ENDINGS:
            return f"exit {ended.code}: {ended.said}"
        if "Traceback" in ended.said or "internal error" in ended.said:
            return f"said {ended.said}"
        if ended.code and not ended.said.splitlines()[-1].startswith("impasto: "):
            return f"its last line is {ended.said.splitlines()[-1]}"
        for name, data in self.inputs.items():
            if left.get(name) != data:
                return f"the input {name} is another"
        for name in self.pictures():
            if left.get(name) != self.before.get(name) and not same(left.get(name), self.after[name]):
                return f"{name} is neither the old file nor the new one, exit {ended.code}: {ended.said}"
        new = same(left.get(self.result), self.after[self.result])
        if not new and (ended.code == 0 or f"wrote {self.result}" in ended.said):
            return f"said it wrote {self.result}: {ended.said}"
        if not new and self.kept() < self.had:
            return f"the state of iteration {self.had} is lost: {ended.said}"
        again = command(self.words)
        if again.code:
            return f"the run after it: exit {again.code}: {again.said}"
        if (self.folder / self.result).read_bytes() != self.after[self.result]:
            return f"the run after it gave another picture, after: {ended.said}"
        if extra := {name for name in self.files() if name.startswith("state")}:
            return f"the run after it left {extra}, after: {ended.said}"
        return ""

    def pictures(self) -> list[str]:
        """Return the names of the files that are written whole or not at all."""
        return [
            name
            for name in self.after
            if name not in self.inputs
            and name.endswith((".png", ".jpg", ".tif", ".webp", ".safetensors"))
        ]


def same(one: bytes | None, other: bytes) -> bool:
    """Say whether two files hold the same pixels: losses are added to a picture that is whole."""
    if one is None or one == other:
        return one is not None
    first, second = _pixels(one), _pixels(other)
    return first is not None and second is not None and first.equal(second)


@functools.cache
def _pixels(content: bytes) -> torch.Tensor | None:
    with tempfile.NamedTemporaryFile() as file, images.trusted():
        file.write(content)
        file.flush()
        try:
            return images.read(file.name)
        except InputError:
            return None


def every(
    stage: Stage, kind: str, code: str, lasting: bool = False, most: int = 10_000
) -> tuple[int, list[str]]:
    """Let every call of a kind fail in turn; return how many there were, and what went wrong."""
    wrong = []
    for number in range(1, most):
        stage.reset()
        faults = Faults(stage.folder, Fault(kind, code, number, lasting), stage.remember)
        said = stage.disturbed(faults.happen())
        if not faults.met:
            return number - 1, wrong + ([f"without a fault: {said}"] if said else [])
        if not said and kind != "unlink" and stage.parts:
            said = f"left {stage.parts}"
        if said:
            wrong.append(f"{kind} {number} {code}{' and on' * lasting}: {said}")
    raise AssertionError(f"over {most} calls of {kind}")


@contextlib.contextmanager
def _limited(what: int, most: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def bounded(size: int) -> contextlib.AbstractContextManager[None]:
    """Let no file grow over a size: the system itself refuses what goes beyond."""
    return _limited(resource.RLIMIT_FSIZE, size)


def few_files(spare: int) -> contextlib.AbstractContextManager[None]:
    """Let only so many more files be open at a time."""
    free = (number for number in range(1 << 20) if not _is_open(number))
    return _limited(resource.RLIMIT_NOFILE, next(itertools.islice(free, spare, None)))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def keep_here(folder: Path, put: Callable[[str, str], object]) -> None:
    """Let states and caches be kept below a folder; ``put`` sets a variable of the environment."""
    put("XDG_STATE_HOME", str(folder / "state"))
    put("XDG_CACHE_HOME", str(folder / "cache"))
