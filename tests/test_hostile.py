"""Bombs, and a sample of the mutants of `make torture`: each is read, or refused in one line."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import hostile
import icc
from impasto import child, decode, images
from impasto.errors import InputError


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path: Path) -> Iterator[None]:
    """See that reading leaves no process and no file, and that the server lives on."""
    child.start()
    before = child._server
    yield
    assert child._server is before
    assert before is not None
    assert before.process.poll() is None
    assert not list(tmp_path.iterdir())
    processes = Path(f"/proc/{before.process.pid}/task/{before.process.pid}/children")
    for _ in range(200):  # one whose picture was read before its end is killed
        if not processes.read_text(encoding="ascii"):
            return
        time.sleep(0.05)
    pytest.fail("a child is left")


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_a_bomb_is_refused_or_harmless(tmp_path: Path, name: str) -> None:
    make, pattern = hostile.BOMBS[name]
    found = hostile.examine(make(), tmp_path)
    assert found.seconds < hostile.MOST_SECONDS
    assert found.held < hostile.MOST_BYTES
    assert found.signal == 0
    if pattern == hostile.READ:
        assert not found.refused
    elif pattern:
        assert re.search(pattern, found.refused), found.refused


def test_mutants_are_read_or_refused(tmp_path: Path) -> None:
    refused = 0
    for name, data in hostile.mutants(200, seed=1):
        found = hostile.examine(data, tmp_path)
        assert found.seconds < hostile.MOST_SECONDS, name
        assert found.held < hostile.MOST_BYTES, name
        refused += bool(found.refused)
    assert 20 < refused < 180  # else they are no test


@pytest.mark.parametrize("name", hostile.pictures())
def test_what_mutants_are_made_of_is_read_and_its_parts_are_not(tmp_path: Path, name: str) -> None:
    whole = hostile.pictures()[name]
    assert not hostile.examine(whole, tmp_path).refused
    assert hostile.examine(whole[: len(whole) // 5], tmp_path).refused
    for length in (1, 7, len(whole) // 10, 9 * len(whole) // 10):
        hostile.examine(whole[:length], tmp_path)


def test_mutants_are_the_same_every_time() -> None:
    assert list(hostile.mutants(50)) == list(hostile.mutants(50))
    assert len({data for _, data in hostile.mutants(50)}) == 50


def test_frames_are_never_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gif animated", "apng", "webp animated", "mpo", "tiff RGB"):
        (tmp_path / "p").write_bytes(hostile.pictures()[name])
        with Image.open(tmp_path / "p") as image:
            kind = type(image)
        if isinstance(getattr(kind, "n_frames", None), property):
            counted = property(lambda _: pytest.fail("frames were counted"))
            monkeypatch.setattr(kind, "n_frames", counted)
        with images.trusted():
            images.read(tmp_path / "p")
    (tmp_path / "p").unlink()


@pytest.mark.parametrize("over", [0, 1])
def test_scans_are_counted_where_they_count(tmp_path: Path, over: int) -> None:
    data = hostile.scans((16, 16), 256 + over)
    first = data.count(b"\xff\xda") - 256 - over  # those that were there before
    path = tmp_path / "p.jpg"
    path.write_bytes(hostile.scans((16, 16), 256 + over - first))
    with images.trusted():
        if over:
            with pytest.raises(InputError, match=r"p\.jpg has over 256 scans; save it as PNG"):
                images.read(path)
        else:
            images.read(path)
    path.unlink()


def test_a_profile_of_a_press_is_not_too_large(tmp_path: Path) -> None:
    for size, legal in ((decode.MOST_PROFILE, True), (decode.MOST_PROFILE + 1, False)):
        profile = icc.wide()
        profile = size.to_bytes(4, "big") + profile[4:] + bytes(size - len(profile))
        path = tmp_path / "p.jpg"
        Image.new("RGB", (20, 20)).save(path, icc_profile=profile)
        if legal:
            assert images.read_photograph(path).metadata.profile == profile
        else:
            with pytest.raises(InputError, match="profile of over 4 MiB; save it without"):
                images.read(path)
    path.unlink()
