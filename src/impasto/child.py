"""Pictures decoded in a process of small means: the worst that a hostile file can do is to end it.

A server is started once, without torch and without a thread; for every file it forks a child, which
has limits of memory, time and files, decodes, and ends. The program hands over an open file and two
sockets: on ``data`` the child answers questions of a byte, on ``line`` the server says how the child
ended. When the program closes ``line``, the child is killed. Nothing that a child says is believed.

    question    answer
    (none)      {"size": [height, width], "bytes_per_pixel": ..., "indexed": ...}
    s           {"arrays": [[dtype, rows, width, channels], ...]}, their bytes; and so on; {"arrays": []}
    i           as s, the indices of a palette
    o           {"orientation": 1 to 8}
    m           {"profile": ..., "exif": ..., "dpi": ...}, bytes in base64
    x           {"xmp": ...}, in base64
    (any)       {"refused": why}

Every answer is JSON, with its length in four bytes before it.
"""

import atexit
import base64
import contextlib
import ctypes
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple, NoReturn

import numpy
import numpy.typing as npt

from impasto import decode
from impasto.decode import MOST_PIXELS, MOST_PROFILE, MOST_XMP, STRIP, Metadata, Refused, Source, Strip
from impasto.errors import RunError, shown

__all__ = ["opened", "serve", "start", "stop"]

_MEMORY, _MEMORY_PER_PIXEL = 600 << 20, 24
"""Bytes of address space that a child may have; the header is read before its pixels count."""

_CANVASES = 8 * 16_383**2
"""libwebp asks for two canvases with the header, which cost nothing as long as they are not touched."""

_SECONDS, _SECONDS_PER_MEGAPIXEL = 10.0, 0.2
"""Of computing."""

_PATIENCE = 20.0
"""Seconds, and as many per megapixel as above, that the parent waits for the next rows."""

_FILES = 32
_LONGEST_ANSWER = 8 << 20
_KINDS = {kind.name: kind for kind in map(numpy.dtype, ("uint8", "uint16", "float32"))}
_LENGTH = struct.Struct(">I")

_END = struct.Struct(">idd")
"""How a child ended: its wait status, seconds of computing, bytes held at most."""

_STARTER = "import sys; sys.path[:] = sys.argv[1:]; from impasto.child import serve; serve()"
"""Not `multiprocessing`, which would import the user's script once more."""

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TIFFFILE_NUM_THREADS": "4",
    "MALLOC_ARENA_MAX": "1",  # every thread's arena would count as address space
}
_PR_SET_PDEATHSIG = 1


class _Server(NamedTuple):
    process: "subprocess.Popen[bytes]"
    control: socket.socket


_server: _Server | None = None
"""It serves all runs of a program, and holds nothing of any."""

_lock = threading.Lock()


def start() -> None:
    """Start the process that decodes pictures, unless it is there, and do not wait for it.

    It loads while the program loads what it needs itself; without this the first file starts it.

    Raises:
        RunError: it cannot be started.
    """
    with _lock:
        _living()


def stop() -> None:
    """End the process that decodes pictures; the next file starts another one."""
    global _server
    with _lock:
        if _server is not None:
            _server.control.close()
            try:
                _server.process.wait(2)
            except subprocess.TimeoutExpired:
                _server.process.kill()
                _server.process.wait()
            _server = None


@contextmanager
def opened(file: BinaryIO) -> Iterator[Source]:
    """Open a picture file as `decode.opened` does, in a child process.

    The file is a real one. Several threads may read at the same time, each its own file.

    Raises:
        Refused: as there, or decoding died, took too long or too much memory; then or later.
        RunError: the process that starts the children cannot be started, or has ended.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryFile() as file:
        ...     Image.new("RGB", (3, 2), "white").save(file, "PNG")
        ...     with opened(file) as source:
        ...         print(source.size, next(source.strips()).colours.shape)
        (2, 3) (2, 3, 3)
    """
    data, theirs = socket.socketpair()
    line, ending = socket.socketpair()
    with data, line:
        with theirs, ending:
            _call([file.fileno(), theirs.fileno(), ending.fileno()])
        yield _Remote(data, line)


