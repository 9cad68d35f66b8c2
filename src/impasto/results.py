"""What finished runs say, side by side: saved pictures, their losses and measures, and `results.csv`.

A cell without a column is a *film*: its pictures over the iterations are the columns. Those on the way
are measured as the last one is, as saved, and what was measured is kept in the run's folder.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from impasto import files, images, measures, quality, styles, sweep
from impasto.errors import InputError, shown
from impasto.recipe import Recipe
from impasto.sweep import Cell, Outcome

__all__ = ["LOSSES", "Entry", "Study", "Taken", "front", "gather", "text_of", "write_csv"]

Panel = tuple[str, str]
"""What a panel of curves shows: of `Entry.curve`, first what is drawn up, then along."""

LOSSES = ("total", "content", "style", "tv")


@dataclass(frozen=True)
class Study:
    """What stands around the pictures of a sheet: what it shows, how it was made, what to look for."""

    name: str
    title: str
    shows: str = ""
    look_for: str = ""
    command: str = ""
    note: str = ""
    """What is to be known of these very pictures: stand-ins, a scale."""
    values: tuple[str, ...] = ("content_error", "style_wasserstein")
    """What stands below each picture, if it was measured: names of measures or of losses."""
    panels: tuple[Panel, ...] = (("content", "iteration"), ("style", "iteration"))


class Taken(NamedTuple):
    """A picture of a run that was saved: its iteration, and its numbers where it was measured."""

    iteration: int
    picture: Path
    values: dict[str, float]
    """Losses under the run's own recipe and measures, by name."""
    evaluations: int
    seconds: float
    lowest: int | None = None
    """The iteration that the result is of, the lowest of all; None for a picture on the way."""


@dataclass(frozen=True)
class Entry:
    """What became of a cell: its pictures, of which the last is the result, or what was wrong."""

    cell: Cell
    taken: tuple[Taken, ...] = ()
    rows: list[dict[str, float]] = field(default_factory=list)
    """Numbers by name for each iteration, of the picture in memory."""
    command: str = ""
    run: str = ""
    error: str = ""

    @property
    def is_film(self) -> bool:
        """Whether the pictures on the way are columns of their own."""
        return not self.cell.column

    @property
    def name(self) -> str:
        """What tells this cell from the others."""
        return ", ".join(filter(None, (self.cell.row, self.cell.column)))

    @property
    def last(self) -> Taken:
        """The result."""
        return self.taken[-1]

    def curve(self, up: str, along: str) -> tuple[list[float], list[float]]:
        """Return one number over another, iteration by iteration; ``relative to the start`` divides."""
        name, _, relative = up.partition(", ")
        values = [row[name] for row in self.rows]
        if relative and values and values[0] > 0:
            values = [value / values[0] for value in values]
        return [row[along] for row in self.rows], values

    def at(self, taken: Taken, along: str) -> float:
        """Return where a picture stands on the curves' axis."""
        of = taken.iteration if taken.lowest is None else taken.lowest
        return next(row[along] for row in self.rows if row["iteration"] == of)


def gather(cells: Sequence[Cell], outcomes: Iterable[Outcome]) -> list[Entry]:
    """Return what became of the cells, in their order; films are measured all along.

    Raises:
        InputError: a picture cannot be read.
    """
    found = {id(outcome.cell): outcome for outcome in outcomes}
    return [_entry(found[id(cell)]) for cell in cells if id(cell) in found]


def _entry(outcome: Outcome) -> Entry:
    cell, folder = outcome.cell, outcome.folder
    if outcome.error:
        said = outcome.error.replace(f"{folder.parent.parent}/", "")  # no paths of this machine
        return Entry(cell, run=folder.name, error=shown(said))
    run = sweep.read(folder)
    film = not cell.column
    own = {name: getattr(run.losses, name) for name in LOSSES} | run.measures
    # Measures of other pooling than the recipe's: of recipes that differ in it they cannot be compared.
    values = own | _measured(cell, folder, {-1: run.picture}).get(-1, {}) if _is_apart(cell) else own
    steps = {number: path for number, path in run.steps.items() if number < run.iterations}
    seen = _measured(cell, folder, steps) if film else {}  # the last one was, when the run ended
    rows = {int(row["iteration"]): row for row in run.rows}
    taken = [
        Taken(
            number,
            path,
            seen.get(number, {}),
            int(rows[number]["evaluations"]),
            rows[number]["seconds"],
        )
        for number, path in steps.items()
    ]
    last = Taken(run.iterations, run.picture, values, run.evaluations, run.seconds, _lowest(run.rows))
    return Entry(cell, (*taken, last), run.rows, sweep.command_of(cell), folder.name)


