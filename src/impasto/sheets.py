"""Sheets: the pictures of a study side by side, their curves, and content against style. By matplotlib.

Figures are pure functions of what was read from finished runs; `write` saves them as PNG and PDF.
"""

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import numpy.typing as npt

from impasto import files, images, quality, results, schedule, styles
from impasto.errors import InputError
from impasto.results import Entry, Study, Taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "check",
    "curves",
    "draw",
    "label_of",
    "legend",
    "pareto",
    "sheet",
    "svg",
    "values_of",
    "write",
]

INK, SOFT, RULE = "#1a1a1a", "#6b6b6b", "#d9d9d9"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a")
"""Okabe and Ito's, which nobody has to guess; after the last they come again, dashed."""

_STYLE: dict[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Serif"],  # the second for the first's missing signs
    "text.parse_math": False,  # a name may have dollars in it
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "impasto",
}

_WIDTH = 10.0  # of a sheet, in inches
_LARGEST = 2.3  # a picture's width
_GUTTER = 1.25  # for the rows' names
_GAP = 0.09
_LINE = 0.155  # of small print
_MOST_COLUMNS = 6  # of pictures that are no film
_MOST_PANELS = 3  # beside each other
_LETTERS = 15.5  # an inch of text
_DPI = 160

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_LABELS = {"content_error": "content", "style_wasserstein": "style", "noise_style": "noise"}
_PARETO = ("content_error", "style_wasserstein")

Pixels = npt.NDArray[numpy.float32]
At = Callable[[float, float], tuple[float, float]]
"""From inches right and down of the upper left corner to shares of the figure."""


def check() -> None:
    """Refuse where there is no matplotlib.

    Raises:
        InputError: as above.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "sheets are drawn by matplotlib, which is not installed; run: pip install 'impasto[studies]'"
        ) from None


def label_of(name: str) -> str:
    """Return what a number is called in small print.

    Example:
        >>> label_of("content_error"), label_of("edge_ssim")
        ('content', 'edge ssim')
    """
    return _LABELS.get(name, name.replace("_", " "))


def values_of(study: Study, taken: Taken) -> str:
    """Return a picture's numbers as they stand below it, or nothing."""
    known = [name for name in study.values if name in taken.values]
    return "   ".join(f"{label_of(name)} {results.text_of(taken.values[name])}" for name in known)


def draw(study: Study, entries: Sequence[Entry]) -> "dict[str, Figure]":
    """Return ``sheet``, ``pareto`` and ``curves``, as far as there is something to draw.

    Raises:
        InputError: a picture cannot be read.
    """
    found = {
        "sheet": sheet(study, entries),
        "pareto": pareto(study, entries),
        "curves": curves(study, entries),
    }
    return {name: figure for name, figure in found.items() if figure}


def write(figures: "Mapping[str, Figure]", folder: Path) -> None:
    """Write figures by their names, as PNG and PDF.

    Raises:
        InputError: a file cannot be written.
    """
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            _save(figure, folder / f"{name}.{suffix}")


def _save(figure: "Figure", path: Path) -> None:
    # No date, so that the same runs give the same bytes.
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[path.suffix[1:]]
    with _style():
        try:
            with files.atomic_write(path) as file:
                figure.savefig(file, format=path.suffix[1:], dpi=_DPI, metadata=undated)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None


def svg(figure: "Figure") -> str:
    """Return a figure as an element for a page, whose inks are the page's variables."""
    text = io.StringIO()
    with _style():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    for color, name in ((INK, "ink"), (SOFT, "soft"), (RULE, "rule")):
        found = found.replace(color, f"var(--{name})")
    found = re.sub(r"<metadata>.*?</metadata>", "", found, flags=re.DOTALL)
    return re.sub(r"'?STIXGeneral'?", "var(--serif)", found)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


# --- the sheet ------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """A picture on the sheet: what stands above it, and below."""

    above: str
    pixels: Pixels | None
    below: str = ""


