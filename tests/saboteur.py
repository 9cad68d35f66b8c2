"""Makes the decoding child do what no picture should bring it to: a file says what."""

import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy

from impasto import child, decode

STARTER = child._STARTER.replace("from impasto", "import saboteur; from impasto")
"""What a server begins with for its children to obey such files."""

_opened = decode.opened


def _limits() -> str:
    kinds = ("AS", "CPU", "FSIZE", "CORE", "NOFILE")
    said = {kind: resource.getrlimit(getattr(resource, f"RLIMIT_{kind}")) for kind in kinds}
    threads = [os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    handles = []
    for number in range(64):
        try:
            os.fstat(number)
        except OSError:
            continue
        handles.append(number)
    return json.dumps(
        {**said, "handles": len(handles), "threads": threads, "torch": "torch" in sys.modules}
    )


def _deed(name: str) -> None:
    match name:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "end":
            os._exit(3)
        case "hang":
            time.sleep(100)
        case "compute":
            for _ in itertools.count():
                pass
        case "memory":
            held = [numpy.empty(1 << 23) for _ in range(100)]
            raise AssertionError(len(held))
        case "write":
            try:
                with tempfile.TemporaryFile() as file:
                    file.write(bytes(1 << 20))
            except OSError as error:
                raise decode.Refused(f"cannot be read: {error.strerror}") from None
        case "limits":
            raise decode.Refused(_limits())
        case _:
            raise AssertionError(name)


@contextmanager
def _obedient(file: BinaryIO) -> Iterator[decode.Source]:
    word, _, deed = os.pread(file.fileno(), 100, 0).partition(b":")
    if word == b"sabotage":
        _deed(deed.decode())
    with _opened(file) as source:
        yield source


decode.opened = _obedient
child._SECONDS = 1.0
