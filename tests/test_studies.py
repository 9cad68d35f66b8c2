"""The studies: what they say of themselves is true, and sheets are drawn from finished runs."""

import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from impasto import images, measures, pages, quality, results, runs, sheets, studies, sweep
from impasto.errors import InputError, RunError
from impasto.recipe import Recipe
from impasto.results import Entry, Study, Taken
from impasto.studies import STUDIES
from impasto.studies.pictures import CONTENT, STYLES, Pictures, find
from impasto.sweep import Cell, Outcome
from impasto.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, SCALE = 64, 0.002
NOWHERE = Pictures(Path("content.png"), {name: Path(f"{name}.png") for name in STYLES})


def cells(name: str, pictures: Pictures = NOWHERE, size: int = 192, scale: float = 1.0) -> list[Cell]:
    return list(studies.module(name).recipes(pictures, size, scale))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- what they say --------------------------------------------------------------------------------


def test_studies_are_listed_without_torch() -> None:
    script = "import sys; from impasto.studies import STUDIES; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_opens_with_what_it_is(name: str) -> None:
    said = studies.sections(name)
    assert list(said) == ["Title", "Shows", "Command", "Takes", "Look for"]
    assert f"impasto study {name} " in said["Command"]


@pytest.mark.parametrize("name", STUDIES)
def test_the_iterations_that_a_study_says_it_takes_are_those_it_takes(name: str) -> None:
    said = re.match(r"\d+", studies.sections(name)["Takes"])
    assert said
    assert int(said[0]) == sum(cell.recipe.iterations for cell in cells(name))


@pytest.mark.parametrize("name", STUDIES)
def test_no_two_cells_of_a_study_stand_in_one_place(name: str) -> None:
    places = [(cell.row, cell.column) for cell in cells(name)]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", [name for name in STUDIES if name.startswith("figure")])
def test_figures_have_the_settings_of_the_report(name: str) -> None:
    free = {"alpha", "learning_rate", "iterations", "init", "style_layers", "layer_weights"}
    report = Recipe.from_preset("report", size=192)
    for cell in cells(name):
        fixed = {field: getattr(report, field) for field in free | {"content_layers"}}
        assert replace(cell.recipe, **fixed) == report


def test_figures_have_the_numbers_of_the_report() -> None:
    layers = [f"block{block}_conv1" for block in range(1, 6)]
    (kept, *_), subsets = cells("figure-2"), cells("figure-5")[:5]
    assert (kept.recipe.content_layers, kept.recipe.iterations) == (("block4_conv2",), 1000)
    assert [(*cell.recipe.style_layers,) for cell in subsets] == [(*layers[:n],) for n in range(1, 6)]
    assert {(cell.recipe.iterations, cell.recipe.alpha) for cell in subsets} == {(1000, 1e-2)}
    assert {cell.recipe.alpha for name in ("figure-7", "figure-8") for cell in cells(name)} == {1e-2}
    fixed = [c.recipe for n in range(2, 8) for c in cells(f"figure-{n}")]
    assert {recipe.learning_rate for recipe in fixed} == {0.02}
    weights = [cell.recipe.layer_weights for cell in cells("figure-7")][:2]
    assert weights == [(0.05, 0.05, 0.1, 0.8), (0.8, 0.1, 0.05, 0.05)]
    every = [cell for name in STUDIES if name.startswith("figure") for cell in cells(name)]
    descents = [cell.recipe for cell in every if cell.recipe.iterations]
    assert {(r.optimizer, r.init, r.pooling, r.weighting) for r in descents} == {
        ("adam", "noise", "average", "report")
    }
    assert {cell.recipe.iterations for name in ("figure-3", "figure-4") for cell in cells(name)} == {
        1000,
        500,
    }
    assert sorted(cell.recipe.alpha for cell in cells("figure-6")) == [1e-4, 1e-3, 1e-2, 1e-1]
    assert 0.02 in {cell.recipe.learning_rate for cell in cells("figure-8")}


