"""Many runs: each is computed once, what is whole is kept, and where it was computed changes no byte."""

import dataclasses
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from impasto import runs, sweep
from impasto.__main__ import main
from impasto.errors import InputError, Interrupted, RunError
from impasto.recipe import Recipe, read_toml
from impasto.sweep import Cell, Outcome

pytestmark = pytest.mark.usefixtures("tiny_network", "one_thread")

RECIPE = Recipe(size=32, iterations=3, precision="float32")
SAME = ("picture.png", "losses.csv", "recipe.toml")
"""What has the same bytes wherever it is computed; how many seconds it took has not."""


@pytest.fixture
def pictures(tmp_path: Path, picture_file: Callable[..., Path]) -> Path:
    picture_file("photo.png", 40, 32, seed=1)
    picture_file("painting.png", 36, 36, seed=2)
    return tmp_path


def cell(pictures: Path, name: str = "", snapshots: tuple[int, ...] = (), **fields: Any) -> Cell:
    recipe = replace(RECIPE, **fields)
    photo, painting = pictures / "photo.png", pictures / "painting.png"
    return Cell("", name, recipe, photo, (painting,), snapshots)


def carried_out(cells: Sequence[Cell], out: Path, **more: Any) -> list[Outcome]:
    return list(sweep.carry_out(cells, out, **more))


def test_a_folder_holds_all_there_is_to_say_of_a_run(pictures: Path, tmp_path: Path) -> None:
    (found,) = carried_out([cell(pictures, snapshots=(0, 2))], tmp_path / "out")
    assert (found.error, found.exit_code) == ("", 0)
    run = sweep.read(found.folder)
    assert run.picture.is_file()
    assert list(run.steps) == [0, 2]
    assert [row["iteration"] for row in run.rows] == [0, 1, 2, 3]
    assert all(row["seconds"] >= 0 for row in run.rows)
    assert run.seconds == run.rows[-1]["seconds"]
    assert (run.iterations, run.evaluations) == (3, run.rows[-1]["evaluations"])
    assert run.losses.total > 0
    assert run.measures["ssim"] <= 1
    assert run.versions["threads"] == "1"
    assert json.loads((found.folder / "run.json").read_bytes())["inputs"].keys() == {"content", "styles"}


@pytest.mark.parametrize("kind", ["transfer", "texture", "reconstruct"])
def test_its_command_and_its_recipe_make_the_same_picture(
    pictures: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell(
        pictures, style_layers=("conv1_1", "conv2_1"), layer_weights=("geometric", 2), tileable=True
    )
    if kind == "texture":
        one = replace(one, content=None, recipe=replace(one.recipe, init="noise"))
    if kind == "reconstruct":
        one = replace(one, styles=(), recipe=replace(one.recipe, init="noise"))
    (found,) = carried_out([one], tmp_path / "out")
    monkeypatch.chdir(pictures)
    program, *words = shlex.split(sweep.read(found.folder).command)
    assert (program, words[0]) == ("impasto", kind)
    assert main([*words, "-o", "again.png"]) == 0
    assert Path("again.png").read_bytes() == (found.folder / "picture.png").read_bytes()
    assert Recipe(**read_toml(found.folder / "recipe.toml")) == one.recipe  # type: ignore[arg-type]


def test_only_what_is_missing_is_computed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Recipe] = []
    real = runs.carry_out

    def counting(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        begun.append(recipe)
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", counting)
    cells = [cell(pictures, seed=seed) for seed in (1, 2, 1)]
    first = carried_out(cells, tmp_path / "out")
    assert len(first) == 3
    assert len({one.folder for one in first}) == len(begun) == 2, "equal runs are one"
    carried_out([*cells, cell(pictures, seed=3)], tmp_path / "out")
    assert len(begun) == 3, "an extended sweep computes what is new"
    (first[0].folder / "run.json").unlink()
    carried_out(cells, tmp_path / "out")
    assert len(begun) == 3, "a run that has its picture is not computed again"
    picture = first[0].folder / "picture.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    assert not sweep.is_whole(first[0].folder)
    carried_out(cells, tmp_path / "out")
    assert len(begun) == 4, "what is damaged is made anew"


def test_a_run_is_known_by_what_makes_its_picture(pictures: Path, tmp_path: Path) -> None:
    one = cell(pictures)
    name = sweep.folder_of(one, tmp_path)
    moved = shutil.copy(pictures / "photo.png", tmp_path / "of another name.png")
    for same in (
        replace(one, row="elsewhere", content=Path(moved)),
        replace(one, recipe=replace(RECIPE, memory="4GiB")),
    ):
        assert sweep.folder_of(same, tmp_path) == name
    for other in (
        replace(one, snapshots=(1,)),
        replace(one, content=None),
        replace(one, content=pictures / "painting.png"),
        replace(one, recipe=replace(RECIPE, seed=1)),
    ):
        assert sweep.folder_of(other, tmp_path) != name


def test_what_runs_share_changes_no_byte(pictures: Path, tmp_path: Path) -> None:
    several = ({"beta": 2.0}, {"seed": 3}, {"pooling": "max"}, {"optimizer": "adam", "init": "noise"})
    cells = [cell(pictures, **fields) for fields in several]
    together = carried_out(cells, tmp_path / "together")
    for one, found in zip(cells, together, strict=True):
        (alone,) = carried_out([one], tmp_path / "alone")
        assert alone.folder.name == found.folder.name
        for name in SAME:
            assert (alone.folder / name).read_bytes() == (found.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("error", "attempts", "code", "words"),
    [
        (InputError("a mask does not fit"), 1, 2, "a mask does not fit"),
        (RunError("losses are not finite"), 3, 70, "losses are not finite"),
        (MemoryError(), 3, 70, "MemoryError"),
        (ValueError("two\nlines"), 3, 70, "ValueError: two lines"),
    ],
    ids=repr,
)
def test_what_fails_is_told_of_in_one_line_and_the_rest_completes(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    attempts: int,
    code: int,
    words: str,
) -> None:
    real, tried = runs.carry_out, []

    def failing(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        if recipe.seed == 1:
            tried.append(recipe)
            raise error
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", failing)
    found = carried_out([cell(pictures, seed=seed) for seed in (0, 1, 2)], tmp_path / "out")
    assert [one.error for one in found] == ["", words, ""]
    assert [one.exit_code for one in found] == [0, code, 0]
    assert len(tried) == attempts


def test_what_cannot_be_read_is_said_before_any_run(pictures: Path, tmp_path: Path) -> None:
    bad = replace(cell(pictures), content=pictures / "none.png")
    with pytest.raises(InputError, match=r"cannot read .*none\.png"):
        carried_out([cell(pictures), bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interruption_ends_it_and_what_is_whole_is_kept(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.carry_out

    def interrupted(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        if recipe.seed == 1:
            raise Interrupted(2)
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", interrupted)
    cells = [cell(pictures, seed=seed) for seed in (0, 1)]
    with pytest.raises(Interrupted):
        carried_out(cells, tmp_path / "out")
    assert sweep.is_whole(sweep.folder_of(cells[0], tmp_path / "out"))
    assert not sweep.is_whole(sweep.folder_of(cells[1], tmp_path / "out"))


def test_what_is_no_run_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no whole run"):
        sweep.read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged, or of another version"):
        sweep.read(tmp_path)


def test_every_option_can_be_said_in_words() -> None:
    for field in dataclasses.fields(Recipe):
        assert field.default is not dataclasses.MISSING, field.name
    assert Recipe().words() == []
