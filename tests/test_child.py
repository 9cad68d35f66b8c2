"""The process that decodes: what ends it, what it may take, and what it says is not believed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

import saboteur
from impasto import child, images
from impasto.decode import MOST_PIXELS, Refused
from impasto.errors import InputError, RunError

HERE = Path(__file__).resolve().parent


@pytest.fixture
def sabotaged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let children obey files that tell them what to do."""
    child.stop()
    monkeypatch.setattr(child, "_STARTER", saboteur.STARTER)
    monkeypatch.setattr(child, "_SECONDS", 1.0)
    monkeypatch.syspath_prepend(HERE)
    yield
    child.stop()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Return a picture that nothing is wrong with."""
    Image.new("RGB", (20, 20), (200, 40, 90)).save(tmp_path / "good.png")
    return tmp_path / "good.png"


def told(folder: Path, deed: str) -> Path:
    """Return a file that tells a child to do something."""
    (folder / f"{deed}.png").write_text(f"sabotage:{deed}", encoding="ascii")
    return folder / f"{deed}.png"


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def eventually(holds: Callable[[], object]) -> bool:
    """Return whether something comes to hold within some seconds."""
    return any(holds() or time.sleep(0.05) for _ in range(200))


def gone(pid: int) -> bool:
    """Return whether there is no such process, or only what its parent has not asked about."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return True


def server() -> int:
    """Return the server's process."""
    child.start()
    assert child._server is not None
    return child._server.process.pid


DEATHS = {
    "crash": r"decoding it crashed \(Segmentation fault\); save it as PNG",
    "killed": "decoding it was killed",
    "end": "decoding it went wrong; save it as PNG",
    "compute": "decoding took over 1 s; save it as PNG",
    "memory": "decoding takes over 600 MiB; save it as PNG",
    "write": "No usable temporary directory|File too large",
}


@pytest.mark.parametrize("deed", DEATHS)
@pytest.mark.usefixtures("sabotaged")
def test_what_dies_in_the_child_is_one_line_here(tmp_path: Path, good: Path, deed: str) -> None:
    with pytest.raises(InputError, match=rf"{deed}\.png cannot be read: ({DEATHS[deed]})") as refused:
        images.read(told(tmp_path, deed))
    assert len(str(refused.value).splitlines()) == 1
    before = server()
    assert images.read(good).shape == (3, 20, 20)
    assert server() == before
    assert eventually(lambda: not children(before))