def test_what_studies_share_is_one_run() -> None:
    (of_ratios,) = (c for c in cells("figure-6") if c.column == "alpha/beta = 1e-2")
    (of_rates,) = (c for c in cells("figure-8") if c.row == "learning rate 0.02")
    (of_optimizers,) = (c for c in cells("optimizers") if c.row == "Adam")
    *_, of_weights = cells("figure-7")
    one, *others = (
        replace(cell, row="", column="") for cell in (of_ratios, of_rates, of_optimizers, of_weights)
    )
    assert all(other == one for other in others)


def test_an_unknown_study_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"unknown study 'figure-9'; there are .*did you mean"):
        studies.choose(["figure-1", "figure-9"])


# --- pictures -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, picture_file: Callable[..., Path]) -> Path:
    """Return a folder with a picture by each of the report's names."""
    (tmp_path / "report").mkdir()
    for seed, name in enumerate((CONTENT[0], *STYLES)):
        picture_file(f"report/{name}.{'png' if seed % 2 else 'jpg'}", 72, 54, seed)
    return tmp_path / "report"


def test_pictures_are_found_by_their_names(folder: Path, tmp_path: Path) -> None:
    found = find(folder, tmp_path / "unused")
    assert found.content == folder / "neckarfront-tuebingen.jpg"
    assert [path.stem for path in found.styles.values()] == list(STYLES)
    assert not found.stand_ins
    assert found.title("der-schrei") == "Der Schrei"
    assert not (tmp_path / "unused").exists()


def test_a_missing_picture_is_named_with_its_title(folder: Path, tmp_path: Path) -> None:
    (folder / "femme-nue-assise.jpg").unlink(missing_ok=True)
    (folder / "femme-nue-assise.png").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"femme-nue-assise.jpg .*: Femme nue assise, by Pablo Picasso"):
        find(folder, tmp_path)


# --- what they write ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the runs of all studies share."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def cheap_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measure that sorts as many colours of small pictures as of large ones."""
    monkeypatch.delitem(quality.MEASURES, "color")


def carry_out(
    out: Path, *names: str, pictures: Path | None, scale: float = SCALE, said: list[str] | None = None
) -> list[str]:
    said = [] if said is None else said
    studies.carry_out(studies.prepared(names, pictures, SIZE, out, scale), out, say=said.append)
    return said


@pytest.mark.usefixtures("tiny_network", "cheap_measures")
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_ends_in_a_table_a_sheet_and_a_page(out: Path, folder: Path, name: str) -> None:
    said = carry_out(out, name, pictures=folder)
    *runs_, last = said
    assert last == f"wrote {out / name / 'index.html'}"
    assert [line.split(":")[0] for line in runs_] == [
        f"{number} of {len(runs_)}" for number in range(1, len(runs_) + 1)
    ]
    found = {path.name for path in (out / name).iterdir()}
    assert found >= {"results.csv", "sheet.png", "sheet.pdf", "index.html"}
    assert ("curves.png" in found) == ("curves.pdf" in found) == (name != "figure-1")

    expected = cells(name, find(folder, out), SIZE, SCALE)
    table = rows(out / name / "results.csv")
    assert {(row["row"], row["column"]) for row in table} == {(c.row, c.column) for c in expected}
    assert all(row["command"].startswith("impasto ") and not row["error"] for row in table)

    with Image.open(out / name / "sheet.png") as image:
        assert numpy.asarray(image.convert("L")).std() > 10  # there are pictures on it
    page = (out / name / "index.html").read_text("utf-8")
    assert "0.002 of the iterations" in page
    assert "stand in" not in page
    assert page.count("data:image/jpeg") >= len(expected)


