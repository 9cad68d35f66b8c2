"""One page for a study: pictures, a slider over the iterations, a table that sorts, curves, commands.

The page is one file: pictures, script and style are inside it, and its own policy forbids the browser to
ask anybody for anything. Texts are escaped; a picture's name cannot become markup.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from PIL import Image

from impasto import files, images, quality, results, sheets
from impasto.errors import InputError
from impasto.results import Entry, Study, Taken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page", "write"]

_SIDE = 256
"""The longest side of a picture on the page."""


def write(study: Study, entries: Sequence[Entry], figures: "Mapping[str, Figure]", path: Path) -> Path:
    """Write a study's page with the figures of `sheets.draw`; return its path.

    Raises:
        InputError: it cannot be written.
    """
    text = page(study, entries, figures)
    try:
        with files.atomic_write(path) as file:
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    return path


def page(study: Study, entries: Sequence[Entry], figures: "Mapping[str, Figure]") -> str:
    """Return a study's page as one HTML document, which needs nothing but itself."""
    whole = [entry for entry in entries if entry.taken]
    stops = sorted({taken.iteration for entry in whole for taken in entry.taken})
    template = Template(resources.files("impasto").joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(study.title),
        note=escape(study.note),
        shows=escape(study.shows),
        legend=escape(sheets.legend(study, entries)),
        look_for=f"<p><b>Look for</b> {escape(study.look_for)}</p>" if study.look_for else "",
        command=_command(study.command, "the whole study") if study.command else "",
        pictures="\n".join(_row(study, entries, row) for row in _rows(entries)),
        slider=_slider(stops) if len(stops) > 1 else "",
        table=_table(study, whole),
        drawings="\n".join(
            f"<figure class=drawing>{sheets.svg(figure)}</figure>"
            for name, figure in figures.items()
            if name != "sheet"  # its pictures are the page's own
        ),
        data=_json({"stops": stops}),
    )


def _json(value: object) -> str:
    """Return JSON that can stand inside a script element, whatever is in it."""
    return json.dumps(value).replace("<", "\\u003c")


def _rows(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys("" if entry.is_film else entry.cell.row for entry in entries))


def _row(study: Study, entries: Sequence[Entry], row: str) -> str:
    mine = [entry for entry in entries if row == ("" if entry.is_film else entry.cell.row)]
    head = f"<h2>{escape(row)}</h2>" if row else ""
    figures = "".join(_figure(study, entry) for entry in mine)
    return f'{head}<div class=row style="--count: {len(mine)}">{figures}</div>'


def _figure(study: Study, entry: Entry) -> str:
    """Return a picture with its name, numbers and command; the pictures on the way lie below it."""
    name = escape(entry.cell.row if entry.is_film else entry.cell.column)
    if not entry.taken:
        failed = f"<div class=failed>{escape(entry.error)}</div>"
        return f"<figure>{failed}<figcaption><b>{name}</b></figcaption></figure>"
    shown = [
        f'<img src="{_thumbnail(taken.picture)}" data-iteration={taken.iteration} '
        f'data-said="{escape(_said(study, entry, taken))}" '
        f'alt="{name}, iteration {taken.iteration}"'
        f"{'' if taken is entry.last else ' hidden'}>"
        for taken in entry.taken
    ]
    return (
        f"<figure><div class=frames>{''.join(shown)}</div><figcaption><b>{name}</b>"
        f"<span class=said>{escape(_said(study, entry, entry.last))}</span>"
        f"{_copy(entry.command, entry.name)}</figcaption></figure>"
    )


def _said(study: Study, entry: Entry, taken: Taken) -> str:
    """Return what stands below a picture: what was measured, or the total loss on the way."""
    if taken.values:
        said = sheets.values_of(study, taken).replace("   ", " · ")
        return f"{said} · lowest of {taken.iteration}" if entry.is_film and taken is entry.last else said
    total = next(row["total"] for row in entry.rows if row["iteration"] == taken.iteration)
    return f"total loss {results.text_of(total)}"


def _thumbnail(path: Path) -> str:
    with images.trusted():  # a run's own
        pixels = images.to_8_bit(images.read(path)).numpy()
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _slider(stops: Sequence[int]) -> str:
    last = len(stops) - 1
    return (
        "<div class=slider><label for=iteration>Iteration</label>"
        f"<input id=iteration type=range min=0 max={last} value={last} step=1 list=stops "
        f'aria-valuetext="{stops[-1]}"><output for=iteration>{stops[-1]}</output></div>'
    )


def _copy(command: str, of: str) -> str:
    label = escape(f"Copy the command that makes {of or 'this picture'}")
    return (
        f'<button type=button class=copy data-command="{escape(command)}" title="{escape(command)}" '
        f'aria-label="{label}">copy command</button>'
    )


def _command(command: str, of: str) -> str:
    return f"<p class=command><code>{escape(command)}</code>{_copy(command, of)}</p>"


def _table(study: Study, entries: Sequence[Entry]) -> str:
    """Return the results as a table: one line for each run, all its numbers, its command."""
    first = [name for name in study.values if any(name in e.last.values for e in entries)]
    others = [*results.LOSSES, *quality.MEASURES]
    numbers = first + [
        name
        for name in others
        if name not in first and any(entry.last.values.get(name) for entry in entries)
    ]
    heads = ["run", "iterations", "evaluations", "seconds", *numbers]
    titles = {name: f"{row.help}; {row.better} is better" for name, row in quality.MEASURES.items()}
    lines = [
        "<tr>"
        + "".join(
            f'<th scope=col aria-sort=none title="{escape(titles.get(head, ""))}">'
            f"<button type=button>{escape(_headed(head))}</button></th>"
            for head in heads
        )
        + "<th scope=col>command</th></tr></thead><tbody>"
    ]
    for entry in entries:
        last, copy = entry.last, _copy(entry.command, entry.name)
        values = [last.iteration, last.evaluations, last.seconds]
        cells = [f"<th scope=row><div><span>{escape(entry.name)}</span>{copy}</div></th>"]
        cells += [f"<td data-value={value}>{_count(value)}</td>" for value in values]
        for name in numbers:
            value = last.values.get(name)
            known = ("", "") if value is None else (value, results.text_of(value))
            cells.append("<td data-value='{}'>{}</td>".format(*known))
        cells.append(f"<td class=words><code>{escape(entry.command)}</code></td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "<table><thead>" + "\n".join(lines) + "</tbody></table>"


def _headed(name: str) -> str:
    """Return what stands above a column: a loss is said to be one, as measures share its words."""
    return f"{name} loss" if name in results.LOSSES else name.replace("_", " ")


def _count(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