class _Band(NamedTuple):
    """A row of pictures: its name, the pictures it was made of, and those it has."""

    name: str
    made_of: tuple[Path, ...]
    places: tuple[_Place, ...]

    def heads(self, width: float) -> tuple[str, ...]:
        """Return what stands above its pictures, in lines that are no wider than they."""
        letters = max(8, int(width * _LETTERS * 0.9))
        return tuple("\n".join(textwrap.wrap(place.above, letters)) for place in self.places)

    @property
    def aspect(self) -> float:
        """The height of its highest picture over the width; all have the same long side."""
        found = [place.pixels.shape for place in self.places if place.pixels is not None]
        return min(1.0, max((height / width for height, width, _ in found), default=0.75))

    @property
    def lines(self) -> int:
        """How many lines of small print it has."""
        return max(place.below.count("\n") + 1 if place.below else 0 for place in self.places)


def sheet(study: Study, entries: Sequence[Entry]) -> "Figure":
    """Draw the pictures side by side: rows, columns, and their numbers below them."""
    from matplotlib.figure import Figure

    bands = list(_bands(study, entries))
    most = max(len(band.places) for band in bands)
    gutter = _GUTTER if any(band.name or band.made_of for band in bands) else 0.0
    width = min(_LARGEST, (_WIDTH - gutter - _GAP * (most - 1)) / most)
    across = max(gutter + most * (width + _GAP) - _GAP, 6.5)
    said = [band.heads(width) for band in bands]
    heads = [
        () if before is not None and now == before[: len(now)] else now
        for before, now in zip([None, *said], said, strict=False)
    ]
    above = [max((0.09 + 0.15 * (head.count("\n") + 1) for head in row), default=0.0) for row in heads]
    heights = [
        width * band.aspect + 0.06 + _LINE * band.lines + high + 0.08
        for band, high in zip(bands, above, strict=True)
    ]
    wide = int(across * _LETTERS)
    caption = textwrap.wrap(study.shows, wide) + textwrap.wrap(legend(study, entries), wide)
    title = textwrap.wrap(study.title, int(across * 9.5)) or [""]
    top = 0.34 + 0.23 * (len(title) - 1) + (0.2 if study.note else 0.0) + 0.06
    total = top + sum(heights) + 0.12 + _LINE * len(caption)
    margin = 0.25
    with _style():
        figure = Figure(figsize=(across + 2 * margin, total + 2 * margin))

        def at(x: float, y: float) -> tuple[float, float]:
            return (margin + x) / (across + 2 * margin), 1 - (margin + y) / (total + 2 * margin)

        figure.text(*at(0, 0), "\n".join(title), size=13.5, weight="bold", va="top")
        if study.note:
            figure.text(*at(0, top - 0.24), study.note, size=9, color=SOFT, va="top", style="italic")
        y = top
        for band, row, over, height in zip(bands, heads, above, heights, strict=True):
            high = width * band.aspect
            y_picture = y + over
            if band.name or band.made_of:
                _name(figure, at, band, y_picture, high)
            for index, place in enumerate(band.places):
                x = gutter + index * (width + _GAP)
                if row:
                    figure.text(*at(x + width / 2, y_picture - 0.06), row[index], ha="center")
                _draw(figure, at, place, (x, y_picture, width, high))
            y += height
        for line in caption:
            y += _LINE
            figure.text(*at(0, y), line, size=8.5, color=SOFT)
    return figure


def legend(study: Study, entries: Sequence[Entry]) -> str:
    """Say what the numbers below the pictures are."""
    seen = {name for entry in entries for taken in entry.taken for name in taken.values}
    said = []
    for name in (name for name in study.values if name in seen):
        if row := quality.MEASURES.get(name):
            said.append(f"{label_of(name)} = {row.help} ({row.better} is better)")
        else:
            said.append(f"{name} = the loss under the run's own recipe")
    return f"Below each picture, as saved: {'; '.join(said)}." if said else ""


def _bands(study: Study, entries: Sequence[Entry]) -> Iterator[_Band]:
    for row in dict.fromkeys(entry.cell.row for entry in entries):
        mine = [entry for entry in entries if entry.cell.row == row]
        if mine[0].is_film:
            yield from (_film(study, entry) for entry in mine)
            continue
        made_of = {_inputs(entry) for entry in mine}
        # Where each picture has an original of its own, the originals stand above.
        if len(made_of) > 1 and all(len(inputs) == 1 for inputs in made_of) and _is_descent(mine):
            originals = (_Place(entry.cell.column, _pixels(_inputs(entry)[0], 320)) for entry in mine)
            yield _Band("original", (), tuple(originals))
        shared = made_of.pop() if len(made_of) == 1 else ()
        parts = math.ceil(len(mine) / _MOST_COLUMNS)
        each = math.ceil(len(mine) / parts)
        for start in range(0, len(mine), each):
            places = [_place(study, entry) for entry in mine[start : start + each]]
            yield _Band(row, shared, tuple(places))


