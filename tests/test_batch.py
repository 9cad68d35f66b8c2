"""Many photographs: each is made once, one that fails is passed over, what they share is made once."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from impasto import batch, images, replays, runs, transfer, weights
from impasto.__main__ import main
from impasto.errors import BusyError, InputError, Interrupted, RunError
from impasto.objective import Objective
from impasto.recipe import Recipe
from impasto.runs import Files

pytestmark = pytest.mark.usefixtures("tiny_network", "one_thread")

RECIPE = Recipe(size=32, iterations=2, precision="float32")
SMALL = ("--size", "32", "--iterations", "2", "--precision", "float32")


@pytest.fixture
def folder(tmp_path: Path, picture_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(("photo-a.png", "photo-b.jpg", "photo-c.png")):
        picture_file(name, 40, 32, seed=seed)
    picture_file("painting.png", 36, 36, seed=9)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def carry_out(pattern: str, *more: str, out: str = "out/{name}.png") -> int:
    return main(("transfer", pattern, "painting.png", "-o", out, *SMALL, *more))


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "out").iterdir())}


def test_each_photograph_is_painted_as_it_would_be_alone(folder: Path) -> None:
    assert carry_out("photo-*") == 0
    assert list(written(folder)) == ["photo-a.png", "photo-b.png", "photo-c.png"]
    for name in ("photo-a.png", "photo-b.jpg"):
        assert main(("transfer", name, "painting.png", "-o", "alone.png", *SMALL)) == 0
        assert Path("alone.png").read_bytes() == Path("out", name).with_suffix(".png").read_bytes()


@pytest.mark.parametrize(
    "fields",
    [
        {"style_loss": ("gram",)},
        {"style_loss": ("mmd-gaussian", "sliced")},
        {"style_loss": ("wasserstein", "nearest")},
        {"color": "match"},
        {"color": "content", "color_method": "luminance"},
        {"color": "content"},
    ],
    ids=str,
)
def test_what_is_shared_changes_no_byte(folder: Path, fields: dict[str, Any]) -> None:
    recipe = dataclasses.replace(RECIPE, size=64, levels=(32, 64), **fields)
    shared = transfer.Shared()
    for name in ("photo-a.png", "photo-c.png"):
        files = Files(folder / name, (folder / "painting.png",), folder / "out" / name)
        runs.carry_out(recipe, files, shared=shared)
        alone = dataclasses.replace(files, out=folder / "alone.png")
        runs.carry_out(recipe, alone)
        assert files.out.read_bytes() == alone.out.read_bytes()


def test_weights_and_styles_are_loaded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    loaded: list[object] = []
    real, load = Objective._summaries, weights.load

    def summaries(self: Objective, picture: object, *rest: object) -> object:
        seen.append(picture)
        return real(self, picture, *rest)  # type: ignore[arg-type]

    def loading(*names: object) -> object:
        loaded.append(names)
        return load(*names)  # type: ignore[arg-type]

    monkeypatch.setattr(Objective, "_summaries", summaries)
    monkeypatch.setattr(weights, "load", loading)
    assert carry_out("photo-*.png") == 0
    assert len(written(folder)) == 2
    assert (len(seen), len(loaded)) == (1, 1)


def test_a_rerun_does_only_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out("photo-*") == 0
    before = written(folder)
    (folder / "out" / "photo-b.png").unlink()
    assert carry_out("photo-*") == 0
    after = written(folder)
    assert [name for name in after if after[name] != before[name]] == ["photo-b.png"]
    assert "1 of 3: out/photo-a.png is there" in capsys.readouterr().err
    assert carry_out("photo-*", "--seed", "5") == 0, "another recipe makes other pictures"
    assert all(written(folder)[name] != after[name] for name in after)
    last = written(folder)
    assert carry_out("photo-*", "--seed", "5", "--fresh") == 0
    assert all(written(folder)[name] != last[name] for name in last)


def test_what_is_there_but_not_of_this_run_is_made_again(folder: Path) -> None:
    files = Files(folder / "photo-a.png", (folder / "painting.png",), folder / "out" / "a.png")
    assert not replays.is_made(RECIPE, files)
    images.write(images.read(folder / "photo-a.png"), files.out)
    assert not replays.is_made(RECIPE, files)
    runs.carry_out(RECIPE, files)
    assert replays.is_made(RECIPE, files)
    other = dataclasses.replace(files, bit_depth=16)
    assert not replays.is_made(RECIPE, other)
    assert not replays.is_made(dataclasses.replace(RECIPE, alpha=1), files)
    assert not replays.is_made(RECIPE, dataclasses.replace(files, content=folder / "photo-c.png"))


def test_a_bad_file_is_passed_over_and_told_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "photo-aa.png").write_bytes(b"junk")
    assert carry_out("photo-*") == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == "impasto: 1 of 4 pictures not made, from photo-aa.png; the same command tries again"
    assert list(written(folder)) == ["photo-a.png", "photo-b.png", "photo-c.png"]


@pytest.mark.parametrize("error", [RunError("no"), BusyError("no")])
def test_the_exit_code_is_that_of_the_first_failure(folder: Path, error: Exception) -> None:
    jobs = batch.split(
        Files(folder / "photo-*", (folder / "painting.png",), folder / "out" / "{name}.png")
    )

    def one(files: Files, _: transfer.Shared) -> runs.Result:
        if files is jobs[1]:
            raise error
        return runs.carry_out(RECIPE, files)

    with pytest.raises(type(error), match="1 of 3 pictures not made"):
        batch.carry_out(jobs, one, RECIPE, lambda _: None)
    assert list(written(folder)) == ["photo-a.png", "photo-c.png"]


def test_an_interruption_ends_it(folder: Path) -> None:
    jobs = batch.split(
        Files(folder / "photo-*", (folder / "painting.png",), folder / "out" / "{name}.png")
    )
    begun = []

    def one(files: Files, _: transfer.Shared) -> runs.Result:
        begun.append(files)
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        batch.carry_out(jobs, one, RECIPE, lambda _: None)
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("pattern", "more", "words"),
    [
        ("none-*", (), "no file matches none-"),
        ("photo-*", ("--out", "one.png"), "would be written by each of 3"),
        ("photo-*", ("--log", "one.csv"), "one.csv would be written by each of 3"),
        ("photo-a.png", (), "is for many photographs"),
        ("photo-[ab]*", ("--out", "{name}"), "its suffix must be one of"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], pattern: str, more: tuple[str, ...], words: str
) -> None:
    assert carry_out(pattern, *more) == 2
    assert words in capsys.readouterr().err
    assert not written(folder)


def test_two_photographs_of_one_name_are_refused(
    folder: Path, picture_file: Callable[..., Path]
) -> None:
    picture_file("photo-a.jpg", 40, 32)
    with pytest.raises(InputError, match=r"photo-a\.jpg and .*photo-a\.png would both be"):
        batch.split(Files(folder / "photo-*", (), folder / "out" / "{name}.png"))


def test_no_photograph_is_replaced(folder: Path) -> None:
    with pytest.raises(InputError, match=r"photo-a\.png would be replaced by a picture"):
        batch.split(Files(folder / "photo-*", (), folder / "{name}.png"))


def test_what_it_wrote_beside_the_photographs_is_no_photograph(folder: Path) -> None:
    for _ in range(2):
        assert carry_out("photo-*.png", out="{name}-painted.png") == 0
    assert sorted(path.name for path in folder.glob("*painted*")) == [
        "photo-a-painted.png",
        "photo-c-painted.png",
    ]


def test_snapshots_and_earlier_pictures_are_no_photographs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert carry_out("photo-*.png", "--save-every", "1", out="{name}-p.png") == 0
        assert "of 2: photo-a-p.png" in capsys.readouterr().err
    (folder / "photo-a.png").unlink()
    (folder / "photo-c.png").unlink()
    for more in ((), ("--dry-run",)):
        assert carry_out("photo-a-p.png*", *more, out="{name}.png") == 2


def test_what_is_wrong_for_all_is_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "painting.png").unlink()
    assert carry_out("photo-*") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(
    folder: Path, picture_file: Callable[..., Path]
) -> None:
    picture_file("photo[1].png", 40, 32)
    assert carry_out("photo[1].png", out="out/one.png") == 0
    assert list(written(folder)) == ["one.png"]


def test_a_dry_run_says_what_would_be_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out("photo-*.png") == 0
    (folder / "out" / "photo-c.png").unlink()
    assert carry_out("photo-*.png", "--dry-run") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["out/photo-a.png is there", "out/photo-c.png from photo-c.png"]
    assert said[2].startswith("picture ")