def _lowest(rows: Sequence[dict[str, float]]) -> int:
    """Return the iteration whose picture a run saves: of the lowest total on the finest level."""
    finest = [row for row in rows if row["level"] == rows[-1]["level"]]
    return int(min(finest, key=lambda row: row["total"])["iteration"])


def _is_apart(cell: Cell) -> bool:
    return _ruler(cell) != cell.recipe


def _ruler(cell: Cell) -> Recipe:
    """Return the recipe that measures are taken by.

    For one that pools by average, `quality` pools by maximum. A learned style leaves no choice.
    """
    learned = any(style.suffix == styles.SUFFIX for style in cell.styles)
    return cell.recipe if learned else dataclasses.replace(cell.recipe, pooling="average")


def _measured(cell: Cell, folder: Path, pictures: dict[int, Path]) -> dict[int, dict[str, float]]:
    """Return losses and measures of saved pictures by iteration; kept beside them once they are taken.

    Measures are of one ruler for all runs, however they pool.

    Raises:
        InputError: a picture cannot be read, or what was measured not be kept.
    """
    kept = folder / sweep.MEASURED
    try:
        found = {int(key): value for key, value in json.loads(kept.read_text("utf-8")).items()}
    except (OSError, ValueError):
        found = {}
    if missing := [number for number in pictures if number not in found]:
        content = sweep.look(cell.content, cell.recipe) if cell.content else None
        given = [sweep.look(style, cell.recipe) for style in cell.styles]
        for number in missing:
            with images.trusted():  # a run's own
                picture = sweep.look(pictures[number], cell.recipe)
            taken = measures.measure(_ruler(cell), picture, content, *given)
            losses = taken.losses
            if _is_apart(cell):
                losses = measures.losses(cell.recipe, picture, content, *given)
            found[number] = {name: getattr(losses, name) for name in LOSSES} | taken.measures
        try:
            with files.atomic_write(kept) as file:
                file.write(json.dumps(found).encode())
        except OSError as error:
            raise InputError(f"cannot write {kept}: {error.strerror}") from None
    return {number: found[number] for number in pictures}


def write_csv(name: str, entries: Sequence[Entry], path: Path) -> None:
    """Write a table with a row for each picture that was measured and a column for each number.

    Raises:
        InputError: it cannot be written.
    """
    numbers = [*LOSSES, *quality.MEASURES]
    head = ["study", "row", "column", "iteration", "evaluations", "seconds", "lowest", *numbers]
    head += ["run", "command", "error"]
    text = io.StringIO()
    table = csv.DictWriter(text, head, lineterminator="\n", restval="")
    table.writeheader()
    for entry in entries:
        about = {
            "study": name,
            "row": entry.cell.row,
            "column": entry.cell.column,
            "run": entry.run,
            "command": entry.command,
            "error": entry.error,
        }
        if not entry.taken:
            table.writerow(about)
        for taken in entry.taken:
            if taken.values:
                counts = {name: getattr(taken, name) for name in ("iteration", "evaluations", "seconds")}
                table.writerow({**about, **counts, "lowest": taken.lowest, **taken.values})
    try:
        with files.atomic_write(path) as file:
            file.write(text.getvalue().encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return which points no other is at least as low in both coordinates as, from left to right.

    Example:
        >>> front([(1, 3), (2, 2), (3, 3), (3, 1)])
        [0, 1, 3]
    """
    order = sorted(range(len(points)), key=lambda index: points[index])
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] < points[kept[-1]][1]:
            kept.append(index)
    return kept


def text_of(value: float) -> str:
    """Return a number as it stands below a picture: three digits, or all of a whole one up to 9999.

    Example:
        >>> text_of(0.01234), text_of(0.5), text_of(1284.2), text_of(12345.0), text_of(0.0)
        ('0.0123', '0.500', '1284', '1.23e4', '0')
    """
    if value == 0:
        return "0"
    if 999.5 <= abs(value) < 9999.5:
        return f"{value:.0f}"
    if 1e-3 <= abs(value) < 999.5:
        return f"{value:#.3g}".rstrip(".")
    digits, _, power = f"{value:.2e}".partition("e")
    return f"{digits}e{int(power)}"
