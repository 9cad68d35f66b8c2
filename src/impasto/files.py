"""Files on disk: written whole or not at all, hashed, and kept in the user's own folders."""

import contextlib
import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["NAME", "atomic_write", "cache_folder", "is_pattern", "sha256", "state_folder"]

NAME = "{name}"
"""Stands for a photograph's name, without its suffix, in the names of what is written."""


def is_pattern(path: Path) -> bool:
    """Say whether a path is a pattern, such as photos/*.jpg, and no file.

    Example:
        >>> is_pattern(Path("photos/*.jpg")), is_pattern(Path("photo.jpg"))
        (True, False)
    """
    return glob.has_magic(str(path)) and not path.exists()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that its name holds the old content or the complete new one, never a part.

    The bytes go to a temporary file beside ``path``, which is flushed to the disk and renamed. If
    anything fails, the temporary file is removed and ``path`` is as it was.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "word.txt") as file:
        ...     _ = file.write(b"impasto")
        >>> [entry.name for entry in folder.iterdir()]
        ['word.txt']
    """
    # The temporary name is short: a long name with something added might be too long.
    handle, name = tempfile.mkstemp(prefix=".impasto-", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a picture gets the mode that any new file of the user gets.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # Some file systems refuse to sync a folder; the rename itself has happened by then.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder for files that can be made or fetched again (``XDG_CACHE_HOME``)."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("impasto"))


def state_folder() -> Path:
    """Return the folder for what is kept from one run to the next (``XDG_STATE_HOME``)."""
    import platformdirs

    return Path(platformdirs.user_state_dir("impasto"))