def _call(handles: list[int]) -> None:
    """Hand the handles to the server: a file, and its child's and its own end of two sockets."""
    with _lock:
        for _ in range(2):
            server = _living()
            try:
                socket.send_fds(server.control, [b"f"], handles)
            except OSError:  # it has ended since the last file
                server.process.kill()
                server.process.wait()
            else:
                return
    raise _lost()


def _living() -> _Server:
    """Return the server, a new one if there is none or it has ended."""
    global _server
    if _server is not None:
        if _server.process.poll() is None:
            return _server
        _server.control.close()
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-Wignore", "-c", _STARTER, *sys.path],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=None if os.environ.get("IMPASTO_DEBUG") else subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                process_group=0,  # a Ctrl-C in the terminal is the program's to answer
            )
        except OSError as error:
            ours.close()
            raise RunError(
                f"the process that decodes pictures cannot be started: {error.strerror}; "
                "free some memory, or add --trust-input"
            ) from None
    _server = _Server(process, ours)
    return _server


def _lost() -> RunError:
    return RunError("the process that decodes pictures has ended; try again, or add --trust-input")


def _forget() -> None:
    """After a fork of the program: leave its server to it."""
    global _server, _lock
    if _server is not None:
        _server.control.close()
        _server.process.returncode = 0  # it is none of ours to wait for
    _server, _lock = None, threading.Lock()


atexit.register(stop)
os.register_at_fork(after_in_child=_forget)


class _Remote:
    """A `decode.Source` in another process."""

    def __init__(self, data: socket.socket, line: socket.socket) -> None:
        self._data, self._line = data, line
        self._megapixels = 0.0
        said = self._hear()
        height, width = _numbers(said.get("size"), 2)
        self.size = height, width
        (self.bytes_per_pixel,) = _numbers([said.get("bytes_per_pixel")], 1)
        self.indexed = said.get("indexed") is True
        self._megapixels = min(height * width, MOST_PIXELS) / 1e6

    def strips(self) -> Iterator[Strip]:
        for colours, *alpha in self._rows(b"s"):
            if colours.ndim != 3 or colours.shape[2] not in (1, 3) or len(alpha) > 1:
                raise _wrong()
            if alpha and alpha[0].shape != colours.shape[:2]:
                raise _wrong()
            yield Strip(colours, *alpha)

    def indices(self) -> Iterator[npt.NDArray[numpy.uint8]]:
        for indices, *more in self._rows(b"i"):
            if more or indices.ndim != 2 or indices.dtype != numpy.uint8:
                raise _wrong()
            yield indices

    def orientation(self) -> int:
        (found,) = _numbers([self._hear(b"o").get("orientation")], 1)
        return found if found in range(1, 9) else 1

    def metadata(self) -> Metadata:
        said = self._hear(b"m")
        try:
            profile = None if said["profile"] is None else _bytes(said["profile"])
            exif = decode.kept_exif(_bytes(said["exif"]))
            dpi = decode.possible_dots(said["dpi"])
        except (KeyError, TypeError, ValueError):
            raise _wrong() from None
        if profile is not None and len(profile) > MOST_PROFILE:
            raise _wrong()
        return Metadata(profile, exif, dpi)

    def xmp(self) -> bytes:
        try:
            packet = _bytes(self._hear(b"x")["xmp"])
        except (KeyError, TypeError, ValueError):
            raise _wrong() from None
        if len(packet) > MOST_XMP:
            raise _wrong()
        return packet

    def _rows(self, question: bytes) -> Iterator[list[npt.NDArray[Any]]]:
        """Yield the arrays of strips, which together have the picture's rows."""
        height, width = self.size
        top = 0
        while arrays := self._arrays(question):
            question = b""
            rows = len(arrays[0])
            top += rows
            if top > height or any(array.shape[:2] != (rows, width) for array in arrays):
                raise _wrong()
            yield arrays
        if top != height:
            raise _wrong()

    def _arrays(self, question: bytes) -> list[npt.NDArray[Any]]:
        found = []
        said = self._hear(question).get("arrays")
        if not isinstance(said, list) or len(said) > 2:
            raise _wrong()
        for one in said:
            if not isinstance(one, list) or len(one) not in (3, 4) or one[0] not in list(_KINDS):
                raise _wrong()
            rows, width, *channels = shape = _numbers(one[1:], len(one) - 1)
            if width != self.size[1] or rows > max(1, STRIP // width) or channels not in ([], [1], [3]):
                raise _wrong()
            array = numpy.empty(shape, _KINDS[one[0]])
            self._fill(array.data.cast("B"))
            if array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1):
                raise _wrong()
            found.append(array)
        return found

    def _hear(self, question: bytes = b"") -> dict[str, Any]:
        """Return the answer to a question, or the next one.

        Raises:
            Refused: that is the answer, or there comes none, or none that can be right.
        """
        with contextlib.suppress(ConnectionError):  # what it has said before it ended is read first
            self._data.sendall(question)
        head = bytearray(_LENGTH.size)
        self._fill(memoryview(head))
        (length,) = _LENGTH.unpack(head)
        if length > _LONGEST_ANSWER:
            raise _wrong()
        answer = bytearray(length)
        self._fill(memoryview(answer))
        try:
            said = json.loads(answer)
        except (ValueError, RecursionError):
            raise _wrong() from None
        if not isinstance(said, dict):
            raise _wrong()
        if "refused" in said:
            line = " ".join(str(said["refused"]).split())[:500]
            raise Refused(shown(line))
        return said

    def _fill(self, room: memoryview) -> None:
        self._data.settimeout(_PATIENCE + _SECONDS_PER_MEGAPIXEL * self._megapixels)
        while room:
            try:
                count = self._data.recv_into(room)
            except TimeoutError:
                raise _slow(self._data.gettimeout()) from None
            except ConnectionError:
                count = 0
            if not count:
                raise self._ended()
            room = room[count:]

    def _ended(self) -> Exception:
        """Return what is to be said of a child that ended before its answer did."""
        self._line.settimeout(_PATIENCE)
        try:
            said = self._line.recv(_END.size)
        except OSError:
            said = b""
        if len(said) != _END.size:
            return _lost()
        status, _, _ = _END.unpack(said)
        if not os.WIFSIGNALED(status):
            return _wrong()
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return _slow(_seconds(self._megapixels))
        if number == signal.SIGKILL:
            return Refused("cannot be read: decoding it was killed, for want of memory?; shrink it")
        name = signal.strsignal(number) or f"signal {number}"
        return Refused(f"cannot be read: decoding it crashed ({name}); save it as PNG")