def _is_descent(entries: Sequence[Entry]) -> bool:
    return any(entry.cell.recipe.iterations for entry in entries)


def _inputs(entry: Entry) -> tuple[Path, ...]:
    """Return the pictures that an entry was made of; a learned style is none."""
    given = (entry.cell.content, *entry.cell.styles)
    return tuple(path for path in given if path and path.suffix != styles.SUFFIX)


def _film(study: Study, entry: Entry) -> _Band:
    places = [
        _Place(
            f"lowest of {taken.iteration}"
            if taken.lowest is not None
            else f"iteration {taken.iteration}"
            if index == 0
            else f"{taken.iteration}",
            _pixels(taken.picture),
            values_of(study, taken).replace("   ", "\n"),
        )
        for index, taken in enumerate(entry.taken)
    ]
    return _Band(entry.cell.row, _inputs(entry), tuple(places) or (_failed(entry),))


def _place(study: Study, entry: Entry) -> _Place:
    if entry.error:
        return _failed(entry)
    words = values_of(study, entry.last).split("   ")
    lines = ["   ".join(words[:2]), *words[2:]]
    return _Place(entry.cell.column, _pixels(entry.last.picture), "\n".join(lines))


def _failed(entry: Entry) -> _Place:
    return _Place(entry.cell.column, None, "failed: " + textwrap.shorten(entry.error, 40))


def _pixels(path: Path, side: int = 0) -> Pixels:
    """Return a picture as ``[H, W, 3]``; with ``side``, an original, shrunk to that long side."""
    if not side:
        with images.trusted():  # a run's own
            picture = images.read(path)
    else:
        picture = images.read(path)
        height, width = picture.shape[1:]
        factor = min(1.0, side / max(height, width))
        picture = schedule.resize(picture, (round(height * factor), round(width * factor)))
    found: Pixels = picture.clamp(0, 1).permute(1, 2, 0).numpy()
    return found


def _draw(figure: "Figure", at: At, place: _Place, box: tuple[float, float, float, float]) -> None:
    """Draw a picture into a box of inches, in its middle, with its numbers below."""
    x, y, width, height = box
    if place.pixels is None:
        own_width, own_height = width, height
    else:
        high, wide, _ = place.pixels.shape
        own_width = min(width, height * wide / high)
        own_height = own_width * high / wide
    left, up = x + (width - own_width) / 2, y + (height - own_height) / 2
    _show(figure, at, place.pixels, (left, up, own_width, own_height))
    if place.below:
        below = at(x + width / 2, y + height + 0.05)
        figure.text(*below, place.below, ha="center", va="top", size=8, color=SOFT, linespacing=1.25)


def _show(
    figure: "Figure", at: At, pixels: Pixels | None, box: tuple[float, float, float, float]
) -> None:
    x, y, width, height = box
    left, bottom = at(x, y + height)
    right, top = at(x + width, y)
    axes = figure.add_axes((left, bottom, right - left, top - bottom))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if pixels is None:
        axes.set_facecolor("#f2f2f2")
    else:
        axes.imshow(pixels, interpolation="lanczos", aspect="auto")


def _name(figure: "Figure", at: At, band: _Band, y: float, high: float) -> None:
    """Draw a row's name, and small the pictures that it was made of."""
    lines = textwrap.wrap(band.name, 19)
    side, gap = 0.5, 0.06
    small = [_pixels(path, 160) for path in band.made_of[:2]]
    thumbs = [(side, side * p.shape[0] / p.shape[1]) for p in small]
    thumbs = [(w / h * 0.62, 0.62) if h > 0.62 else (w, h) for w, h in thumbs]
    tall = max((h for _, h in thumbs), default=0.0)
    text = 0.16 * len(lines)
    up = y + max(0.0, (high - text - (tall + 0.1 if small else 0)) / 2)
    if lines:
        figure.text(*at(0, up), "\n".join(lines), va="top", size=9.5, linespacing=1.2)
    x, up = 0.0, up + text + (0.06 if lines else 0.0)
    for pixels, (wide, tall_) in zip(small, thumbs, strict=True):
        _show(figure, at, pixels, (x, up, wide, tall_))
        x += wide + gap