@pytest.mark.usefixtures("sabotaged")
def test_a_child_that_hangs_is_waited_for_and_killed(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.read(good)
    monkeypatch.setattr(child, "_PATIENCE", 0.3)
    with pytest.raises(InputError, match=r"hang\.png cannot be read: decoding took over 0 s"):
        images.read(told(tmp_path, "hang"))
    assert eventually(lambda: not children(server()))


@pytest.mark.usefixtures("sabotaged")
def test_a_child_has_small_means(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        images.read(told(tmp_path, "limits"))
    found = json.loads(str(refused.value).split(" ", 1)[1])
    most = (600 << 20) + 24 * MOST_PIXELS
    assert found["AS"] == [600 << 20, most]
    assert found["CPU"] == [1, 32]
    assert found["FSIZE"] == found["CORE"] == [0, 0]
    assert found["NOFILE"] == [32, 32]
    assert found["handles"] == 5  # standard three, the file, the socket
    assert found["threads"] == ["1", "1"]
    assert not found["torch"]


@pytest.mark.usefixtures("sabotaged")
def test_a_server_that_has_died_is_replaced(tmp_path: Path, good: Path) -> None:
    before = server()
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: gone(before))
    assert images.read(good).shape == (3, 20, 20)
    after = server()
    assert after != before
    killer = threading.Timer(0.3, os.kill, (after, signal.SIGKILL))
    killer.start()
    with pytest.raises(RunError, match="process that decodes pictures has ended; try again"):
        images.read(told(tmp_path, "hang"))
    killer.join()
    assert images.read(good).shape == (3, 20, 20)


def test_a_server_that_cannot_be_started_is_one_line(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.stop()
    monkeypatch.setattr(child, "_STARTER", "raise SystemExit(1)")
    with pytest.raises(RunError, match="has ended; try again, or add --trust-input"):
        images.read(good)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    child.stop()
    with pytest.raises(RunError, match="cannot be started: No such file"):
        images.read(good)


@pytest.mark.usefixtures("sabotaged")
def test_threads_read_at_the_same_time(tmp_path: Path) -> None:
    paths = []
    for level in range(24):
        paths.append(tmp_path / f"{level}.png")
        Image.new("L", (300, 200), level).save(paths[-1])
    crash = told(tmp_path, "crash")

    def read(path: Path) -> float:
        if path == crash:
            with pytest.raises(InputError, match="crashed"):
                images.read(path)
            return -1
        return images.read(path).mean().item() * 255

    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(read, [*paths, crash] * 3))
    assert found == pytest.approx([*range(24), -1] * 3, abs=1e-3)
    assert eventually(lambda: not children(server()))


def script(folder: Path, text: str, *words: str) -> "subprocess.Popen[str]":
    """Start a script of a user's, in a session of its own."""
    (folder / "script.py").write_text(text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, folder / "script.py", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_needs_no_guard(tmp_path: Path, good: Path) -> None:
    text = "import sys; from impasto import images; print(images.read(sys.argv[1]).shape[1])"
    assert script(tmp_path, text, str(good)).communicate() == ("20\n", "")


FORKING = """
import os, sys
from impasto import child
def servant():
    with open(sys.argv[1], "rb") as file, child.opened(file) as source:
        assert sum(len(strip.colours) for strip in source.strips()) == 20
    return child._server.process.pid
before = servant()
pid = os.fork()
if not pid:
    assert child._server is None
    assert servant() != before
    child.stop()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert servant() == before
print("good")
"""


def test_after_a_fork_each_has_a_server_of_its_own(tmp_path: Path, good: Path) -> None:
    assert script(tmp_path, FORKING, str(good)).communicate() == ("good\n", "")


HANGING = f"""
import sys
from impasto import child
child._STARTER = {saboteur.STARTER!r}
child.start()
with open(sys.argv[1], "rb") as file:
    print(child._server.process.pid, flush=True)
    try:
        with child.opened(file):
            pass
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGKILL"])
def test_a_program_that_ends_leaves_no_process(tmp_path: Path, how: str) -> None:
    process = script(tmp_path, HANGING, str(told(tmp_path, "hang")))
    assert process.stdout is not None
    servant = int(process.stdout.readline())
    assert eventually(lambda: children(servant))
    (hanging,) = children(servant)
    if how == "SIGINT":  # as a terminal sends it
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate() == ("interrupted\n", "")
    else:
        process.kill()
        process.communicate()
    assert eventually(lambda: gone(servant) and gone(hanging))


def test_a_ctrl_c_does_not_reach_the_server(good: Path) -> None:
    before = server()
    assert os.getpgid(before) != os.getpgid(0)
    images.read(good)
    os.kill(before, signal.SIGINT)
    assert images.read(good).shape == (3, 20, 20)
    assert server() == before


def test_what_is_trusted_is_decoded_here(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "opened", lambda _: pytest.fail("a child was asked"))
    with images.trusted():
        found = images.read(good)
        with images.trusted(trust=False), pytest.raises(pytest.fail.Exception):
            images.read(good)
    monkeypatch.undo()
    assert torch.equal(images.read(good), found)


# What a child that has been taken over might say.

HEADER = {"size": [4, 3], "bytes_per_pixel": 6, "indexed": False}


def message(said: object, *data: bytes) -> bytes:
    """Return an answer as it is sent."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return len(text).to_bytes(4, "big") + text + b"".join(data)


@contextmanager
def hearing(*answers: bytes) -> Iterator[child._Remote]:
    """Return what hears these answers, whatever it asks."""
    (ours, theirs), (line, ending) = socket.socketpair(), socket.socketpair()

    def speak() -> None:
        with theirs, contextlib.suppress(OSError):
            theirs.sendall(b"".join(answers))
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(64):
                pass

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        with ours, line, ending:
            ending.sendall(child._END.pack(0, 0.0, 0.0))
            yield child._Remote(ours, line)
    finally:
        speaker.join()


def arrays(*said: object) -> dict[str, object]:
    return {"arrays": list(said)}


def floats(value: float) -> bytes:
    return torch.full((36,), value).numpy().tobytes()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0",
        b"\xff\xff\xff\xff",
        message(b" " * child._LONGEST_ANSWER + json.dumps(HEADER).encode()),
        message(b"no JSON"),
        message(b"[" * 100_000),
        message([]),
        message({}),
        *(
            message({**HEADER, "size": size})
            for size in ([4], [0, 3], [-4, 3], [4.0, 3], [True, 3], ["4", 3], None, 12, [2**40, 3])
        ),
        message({**HEADER, "bytes_per_pixel": "6"}),
    ],
)
def test_a_header_that_cannot_be_is_refused(answer: bytes) -> None:
    with pytest.raises(Refused, match="decoding it went wrong"), hearing(answer):
        pass