def _slow(seconds: float | None) -> Refused:
    return Refused(f"cannot be read: decoding took over {seconds:.0f} s; save it as PNG")


def _wrong() -> Refused:
    return Refused("cannot be read: decoding it went wrong; save it as PNG")


def _numbers(said: object, count: int) -> tuple[int, ...]:
    """Return so many whole numbers from 1, if that is what was said."""
    if not isinstance(said, list) or len(said) != count:
        raise _wrong()
    if not all(type(one) is int and 1 <= one < 1 << 32 for one in said):
        raise _wrong()
    return tuple(said)


def _bytes(said: Any) -> bytes:  # noqa: ANN401 (anything may be said)
    return base64.b64decode(said, validate=True)


def _seconds(megapixels: float) -> int:
    return math.ceil(_SECONDS + _SECONDS_PER_MEGAPIXEL * megapixels)


def serve() -> NoReturn:
    """Fork a child for every file that is handed over, until the program has gone: the server's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    bell, rope = socket.socketpair()
    rope.setblocking(False)
    signal.set_wakeup_fd(rope.fileno(), warn_on_full_buffer=False)
    control = socket.socket(fileno=0)
    lines: dict[int, socket.socket] = {}
    gc.freeze()
    while True:
        ready, _, _ = select.select([control, bell, *lines.values()], [], [])
        for one in ready:
            if one is bell:
                bell.recv(64)
                _bury(lines)
            elif one is control:
                word, handles, _, _ = socket.recv_fds(control, 1, 3)
                if not word:
                    for pid in lines:
                        os.kill(pid, signal.SIGKILL)
                    os._exit(0)
                _bear(handles, lines)
            else:
                for pid in [pid for pid, line in lines.items() if line is one]:
                    os.kill(pid, signal.SIGKILL)
                    lines.pop(pid).close()


def _bear(handles: list[int], lines: dict[int, socket.socket]) -> None:
    """Fork a child for a file; without memory for one, closed sockets say so."""
    server = os.getpid()
    file, data, line = handles
    with contextlib.suppress(OSError):
        pid = os.fork()
        if pid == 0:
            _live(file, data, server)
        lines[pid] = socket.socket(fileno=os.dup(line))
    for handle in handles:
        os.close(handle)


def _bury(lines: dict[int, socket.socket]) -> None:
    """Say how children ended, to whoever waits for it."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status, use = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            if line := lines.pop(pid, None):
                unit = 1 if sys.platform == "darwin" else 1024
                with contextlib.suppress(OSError), line:
                    line.send(_END.pack(status, use.ru_utime + use.ru_stime, use.ru_maxrss * unit))