def _scale(axes: "Axes", which: str) -> None:
    """Make axes logarithmic, with as many ticks between the powers of ten as there is room for."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axes.set(**{f"{name}scale": "log"})
        low, high = getattr(axes, f"get_{name}lim")()
        digits = range(1, 10) if high < 5 * low else (1, 2, 5) if high < 300 * low else (1,)
        axis.set_major_locator(LogLocator(subs=tuple(digits), numticks=9))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))


def _power(value: float) -> str:
    """Return a tick's number, in powers of ten where it is large or small.

    Example:
        >>> _power(0.5), _power(2e8)
        ('0.5', '2·10⁸')
    """
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    digit, _, power = f"{value:.0e}".partition("e")
    times = "" if digit == "1" else f"{digit}·"
    return f"{times}10{str(int(power)).translate(_RAISED)}"


def _settle(figure: "Figure") -> None:
    """Lay a figure out once, for all the times that it is drawn."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


# --- curves and fronts ----------------------------------------------------------------------------


def curves(study: Study, entries: Sequence[Entry]) -> "Figure | None":
    """Draw the losses along the iterations, evaluations or seconds; nothing where nothing descends.

    Lines are of the picture in memory at each iteration, dots of pictures that were saved and measured.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    whole = [entry for entry in entries if len(entry.rows) > 1]
    panels = [panel for panel in study.panels if any(max(e.curve(*panel)[1]) > 0 for e in whole)]
    if not whole or not panels:
        return None
    groups = _groups(whole)
    with _style():
        size = (3.9 * len(panels) + 1.9, 2.75 * len(groups) + 0.35)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(f"{study.name}: curves", x=0.01, ha="left", weight="bold", size=12)
        grid = figure.subplots(len(groups), len(panels), squeeze=False)
        for row, (name, group) in zip(grid, groups.items(), strict=True):
            for axes, panel in zip(row, panels, strict=True):
                for index, entry in enumerate(group):
                    _curve(axes, entry, panel, index, len(groups) > 1)
                axes.set(xlabel=panel[1], ylabel=_loss(panel[0]))
                _scale(axes, "y")
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
                if name and len(groups) > 1:
                    axes.set_title(name, loc="left", size=9.5)
        said: list[str] = []
        for axes in grid[:, -1]:
            handles, labels = axes.get_legend_handles_labels()
            if labels != said:  # the first row's legend is for all rows that have the same lines
                axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1.0))
            said = labels
        _settle(figure)
    return figure


def _groups(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return entries by what is drawn into one panel: a row's, or all that have few."""
    rows = dict.fromkeys(entry.cell.row for entry in entries)
    if len(entries) <= len(COLORS) or any(entry.is_film for entry in entries):
        return {"": list(entries)}
    return {row: [entry for entry in entries if entry.cell.row == row] for row in rows}


def _loss(name: str) -> str:
    what, comma, relative = name.partition(",")
    return f"{what} loss{comma}{relative}"


def _color(index: int) -> dict[str, Any]:
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": ("-", "--", ":")[index // len(COLORS) % 3],
    }


def _curve(axes: "Axes", entry: Entry, panel: tuple[str, str], index: int, grouped: bool) -> None:
    along, up = entry.curve(*panel)
    # A run from the photograph begins with no content loss but that of rounding.
    points = [(x, y) for x, y in zip(along, up, strict=True) if y > 1e-9 * max(up)]
    if not points:
        return
    label = entry.cell.column if grouped else entry.name
    axes.plot(*zip(*points, strict=True), label=label, linewidth=1.1, **_color(index))
    name, _, relative = panel[0].partition(", ")
    if entry.is_film and not relative:
        dots = [(entry.at(taken, panel[1]), taken.values[name]) for taken in entry.taken if taken.values]
        axes.plot(*zip(*dots, strict=True), "o", markersize=3.2, color=_color(index)["color"])