GREY = message(arrays(["uint8", 4, 3, 1]), bytes(12))
NONE = message(arrays())


@pytest.mark.parametrize(
    "answers",
    [
        (),
        (GREY,),  # and no end
        (NONE,),  # too early
        (GREY, GREY, NONE),  # too late
        (message(arrays(["uint8", 4, 3, 1]), bytes(11)),),
        (message(arrays(["uint8", 4, 3]), bytes(12)), NONE),
        (message(arrays(["uint8", 4, 3, 2]), bytes(24)), NONE),
        (message(arrays(["uint8", 3, 4, 1]), bytes(12)), NONE),
        (message(arrays(["uint8", 2**31, 3, 3])),),
        (message(arrays(["object", 4, 3, 1]), bytes(96)), NONE),
        (message(arrays(["float64", 4, 3, 1]), bytes(96)), NONE),
        (message(arrays(["float32", 4, 3, 3]), floats(float("nan"))), NONE),
        (message(arrays(["float32", 4, 3, 3]), floats(1.5)), NONE),
        (message(arrays(["uint8", 4, 3, 1], ["uint8", 3, 3]), bytes(21)), NONE),
        (message(arrays(["uint8", 4, 3, 1], ["uint8", 4, 3, 1]), bytes(24)), NONE),
        (message(arrays(*[["uint8", 4, 3]] * 3), bytes(36)), NONE),
        (message(arrays([["uint8"], 4, 3, 1]), bytes(12)), NONE),
        (message(arrays("uint8")), NONE),
        (message({"arrays": 7}), NONE),
    ],
)
def test_rows_that_cannot_be_are_refused(answers: tuple[bytes, ...]) -> None:
    with hearing(message(HEADER), *answers) as remote:  # noqa: SIM117
        with pytest.raises(Refused, match="decoding it went wrong"):
            list(remote.strips())


def test_rows_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with hearing(message(HEADER), GREY, GREY, GREY) as remote:
        strips = remote.strips()
        next(strips)
        with pytest.raises(Refused, match="decoding it went wrong"):
            next(strips)
    monkeypatch.setattr(child, "STRIP", 9)  # three rows at a time
    with hearing(message(HEADER), GREY, NONE) as remote:  # noqa: SIM117
        with pytest.raises(Refused, match="decoding it went wrong"):
            next(remote.strips())


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"profile": 3, "exif": "", "dpi": None},
        {"profile": None, "exif": "?", "dpi": None},
        {"profile": None, "exif": None, "dpi": None},
        {"profile": "AAAA" * (1 << 20) + "AAAA" * (1 << 19), "exif": "", "dpi": None},
    ],
)
def test_metadata_that_cannot_be_is_refused(said: dict[str, object]) -> None:
    with hearing(message(HEADER), message(said)) as remote:  # noqa: SIM117
        with pytest.raises(Refused, match="decoding it went wrong"):
            remote.metadata()


def test_odd_words_are_made_harmless() -> None:
    said = {"profile": None, "exif": "anVuaw==", "dpi": ["nan", 1e400]}
    with hearing(message(HEADER), message({"orientation": 99}), message(said)) as remote:
        assert remote.orientation() == 1
        assert remote.metadata() == images.NO_METADATA
    with pytest.raises(Refused) as refused, hearing(message({"refused": "a\n\x1b[31m" + "b" * 9999})):
        pass
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) <= 500