@pytest.mark.usefixtures("tiny_network", "cheap_measures")
def test_a_sheet_is_drawn_again_without_a_run_to_the_same_bytes(
    out: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(out, "figure-8", pictures=folder)
    before = {path: path.read_bytes() for path in (out / "figure-8").iterdir()}
    monkeypatch.setattr(runs, "carry_out", lambda *_, **__: pytest.fail("nothing is missing"))
    monkeypatch.setattr(measures, "measure", lambda *_, **__: pytest.fail("all is measured"))
    for path in before:
        path.unlink()
    carry_out(out, "figure-8", pictures=folder)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.usefixtures("tiny_network", "cheap_measures")
def test_a_run_that_fails_is_on_the_sheet_and_the_rest_is_drawn(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep.carry_out

    def failing(those: list[Cell], *words: Any, **more: Any) -> Iterator[Outcome]:
        for outcome in whole(those, *words, **more):
            bad = outcome.cell.column == "alpha/beta = 1e-1"
            yield replace(outcome, error="<b>the disk</b> is gone", exit_code=70) if bad else outcome

    monkeypatch.setattr(sweep, "carry_out", failing)
    said: list[str] = []
    with pytest.raises(RunError, match=r"1 failure, as said above"):
        carry_out(tmp_path, "figure-6", pictures=folder, said=said)
    assert "4 of 4: figure-6: alpha/beta = 1e-1 failed: <b>the disk</b> is gone" in said
    assert [row["error"] for row in rows(tmp_path / "figure-6" / "results.csv")].count("") == 3
    page = (tmp_path / "figure-6" / "index.html").read_text("utf-8")
    assert "&lt;b&gt;the disk" in page
    assert "<b>the disk" not in page
    assert (tmp_path / "figure-6" / "sheet.png").exists()


@pytest.mark.usefixtures("cheap_measures")
def test_all_poolings_are_measured_by_one_ruler(
    tmp_path: Path, folder: Path, tiny_network: Weights
) -> None:
    assert tiny_network
    carry_out(tmp_path, "pooling", pictures=folder)
    table = rows(tmp_path / "pooling" / "results.csv")
    (row,) = (x for x in table if (x["row"], x["column"]) == ("The Starry Night", "max"))
    known = cells("pooling", find(folder, tmp_path), SIZE, SCALE)
    (cell,) = (c for c in known if (c.row, c.column) == (row["row"], row["column"]))
    picture = images.read(sweep.folder_of(cell, tmp_path) / "picture.png")
    seen = (picture, images.read(folder / "neckarfront-tuebingen.jpg"), images.read(cell.styles[0]))
    found = measures.measure(replace(cell.recipe, pooling="average"), *seen)
    assert float(row["content_error"]) == pytest.approx(found.measures["content_error"])
    assert float(row["total"]) == pytest.approx(measures.losses(cell.recipe, *seen).total, rel=1e-3)


def test_a_figure_with_the_real_network_and_the_samples(tmp_path: Path) -> None:
    carry_out(tmp_path, "figure-3", pictures=None, scale=0.02)
    start, *_, end = rows(tmp_path / "figure-3" / "results.csv")
    assert (start["iteration"], end["iteration"]) == ("0", "20")
    assert float(end["style_wasserstein"]) < float(start["style_wasserstein"])
    assert float(end["style"]) < float(start["style"]) / 2
    page = (tmp_path / "figure-3" / "index.html").read_text("utf-8")
    assert "built-in samples stand in" in page
    assert "swirl, for The Starry Night" in page
    assert f"impasto study figure-3 --size {SIZE} --iterations-scale 0.02" in page


# --- the parts ------------------------------------------------------------------------------------


def test_the_front_is_what_no_other_point_is_better_than() -> None:
    generator = numpy.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in generator.integers(0, 12, (60, 2))]
    kept = {points[index] for index in results.front(points)}
    for point in set(points):
        better = any(o != point and o[0] <= point[0] and o[1] <= point[1] for o in points)
        assert (point in kept) == (not better)


def test_names_are_text_on_a_page(tmp_path: Path, picture_file: Callable[..., Path]) -> None:
    name = '</script><img src=x onerror="alert(1)">\'&$title'
    picture = picture_file("one.png")
    cell = Cell(name, name, Recipe(size=32), picture, (picture,))
    entry = Entry(cell, (Taken(3, picture, {"total": 1.0}, 3, 0.1),), [], f"impasto {name}", "run")
    study = Study(name, name, name, name, name, name)
    page = pages.page(study, [entry], sheets.draw(study, [entry, replace(entry, cell=cell)]))
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    assert tmp_path


def test_without_matplotlib_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'impasto\[studies\]'"):
        studies.prepared(["figure-1"], None, SIZE, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError):
        sheets.check()