def _live(file: int, data: int, server: int) -> NoReturn:
    """Decode one file, in the child."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(1, 0)  # nothing of the server's is left: not its control, not the lines of others
        for below, above in pairwise([2, *sorted((file, data)), 1024]):
            os.closerange(below + 1, above)
        _die_with(server)
        with os.fdopen(file, "rb") as picture, socket.socket(fileno=data) as answers:
            webp = os.pread(file, 4, 8) == b"WEBP"
            _limit(0, _CANVASES if webp else 0)
            _answer(picture, answers)
        code = 0
    finally:
        os._exit(code)


def _die_with(server: int) -> None:
    if sys.platform == "linux":  # elsewhere a child whose server was killed ends with its file
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)


def _limit(pixels: int, more: int = 0) -> None:
    """Bound what this process may take for a picture of so many pixels."""
    most = _MEMORY + _MEMORY_PER_PIXEL * MOST_PIXELS
    memory = _MEMORY + _MEMORY_PER_PIXEL * min(pixels, MOST_PIXELS) + more
    limits = {
        resource.RLIMIT_AS: (min(memory, most), most),
        resource.RLIMIT_CPU: (_seconds(min(pixels, MOST_PIXELS) / 1e6), _seconds(MOST_PIXELS / 1e6) + 1),
        resource.RLIMIT_NOFILE: (_FILES, _FILES),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
    }
    for kind, (soft, hard) in limits.items():
        _, allowed = resource.getrlimit(kind)
        hard = hard if allowed == resource.RLIM_INFINITY else min(hard, allowed)
        with contextlib.suppress(ValueError, OSError):  # not every system bounds every kind
            resource.setrlimit(kind, (min(soft, hard), hard))


def _answer(file: BinaryIO, data: socket.socket) -> None:
    """Answer the questions about a file, the first one unasked."""
    pixels = 0
    try:
        with decode.opened(file) as source:
            height, width = source.size
            pixels = height * width
            _limit(pixels)
            more = {"bytes_per_pixel": source.bytes_per_pixel, "indexed": source.indexed}
            _tell(data, {"size": [height, width], **more})
            while question := data.recv(1):
                if question == b"s":
                    for strip in source.strips():
                        _tell_arrays(data, *(array for array in strip if array is not None))
                    _tell_arrays(data)
                elif question == b"i":
                    for indices in source.indices():
                        _tell_arrays(data, indices)
                    _tell_arrays(data)
                elif question == b"o":
                    _tell(data, {"orientation": source.orientation()})
                elif question == b"m":
                    said = source.metadata()._asdict()
                    _tell(data, {name: _as_json(value) for name, value in said.items()})
                elif question == b"x":
                    _tell(data, {"xmp": _as_json(source.xmp())})
    except Refused as refused:
        _tell(data, {"refused": str(refused)})
    except MemoryError:
        size = (_MEMORY + _MEMORY_PER_PIXEL * pixels) >> 20
        _limit(MOST_PIXELS)
        _tell(data, {"refused": f"cannot be read: decoding takes over {size} MiB; save it as PNG"})


def _as_json(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _tell(data: socket.socket, said: dict[str, Any]) -> None:
    answer = json.dumps(said).encode()
    data.sendall(_LENGTH.pack(len(answer)) + answer)


def _tell_arrays(data: socket.socket, *arrays: npt.NDArray[Any]) -> None:
    _tell(data, {"arrays": [[array.dtype.name, *array.shape] for array in arrays]})
    for array in arrays:
        data.sendall(numpy.ascontiguousarray(array).data.cast("B"))
