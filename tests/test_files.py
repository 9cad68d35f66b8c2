"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from impasto.files import atomic_write, sha256


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.chmod", "body"])
def test_a_failed_write_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, before: bytes | None
) -> None:
    path = tmp_path / "word.txt"
    if before is not None:
        path.write_bytes(before)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def write_half() -> None:
        with atomic_write(path) as file:
            file.write(b"half a wo")
            if failing == "body":
                fail()

    if failing != "body":
        monkeypatch.setattr(failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_half()
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == (
        {} if before is None else {"word.txt": before}
    )


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "word.txt") as file:
            file.write(b"half")
            raise interruption

    with pytest.raises(interruption):
        write()
    assert list(tmp_path.iterdir()) == []


def test_the_final_name_shows_nothing_before_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "word.txt"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new and longer")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new and longer"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_file_has_the_mode_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "ours") as file:
            file.write(b"")
        (tmp_path / "theirs").write_bytes(b"")
    finally:
        assert os.umask(before) == mask
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs")}
    assert modes == {0o666 & ~mask}


def test_the_hash_is_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-4's example.
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
