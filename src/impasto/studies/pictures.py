"""The pictures that a study is made of, and the settings that studies share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from impasto import samples
from impasto.errors import InputError
from impasto.recipe import Recipe

__all__ = ["CONTENT", "STYLES", "Pictures", "along", "find", "report", "scaled"]

CONTENT = ("neckarfront-tuebingen", "Neckarfront in Tübingen")
"""The report's photograph: its file's name without the suffix, and its title."""

STYLES: dict[str, tuple[str, str]] = {
    "shipwreck-of-the-minotaur": ("The Shipwreck of the Minotaur", "J. M. W. Turner"),
    "starry-night": ("The Starry Night", "Vincent van Gogh"),
    "der-schrei": ("Der Schrei", "Edvard Munch"),
    "femme-nue-assise": ("Femme nue assise", "Pablo Picasso"),
    "composition-vii": ("Composition VII", "Wassily Kandinsky"),
}
"""The report's five paintings by the names of their files: title and painter."""

_STAND_INS = {
    CONTENT[0]: "chelsea",
    "shipwreck-of-the-minotaur": "dabs",
    "starry-night": "swirl",
    "der-schrei": "facets",
    "femme-nue-assise": "coffee",
    "composition-vii": "rocket",
}
"""The samples that stand in: three paintings, and two photographs, as there are no more paintings."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")

_KEPT = (0, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Pictures:
    """The photograph and the five paintings, whether the report's own or samples that stand in."""

    content: Path
    styles: Mapping[str, Path]
    """By the names of `STYLES`."""
    stand_ins: bool = False

    @property
    def content_title(self) -> str:
        """The photograph's title, as it is printed."""
        return self._title(CONTENT[0], CONTENT[1])

    def title(self, style: str) -> str:
        """Return a painting's title, as it is printed.

        Example:
            >>> Pictures(Path("c.png"), {}, stand_ins=True).title("der-schrei")
            'facets, for Der Schrei'
        """
        return self._title(style, STYLES[style][0])

    def _title(self, name: str, title: str) -> str:
        return f"{_STAND_INS[name]}, for {title}" if self.stand_ins else title


def find(folder: Path | None, own: Path) -> Pictures:
    """Return the pictures of a folder, known by their names; without one, samples written to ``own``.

    Raises:
        InputError: the folder lacks a picture, or ``own`` cannot be written to.

    Example:
        >>> find(Path("no/such/folder"), Path())
        Traceback (most recent call last):
        ...
        impasto.errors.InputError: no/such/folder is no folder; --pictures names one with the report's...
    """
    names = (CONTENT[0], *STYLES)
    if folder is None:
        found = {name: own / f"{_STAND_INS[name]}.png" for name in names}
        if not all(path.is_file() for path in found.values()):
            samples.write(own)
    else:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; --pictures names one with the report's pictures")
        found = {name: _named(folder, name) for name in names}
    return Pictures(found[CONTENT[0]], {name: found[name] for name in STYLES}, folder is None)


def _named(folder: Path, name: str) -> Path:
    for suffix in _SUFFIXES:
        if (path := folder / f"{name}{suffix}").is_file():
            return path
    title = f"{CONTENT[1]}, a photograph" if name == CONTENT[0] else ", by ".join(STYLES[name])
    raise InputError(
        f"{folder} has no picture {name}.jpg (or {', '.join(_SUFFIXES[1:])}): {title}; "
        "put it there, or leave --pictures out for the built-in samples"
    )


def report(size: int, iterations: int, **fields: object) -> Recipe:
    """Return the report's recipe at a size, with ``fields`` laid over it.

    Example:
        >>> report(192, 500, alpha=1e-2).optimizer
        'adam'
    """
    return Recipe.from_preset("report", size=size, iterations=iterations, **fields)


def scaled(iterations: int, scale: float) -> int:
    """Return the iterations that are left of them at a scale: at least one.

    Example:
        >>> scaled(500, 0.2), scaled(500, 0.0001)
        (100, 1)
    """
    return max(1, round(iterations * scale))


def along(iterations: int) -> tuple[int, ...]:
    """Return the iterations whose pictures are kept on the way: those of equal runs are equal.

    Example:
        >>> along(100)
        (0, 10, 20, 50)
    """
    return tuple(number for number in _KEPT if number < iterations)