def pareto(study: Study, entries: Sequence[Entry]) -> "Figure | None":
    """Draw content against style, both at layers held out; nothing where a run lacks one of them.

    A film is a path. The stepped line joins what no other picture beats in both.
    """
    from matplotlib.figure import Figure

    known = [
        entry
        for entry in entries
        if entry.taken and all(name in entry.last.values for name in _PARETO) and len(entry.rows) > 1
    ]
    if len(known) < 2:
        return None
    rows = dict.fromkeys(entry.cell.row for entry in known)
    groups = _groups(known)
    if not any(entry.is_film for entry in known) and 1 < len(rows) < len(known):
        groups = {row: [entry for entry in known if entry.cell.row == row] for row in rows}
    lines = math.ceil(len(groups) / _MOST_PANELS)
    columns = math.ceil(len(groups) / lines)
    with _style():
        figure = Figure(figsize=(4.6 * columns, 4.2 * lines), layout="constrained")
        figure.suptitle(
            f"{study.name}: content against style", x=0.01, ha="left", weight="bold", size=12
        )
        panels = figure.subplots(lines, columns, squeeze=False).flatten()
        grid, spare = panels[: len(groups)], panels[len(groups) :]
        for axes in spare:
            axes.set_visible(False)
        for axes, (name, group) in zip(grid, groups.items(), strict=True):
            _fronts(axes, group)
            axes.set_title(name if len(groups) > 1 else "", loc="left", size=9.5)
            axes.set(
                xlabel="content error, layers held out: further left, more of the photograph",
                ylabel="style error, layers held out: further down, more of the painting",
            )
        _settle(figure)
        for axes, group in zip(grid, groups.values(), strict=True):
            _label(axes, group, len(groups) > 1)
    return figure


def _point(taken: Taken) -> tuple[float, float]:
    return taken.values[_PARETO[0]], taken.values[_PARETO[1]]


def _fronts(axes: "Axes", group: Sequence[Entry]) -> None:
    points = [_point(entry.last) for entry in group]
    best = [points[index] for index in results.front(points)]
    axes.step(*zip(*best, strict=True), where="post", color=RULE, linewidth=1.4, zorder=1)
    for index, entry in enumerate(group):
        color = _color(index)["color"]
        if entry.is_film:
            path = [_point(taken) for taken in entry.taken if taken.values]
            axes.plot(
                *zip(*path, strict=True), ".-", color=color, linewidth=0.7, markersize=3, alpha=0.7
            )
        axes.plot(*points[index], "o", color=color, markersize=6, zorder=3)
    axes.margins(0.14)
    if any(entry.is_film for entry in group):
        _scale(axes, "xy")


def _leader(ha: str, va: str) -> dict[str, Any]:
    """Return a thin line from the corner of a name that is nearest to its point."""
    nearest = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}
    return {"arrowstyle": "-", "color": INK, "linewidth": 0.6, "relpos": (nearest[ha], nearest[va])}


def _label(axes: "Axes", group: Sequence[Entry], grouped: bool) -> None:
    """Write each point's name where it covers no other name and no point."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure = axes.get_figure()
    assert figure is not None
    spots = [axes.transData.transform(_point(entry.last)) for entry in group]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in spots]
    near = (
        (6, 0, "left", "center"),
        (-6, 0, "right", "center"),
        (0, 6, "center", "bottom"),
        (0, -6, "center", "top"),
        (6, 7, "left", "bottom"),
        (6, -7, "left", "top"),
        (-6, 7, "right", "bottom"),
        (-6, -7, "right", "top"),
    )
    # Where there is no room beside a point, its name stands farther off, with a line to it.
    places = [(x * far, y * far, ha, va, far > 1) for far in (1, 3, 5, 8) for x, y, ha, va in near]
    for entry in group:
        text = entry.cell.column if grouped else entry.name
        for x, y, ha, va, leads in places:
            note = axes.annotate(
                text,
                _point(entry.last),
                (x, y),
                textcoords="offset points",
                ha=ha,
                va=va,
                size=8.5,
                arrowprops=_leader(ha, va) if leads else None,
            )
            note.get_window_extent()  # puts it in its place, and sees the line to its point too
            box = Text.get_window_extent(note)
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()
