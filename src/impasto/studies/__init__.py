"""The report's figures and the studies its conclusion asks for: a module each, listed without torch.

A module opens with what it shows, the command, what it takes and what to look for; `recipes` is a loop
that yields its runs. Runs of all studies lie in one folder and are known by what makes them: what two
studies share is computed once, and a sheet is drawn of what is there.
"""

import ast
import importlib
import re
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from impasto.errors import InputError, RunError, near, shown

if TYPE_CHECKING:
    from impasto.results import Study
    from impasto.sweep import Cell, Outcome

__all__ = ["STUDIES", "Ready", "carry_out", "choose", "module", "prepared", "present", "sections"]

STUDIES: dict[str, str] = {
    "figure-1": "the photograph and the five paintings",
    "figure-2": "what the content layers keep, over the iterations and by layer",
    "figure-3": "the style of The Starry Night, over the iterations",
    "figure-4": "the style of all five paintings",
    "figure-5": "which style layers: growing subsets, and all but one",
    "figure-6": "the ratio alpha/beta",
    "figure-7": "the weights of the style layers, and reversed",
    "figure-8": "the learning rate",
    "optimizers": "Adam, L-BFGS, gradient descent, several starts, Langevin",
    "losses": "every style loss at equal balance",
    "pooling": "average, max and l2 pooling",
    "init": "where the descent starts",
    "denoising": "during the descent and after it",
    "size": "one recipe at three sizes, under two weightings",
}
"""The studies by id, each with a one-line description."""


def choose(words: Sequence[str]) -> list[str]:
    """Return the studies that words name, each once; ``all`` is all of them.

    Raises:
        InputError: there is no such study, or none is named.

    Example:
        >>> choose(["figure-3", "size", "figure-3"])
        ['figure-3', 'size']
    """
    if not words:
        raise InputError("name a study, or all; impasto study list tells them")
    for word in words:
        if word not in ("all", *STUDIES):
            known = ", ".join(STUDIES)
            raise InputError(f"unknown study {word!r}; there are {known}{near(word, STUDIES)}")
    return list(STUDIES) if "all" in words else list(dict.fromkeys(words))


def module(name: str) -> ModuleType:
    """Return the module of a study."""
    return importlib.import_module(f"impasto.studies.{_file(name)}")


def _file(name: str) -> str:
    return name.replace("-", "_")


def sections(name: str) -> dict[str, str]:
    """Return what a study says of itself: ``Title``, ``Shows``, ``Command``, ``Takes``, ``Look for``.

    Its module is read and not run.

    Example:
        >>> sections("figure-3")["Command"]
        'impasto study figure-3 --pictures DIR --size 192'
    """
    source = Path(__file__).with_name(f"{_file(name)}.py").read_text("utf-8")
    title, *paragraphs = re.split(r"\n\s*\n", ast.get_docstring(ast.parse(source)) or "")
    found = {"Title": title.removesuffix(".")}
    for paragraph in paragraphs:
        label, _, text = paragraph.partition(": ")
        found[label] = " ".join(text.split())
    return found


class Ready(NamedTuple):
    """A study that can begin: what stands around its pictures, and its runs."""

    study: "Study"
    cells: "list[Cell]"


def prepared(
    names: Sequence[str], pictures: Path | None, size: int, out: Path, scale: float = 1.0
) -> list[Ready]:
    """Return studies with all their runs; nothing is computed.

    Raises:
        InputError: a picture is missing, or ``out`` cannot be written to.
    """
    from impasto import sheets
    from impasto.studies.pictures import find

    if not 0 < scale <= 100:
        raise InputError("--iterations-scale must be over 0 and at most 100, e.g. 0.2")
    sheets.check()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None
    found = find(pictures, out / "samples")
    more = [] if pictures is None else ["--pictures", shown(pictures.resolve().name)]
    more += ["--size", str(size), *(["--iterations-scale", f"{scale:g}"] if scale != 1 else [])]
    note = _note(found.stand_ins, size, scale)
    return [
        Ready(
            _study(name, note, shlex.join(["impasto", "study", name, *more])),
            list(module(name).recipes(found, size, scale)),
        )
        for name in names
    ]


def carry_out(
    ready: Sequence[Ready],
    out: Path,
    executor: Executor | None = None,
    say: Callable[[str], object] = lambda _: None,
    **more: Any,  # noqa: ANN401
) -> None:
    """Carry out what is missing of these studies, and draw each as soon as its runs are there.

    ``more`` goes to `sweep.carry_out`.

    Raises:
        InputError: a file cannot be read or written; where it is a run's, all else is drawn.
        RunError: runs failed; all else is drawn.
    """
    from impasto import sweep

    left = {one.study.name: {id(cell) for cell in one.cells} for one in ready}
    cells = [cell for one in ready for cell in one.cells]
    outcomes: list[Outcome] = []
    failures: list[int] = []
    for outcome in sweep.carry_out(cells, out, executor, **more):
        outcomes.append(outcome)
        of = ", ".join(name for name, theirs in left.items() if id(outcome.cell) in theirs)
        say(f"{len(outcomes)} of {len(cells)}: {of}: {outcome.told}")
        if outcome.error:
            failures.append(outcome.exit_code)
        for one in ready:
            mine = left[one.study.name]
            if mine:
                mine.discard(id(outcome.cell))
                if not mine:
                    try:
                        say(f"wrote {present(one.study, one.cells, outcomes, out / one.study.name)}")
                    except InputError as error:
                        say(f"{one.study.name} cannot be drawn: {error}")
                        failures.append(error.exit_code)
    if failures:
        kind = InputError if set(failures) == {InputError.exit_code} else RunError
        some = f"{len(failures)} failure{'s' * (len(failures) > 1)}"
        raise kind(f"{some}, as said above; the same command tries again")


def present(study: "Study", cells: Sequence["Cell"], outcomes: Sequence["Outcome"], out: Path) -> Path:
    """Write the table, the sheets and the page of runs that are there; return the page.

    Raises:
        InputError: a file cannot be written.
    """
    from impasto import pages, results, sheets

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None
    entries = results.gather(cells, outcomes)
    results.write_csv(study.name, entries, out / "results.csv")
    figures = sheets.draw(study, entries)
    sheets.write(figures, out)
    return pages.write(study, entries, figures, out / "index.html")


def _study(name: str, note: str, command: str) -> "Study":
    from impasto.results import Study

    about, own = sections(name), module(name)
    more = {key.lower(): getattr(own, key) for key in ("VALUES", "PANELS") if hasattr(own, key)}
    return Study(name, about["Title"], about["Shows"], about["Look for"], command, note, **more)


def _note(stand_ins: bool, size: int, scale: float) -> str:
    said = [f"{size} px"]
    if scale != 1:
        said.append(f"{scale:g} of the iterations")
    if stand_ins:
        said.append("built-in samples stand in for the report's pictures")
    return "; ".join(said)
