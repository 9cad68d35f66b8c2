"""What a run reads and writes, and what is refused before any work: nothing may be lost by it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from impasto import images, profiles, provenance, schedule
from impasto.errors import InputError, near
from impasto.provenance import Made, Written
from impasto.recipe import Recipe
from impasto.watch import existing_frames, existing_snapshots, timelapse_folder

__all__ = ["Files", "check", "check_clobber", "check_target", "start_file", "story_of", "told"]


@dataclass(frozen=True)
class Files:
    """What a run reads and writes; ``others`` are files it uses besides pictures."""

    content: Path | None
    styles: tuple[Path, ...]
    out: Path
    log: Path | None = None
    no_clobber: bool = False
    save_every: int = 0
    timelapse: int = 0
    bit_depth: int = 8
    keep_profile: bool = False
    keep_metadata: bool = False
    others: tuple[Path, ...] = ()
    content_mask: tuple[Path, ...] = ()
    style_mask: tuple[Path, ...] = ()
    keep: Path | None = None
    strength_map: Path | None = None

    @property
    def has_snapshots(self) -> bool:
        """Whether pictures are written on the way."""
        return self.save_every > 0 or self.timelapse > 0

    @property
    def written(self) -> Written:
        """How the picture's file is written, besides its format."""
        return Written(16 if self.bit_depth == 16 else 8, self.keep_profile, self.keep_metadata)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The pictures that are read."""
        return tuple(path for paths in self.by_role(None).values() for path in paths)

    def kept(self, metadata: images.Metadata) -> images.Metadata:
        """Return what is kept of what the photograph's file says of it.

        Raises:
            InputError: its profile is to be kept, and no colours can be written in it.
        """
        profile = metadata.profile if self.keep_profile else None
        if profile and profiles.from_srgb(numpy.zeros((1, 1, 3), numpy.float32), profile) is None:
            raise InputError(
                f"--keep-profile: {self.content} has a profile that cannot be written in, "
                "of grey or inks; leave --keep-profile out"
            )
        metadata = metadata if self.keep_metadata else metadata.without_location()
        return metadata._replace(profile=profile)

    def by_role(self, start: Path | None) -> dict[str, tuple[Path, ...]]:
        """Return the pictures that are read, by what they are for."""
        single = {
            "content": self.content,
            "keep": self.keep,
            "strength_map": self.strength_map,
            "start": start,
        }
        return {
            **{role: (path,) for role, path in single.items() if path},
            "styles": self.styles,
            "content_mask": self.content_mask,
            "style_mask": self.style_mask,
        }


def story_of(picture: Path) -> Made:
    """Return how a picture of this project was made, as it says itself (`provenance`).

    Raises:
        InputError: it is no picture that can be read, or says nothing of this kind.
    """
    made = provenance.unpacked(images.read_xmp(picture))
    if made is None:
        raise InputError(
            f"{picture} does not say how it was made: another program wrote it, or took that out"
        )
    return made


def told(picture: Path) -> Made | None:
    """Return the same, or None where there is no such picture, or it says nothing."""
    try:
        return story_of(picture)
    except InputError:
        return None


def check(files: Files, start: Path | None = None) -> None:
    """Refuse outputs that cannot be written or would destroy an input, before any work.

    Raises:
        InputError: as above.
    """
    inputs = [path for path in (*files.inputs, start, *files.others) if path]
    for target in (files.out, *((files.log,) if files.log else ())):
        check_target(target, inputs)
    images.check_suffix(files.out, files.bit_depth)
    for target in _earlier(files):
        _check_apart(target, inputs)
    if files.timelapse and (folder := timelapse_folder(files.out)).exists() and not folder.is_dir():
        raise InputError(f"--timelapse needs a folder {folder}, and that is a file; move it away")
    if files.log and files.log.resolve() == files.out.resolve():
        raise InputError(f"--log and -o are the same file {files.out}; give two names")


def check_clobber(files: Files, known: Mapping[str, Any] | None, on_the_way: bool = True) -> None:
    """Refuse to replace pictures where that is forbidden, but for those of the run that goes on.

    With those that are written ``on_the_way``, unless the run itself has written them by now.

    Raises:
        InputError: as above.
    """
    if not files.no_clobber:
        return
    earlier = _earlier(files) if on_the_way else []
    if known and known.get("out") == str(files.out.absolute()) and _is_unfinished(files.out):
        earlier = []
    elif files.out.exists():
        earlier = [files.out]
    for target in earlier:
        raise InputError(f"{target} exists and --no-clobber forbids replacing it")


def _is_unfinished(out: Path) -> bool:
    """Say whether there is no picture yet, or one of a run that has not come to its end."""
    if not out.exists():
        return True
    made = told(out)
    return made is not None and not made.whole


def _earlier(files: Files) -> list[Path]:
    """Return the files that bear the names of pictures that are written on the way."""
    try:
        found = existing_snapshots(files.out, files.save_every) if files.save_every else []
        return found + (existing_frames(files.out) if files.timelapse else [])
    except OSError as error:
        raise InputError(f"cannot look into {files.out.parent}: {error.strerror}") from None


def check_target(target: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that cannot be written or would destroy an input.

    Raises:
        InputError: as above.
    """
    try:
        _check_place(target)
        _check_apart(target, inputs)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"cannot write {target}: {error.strerror}") from None


def _check_place(target: Path) -> None:
    if target.is_dir():
        raise InputError(f"{target} is a folder; give a file name")
    if not target.parent.is_dir():
        raise InputError(f"the folder {target.parent} does not exist; make it first")
    if target.exists() and not target.is_file():
        raise InputError(f"{target} is not a regular file; give another name")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"the folder {target.parent} cannot be written to; give another one")


def _check_apart(target: Path, inputs: Sequence[Path]) -> None:
    for path in inputs:
        if target.exists() and path.exists() and target.samefile(path):
            raise InputError(f"{target} is an input of this run and would be replaced; rename one")


def start_file(recipe: Recipe) -> Path | None:
    """Return the picture file to start from, if ``init`` names one."""
    if recipe.init in schedule.STARTS:
        return None
    start = Path(recipe.init)
    if not os.path.lexists(recipe.init) and (hint := near(recipe.init, schedule.STARTS)):
        raise InputError(f"--init {recipe.init}: there is no such file{hint}")
    return start
