"""The command line, end to end: what is printed, what is written, and how it ends."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import impasto.__main__ as door
from impasto import child, cli, images, provenance, resume
from impasto.__main__ import main
from impasto.catalog import COMMANDS, PRESETS
from impasto.errors import InputError
from impasto.quality import MEASURES
from impasto.recipe import Recipe
from impasto.weights import Weights

PictureFile = Callable[..., Path]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_weights: Weights, picture_file: PictureFile
) -> Path:
    """Stand in a folder with a photograph and two paintings, with the tiny network inside."""
    from impasto import weights

    real = weights.load

    def load(source: str = weights.DEFAULT, sha256: str | None = None) -> Weights:
        return tiny_weights if source == weights.DEFAULT else real(source, sha256)

    monkeypatch.setattr(weights, "load", load)
    monkeypatch.chdir(tmp_path)
    picture_file("photo.png", 40, 32, seed=1)
    picture_file("painting.png", 36, 36, seed=2)
    picture_file("other.png", 48, 30, seed=3)
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


SMALL = ("--size", "32", "--iterations", "2")
TRANSFER = ("transfer", "photo.png", "painting.png", *SMALL)


# --- what goes well ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name", "size"),
    [
        (TRANSFER, "photo-painting.png", (32, 26)),
        ((*TRANSFER, "-o", "out.jpg"), "out.jpg", (32, 26)),
        ((*TRANSFER, "--out", "out.webp"), "out.webp", (32, 26)),
        ((*TRANSFER, "-o", ":cat:.png"), ":cat:.png", (32, 26)),
        (
            ("transfer", "photo.png", "painting.png", "other.png", "--style-weights", "3", "1", *SMALL),
            "photo-painting-other.png",
            (32, 26),
        ),
        (("texture", "other.png", *SMALL), "other-texture.png", (32, 20)),
        (
            ("texture", "painting.png", "--size", "48x32", "--iterations", "1"),
            "painting-texture.png",
            (48, 32),
        ),
        (("reconstruct", "photo.png", *SMALL), "photo-reconstruction.png", (32, 26)),
    ],
)
def test_a_command_writes_one_picture_and_keeps_stdout_empty(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    name: str,
    size: tuple[int, int],
) -> None:
    before = listing(folder)
    assert main(words) == 0
    after = listing(folder)
    assert after.keys() - before.keys() == {name}
    assert {key: after[key] for key in before} == before
    with Image.open(name) as image:
        assert image.size == size
        assert image.mode == "RGB"
    said = capsys.readouterr()
    assert said.out == ""
    assert f"wrote {name}: total " in said.err


def test_the_demo_prints_its_path_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Recipe] = []
    with pytest.MonkeyPatch.context() as patch:
        shortened(patch, seen)
        assert main(["demo", "--photo", "rocket", "--painting", "dabs", "-o", "demo.png"]) == 0
    assert capsys.readouterr().out == f"{folder / 'demo.png'}\n"
    assert seen == [Recipe(size=seen[0].size, iterations=seen[0].iterations)]
    with Image.open("demo.png") as image:
        assert max(image.size) == 32


def shortened(patch: pytest.MonkeyPatch, seen: list[Recipe]) -> None:
    """Let runs be carried out small and without iterations; keep the recipes they were asked for."""
    from dataclasses import replace

    from impasto import runs

    real = runs.carry_out

    def carry_out(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        seen.append(recipe)
        return real(replace(recipe, size=32, iterations=0), *rest, **more)

    patch.setattr(runs, "carry_out", carry_out)


def test_samples_prints_the_pictures_that_it_wrote(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from impasto import samples

    monkeypatch.setattr(samples, "PAINTINGS", {"dabs": samples.PAINTINGS["dabs"]})
    assert main(["samples", "new/samples"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == sorted(f"new/samples/{name}.png" for name in [*samples.PHOTOS, "dabs"])
    assert all((folder / line).is_file() for line in printed)


def test_info_and_version_say_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["torch"] == torch.__version__
    assert {"device", "precision", "weights", "python"} <= rows.keys()
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"impasto {rows['impasto']}\n"


def test_weights_are_listed_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    assert "vgg19-embedded" in capsys.readouterr().out
    assert main(["weights", "verify", "vgg19-embedded"]) == 0
    assert re.fullmatch("vgg19-embedded: sha256 [0-9a-f]{64}, verified\n", capsys.readouterr().out)


def test_measure_prints_numbers_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["measure", "photo.png", "--content", "photo.png", "--style", "painting.png"]
    words += ["--preset", "report"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert found["content"] == 0 < found["style"]
    assert found["total"] == pytest.approx(1e-3 * found["content"] + found["style"], rel=1e-12)
    assert list(found["layers"]["content"]) == ["block4_conv2"]
    by_layer = found["layers"]["style"]
    assert list(by_layer) == [f"block{block}_conv1" for block in range(1, 6)]
    assert found["style"] == pytest.approx(sum(by_layer.values()) / 5, rel=1e-12)
    assert list(found["measures"]) == list(MEASURES)
    assert found["measures"]["content_error"] == 0 < found["measures"]["style_gram"]

    assert main(words) == 0
    numbers, measures = capsys.readouterr().out.split("measures\n")
    lines = dict(line.rsplit(maxsplit=1) for line in numbers.splitlines())
    for name in ("total", "content", "style"):
        assert float(lines[name]) == pytest.approx(found[name], rel=1e-5)
    rows = [line.split(maxsplit=2) for line in measures.splitlines()]
    assert [(name, ways) for name, _, ways in rows] == [
        (name, f"{row.better} is better") for name, row in MEASURES.items()
    ]
    for name, value, _ in rows:
        assert float(value) == pytest.approx(found["measures"][name], rel=1e-5)


ODD = os.fsdecode(b"o \xff \x1b[2J \n \r :cat: [red] \xe2\x80\xae.png")
"""A name that is no UTF-8, gives a terminal orders, and looks like markup."""


def test_what_is_said_of_an_odd_name_is_one_line_that_a_terminal_only_shows(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "o ? ?[2J     :cat: [red] ?.png"
    (folder / ODD).write_bytes((folder / "photo.png").read_bytes())
    monkeypatch.setattr("impasto.resume._OVERHEAD", 0)
    monkeypatch.setattr("impasto.images.write", refused)
    words = ["transfer", ODD, "painting.png", "-o", f"{ODD}.png", *SMALL, "--checkpoint-every", "0"]
    assert main(words) == 2
    assert f"impasto: cannot write {said}.png" in capsys.readouterr().err
    assert main(["runs", "list"]) == 0
    assert f"{said} painting.png -> {folder}/{said}.png," in capsys.readouterr().out
    (key,) = (run.key for run in resume.listing())
    assert main(["runs", "show", key]) == 0
    assert json.loads(capsys.readouterr().out)["inputs"]["content"] == [ODD]
    assert main(["weights", "verify", ODD]) == 0
    assert main(["samples", f"{ODD}/{ODD}"]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{said}: sha256 ")
    assert all(sign.isprintable() for sign in (printed.out + printed.err).replace("\n", ""))


def refused(_: Tensor, path: Path, *__: Any) -> None:
    raise InputError(f"cannot write {path}: refused")


@pytest.mark.parametrize(
    ("given", "missing"), [("--content photo.png", "color"), ("--style painting.png", "ssim")]
)
def test_a_measure_without_its_picture_is_not_printed(
    capsys: pytest.CaptureFixture[str], given: str, missing: str
) -> None:
    assert main(["measure", "photo.png", *given.split(), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["measures"]
    assert missing not in found
    assert "frame" in found


@pytest.mark.parametrize("kind", ["transfer", "reconstruct"])
def test_measure_of_the_saved_picture_is_what_the_command_said(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    inputs = ["photo.png", "painting.png"] if kind == "transfer" else ["photo.png"]
    assert main([kind, *inputs, *SMALL, "-o", "out.png", "--precision", "float32"]) == 0
    said = capsys.readouterr().err.splitlines()[-1]
    style = ["--style", "painting.png"] if kind == "transfer" else []
    assert main(["measure", "out.png", "--content", "photo.png", *style, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("total", "content", "style"):
        (printed,) = re.findall(rf"{name} (\S+)", said)
        # Four digits are printed; the two evaluate one picture in the same precision.
        assert float(printed) == pytest.approx(found[name], rel=6e-4)


@pytest.mark.parametrize("suffix", images.WRITABLE)
def test_the_same_command_gives_the_same_bytes_under_any_name(folder: Path, suffix: str) -> None:
    for name in ("one", "two", "a-longer-name"):
        assert main([*TRANSFER, "--init", "noise", "--seed", "7", "-o", name + suffix]) == 0
    assert (
        len({(folder / f"{name}{suffix}").read_bytes() for name in ("one", "two", "a-longer-name")}) == 1
    )


def test_another_seed_gives_another_picture(folder: Path) -> None:
    for seed in ("1", "2"):
        assert main([*TRANSFER, "--init", "noise", "--seed", seed, "-o", f"{seed}.png"]) == 0
    assert not images.read(folder / "1.png").equal(images.read(folder / "2.png"))


def test_a_picture_is_shown_and_replayed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*TRANSFER, "-o", "a.png"]) == 0
    assert main(["show", "a.png"]) == 0
    assert re.search(r"^recipe +size = 32$", capsys.readouterr().out, re.MULTILINE)
    assert main(["show", "a.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["size"] == 32
    replay = ["replay", "a.png", "--content", "photo.png", "--style", "painting.png"]
    assert main(replay) == 0
    assert capsys.readouterr().out == "wrote a-replay.png: every pixel agrees with a.png\n"
    assert (folder / "a-replay.png").read_bytes() == (folder / "a.png").read_bytes()
    assert main([*replay, "-o", "a.png"]) == 2
    assert "a.png is an input of this run" in capsys.readouterr().err
    monkeypatch.setattr(provenance, "recipe_of", lambda *_: Recipe(size=32, iterations=1))
    assert main([*replay, "-o", "other.png"]) == 1
    assert re.search(
        r"other\.png differs from a\.png: \S+% of the pixels, by up to", capsys.readouterr().err
    )


def test_an_existing_picture_is_replaced_whole(folder: Path) -> None:
    (folder / "out.png").write_bytes(b"x" * 100_000)
    assert main([*TRANSFER, "-o", "out.png"]) == 0
    images.read(folder / "out.png")
    assert (folder / "out.png").stat().st_size < 100_000


@pytest.mark.parametrize(
    "words",
    [
        (*TRANSFER, "-o", "out.png"),
        ("measure", "photo.png", "--style", "painting.png", "--size", "32"),
        ("style", "learn", "painting.png", "--size", "32"),
    ],
)
def test_trusted_pictures_are_decoded_in_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    asked = []
    real = child.opened
    monkeypatch.setattr(child, "opened", lambda file: asked.append(file.name) or real(file))
    assert main([*words]) == 0
    assert asked
    said = capsys.readouterr().out
    asked.clear()
    monkeypatch.setattr(child, "start", lambda: pytest.fail("the child was started"))
    assert main([*words, "--trust-input"]) == 0
    assert not asked
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("init", ["content", "photo.png", "noise"])
def test_without_iterations_the_start_is_written_as_it_is(folder: Path, init: str) -> None:
    words = ["--size", "40", "--iterations", "0", "--init", init, "-o", "out.png"]
    assert main(["transfer", "photo.png", "painting.png", *words]) == 0
    generator = torch.Generator().manual_seed(0)
    noise = images.to_8_bit(torch.rand(3, 32, 40, generator=generator))
    expected = noise if init == "noise" else images.to_8_bit(images.read("photo.png"))
    assert torch.equal(images.to_8_bit(images.read(folder / "out.png")), expected)


# --- presets, recipe files, flags ----------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("flagged", [False, True])
def test_flags_win_over_the_recipe_file_and_that_over_the_preset(
    monkeypatch: pytest.MonkeyPatch, folder: Path, preset: str, in_file: bool, flagged: bool
) -> None:
    seen: list[Recipe] = []
    shortened(monkeypatch, seen)
    (folder / "r.toml").write_text(
        'iterations = 11\nalpha = 0.5\ninit = "gray"\nstyle-layers = ["conv1_1"]\n'
    )
    words = ["transfer", "photo.png", "painting.png", "--preset", preset]
    expected = Recipe.preset_fields(preset)
    if in_file:
        words += ["--recipe", "r.toml"]
        expected |= {"iterations": 11, "alpha": 0.5, "init": "gray", "style_layers": ("conv1_1",)}
    if flagged:
        words += ["--iterations", "12", "--beta", "2.5"]
        expected |= {"iterations": 12, "beta": 2.5}
    assert main(words) == 0
    assert seen == [Recipe(**expected)]  # type: ignore[arg-type]


SWITCHES = [field.name for field in dataclasses.fields(Recipe) if field.type is bool]


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("in_file", [True, False, None])
@pytest.mark.parametrize("flag", [True, False, None])
def test_a_switch_of_the_recipe_goes_both_ways_whatever_the_file_says(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    name: str,
    in_file: bool | None,
    flag: bool | None,
) -> None:
    seen: list[Recipe] = []
    shortened(monkeypatch, seen)
    words = ["transfer", "photo.png", "painting.png"]
    if in_file is not None:
        (folder / "r.toml").write_text(f"{name} = {str(in_file).lower()}\n")
        words += ["--recipe", "r.toml"]
    if flag is not None:
        words.append(("--" if flag else "--no-") + name.replace("_", "-"))
    assert main(words) == 0
    given = [value for value in (flag, in_file, getattr(Recipe(), name)) if value is not None]
    assert getattr(seen[0], name) is given[0]


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("layer-weights = [1, 2, 3]", "--style-layers conv1_1 conv2_1 conv3_1"),
        ('style-layers = ["conv1_1", "conv2_1", "conv3_1"]', "--layer-weights 1 2 3"),
    ],
)
def test_layers_and_their_weights_may_come_from_file_and_flag(
    monkeypatch: pytest.MonkeyPatch, folder: Path, line: str, flags: str
) -> None:
    seen: list[Recipe] = []
    shortened(monkeypatch, seen)
    (folder / "r.toml").write_text(line + "\n")
    assert main(["transfer", "photo.png", "painting.png", "--recipe", "r.toml", *flags.split()]) == 0
    assert seen[0].weight_of_layer == {"block1_conv1": 1, "block2_conv1": 2, "block3_conv1": 3}


@pytest.mark.parametrize(
    ("command", "picture"), [("texture", "painting.png"), ("reconstruct", "photo.png")]
)
def test_reconstructions_start_from_noise_unless_told(
    monkeypatch: pytest.MonkeyPatch, command: str, picture: str
) -> None:
    seen: list[Recipe] = []
    shortened(monkeypatch, seen)
    assert main([command, picture]) == 0
    assert main([command, picture, "--init", "gray"]) == 0
    assert [recipe.init for recipe in seen] == ["noise", "gray"]


# --- what the user can mend ----------------------------------------------------------------------

LONG = "n" * 300

REFUSED: dict[str, tuple[str, str]] = {
    # what is wrong: (the words, what the line says)
    "command": ("nosuch photo.png", "unknown command 'nosuch'"),
    "command nearly": ("transfr photo.png", "did you mean transfer?"),
    "global option": ("--nosuch", "unknown command '--nosuch'"),
    "content missing": ("transfer", "CONTENT"),
    "styles missing": ("transfer photo.png", "STYLE is missing"),
    "texture of nothing": ("texture", "STYLE is missing"),
    "reconstruct nothing": ("reconstruct", "CONTENT"),
    "reconstruct two": ("reconstruct photo.png other.png", "'other.png' is one word too many"),
    "measure nothing": ("measure", "PICTURE"),
    "measure against nothing": ("measure photo.png", "give --content and --style"),
    "measure two": ("measure photo.png other.png --content photo.png", "one word too many"),
    "measure other aspect": ("measure photo.png --content painting.png", "differ in aspect"),
    "measure too small": ("measure small.png --content small.png", "at least 16 px"),
    "measure without alpha": ("measure photo.png --content photo.png --alpha 0", "--alpha over 0"),
    "reconstruct without alpha": ("reconstruct photo.png --alpha 0", "--alpha over 0"),
    "reconstruct with tv alone": ("reconstruct photo.png --alpha 0 --tv 1", "--alpha over 0"),
    "texture without beta": ("texture painting.png --beta 0", "--beta over 0"),
    "neither weight": ("T --alpha 0 --beta 0", "both zero"),
    "missing file": ("transfer photo.png nosuch.png", "nosuch.png does not exist"),
    "folder": ("transfer sub painting.png", "sub is a folder"),
    "text": ("transfer text.png painting.png", "text.png is not a picture"),
    "empty": ("transfer empty.png painting.png", "empty.png is not a picture"),
    "half a JPEG": ("transfer half.jpg painting.png", "half.jpg cannot be read"),
    "half a PNG": ("transfer photo.png half.png", "half.png cannot be read"),
    "under 16 px": ("transfer photo.png narrow.png --size 200", "at least 16 px"),
    "content under 16 px": ("transfer narrow.png photo.png --size 200", "at least 16 px"),
    "thin": ("transfer thin.png painting.png", "thinner than 200:1"),
    "name too long": (f"transfer {LONG}.png painting.png -o out.png", "cannot be read: "),
    "line break in a name": ("transfer photo.png two\nlines.png", "does not exist"),
    "layer": ("T --style-layers conv9_9", "unknown layer 'conv9_9'"),
    "layer twice": ("T --content-layers conv4_2 relu4_2", "--content-layers names a layer twice"),
    "no layers": ("T --style-layers", "--style-layers needs at least one layer"),
    "layer weights": ("T --layer-weights 1 2", "--layer-weights has 2 weights for 5"),
    "zero layer weights": ("T --layer-weights 0 0 0 0 0", "all zero"),
    "negative layer weight": ("T --layer-weights 1 1 -1 1 1", "--layer-weights -1.0 is not allowed"),
    "style weights": (
        "transfer photo.png painting.png other.png --style-weights 1 2 3",
        "--style-weights has 3 weights for 2 style pictures",
    ),
    "zero style weights": ("T --style-weights 0", "all zero"),
    "style weights with a comma": ("T --style-weights 1,2", "--style-weights"),
    "option nearly": ("T --iteration 3", "unknown option --iteration; did you mean --iterations?"),
    "recipe option nearly": ("T --recip r.toml", "unknown option --recip; did you mean --recipe?"),
    "option with = nearly": ("T --alhpa=3", "did you mean --alpha?"),
    "option nearly, first": (
        "transfer --iteration 3 photo.png painting.png",
        "unknown option --iteration; did you mean --iterations?",
    ),
    "short option": ("T -x", "unknown option -x"),
    "option of another command": ("demo --size 100", "unknown option --size; see"),
    "option without value": ("T --size", "--size"),
    "preset without value": ("T --preset", "--preset expected one argument"),
    "pair": ("T --adam-betas 0.5", "--adam-betas"),
    "choice": ("T --pooling avrage", "'avrage' for argument '--pooling'"),
    "optimizer": ("T --optimizer descend", "'descend'"),
    "precision": ("T --precision half", "'half'"),
    "preset": ("T --preset repot", "unknown preset 'repot'; there are"),
    "word for a number": ("T --iterations many", "--iterations"),
    "fraction of an iteration": ("T --iterations 1.5", "--iterations"),
    "device": ("T --device gpu", "unknown device 'gpu'"),
    "device out of range": ("T --device cuda:99999999999999", "unknown device"),
    "absent device": ("T --device cuda:98", "no device cuda:98"),
    "start": ("T --init nois", "did you mean noise?"),
    "start file": ("T --init nosuch.png", "nosuch.png does not exist"),
    "text as start": ("T --init text.png", "text.png is not a picture"),
    "weights": ("T --weights nosuch.pth", "there is no file nosuch.pth"),
    "weights nearly": ("T --weights vgg19-cafe", "did you mean vgg19-caffe?"),
    "weights garbage": ("T --weights text.png", "the weights text.png"),
    "weights folder": ("T --weights sub", "the weights sub are a folder"),
    "weights hash": ("T --weights-sha256 12", "--weights-sha256 needs 64"),
    "a switch misspelt": ("T --tilable", "unknown option --tilable; did you mean --tileable?"),
    "a switch off misspelt": ("T --no-tilable", "unknown option --no-tilable; did you mean --no-til"),
    "a switch before an unknown": ("T --no-tileable --nosuch", "unknown option --nosuch"),
    "a command's flag has no opposite": ("T --no-dry-run", "unknown option --no-dry-run"),
    "size zero": ("T --size 0", "--size 0 is out of range"),
    "size negative": ("T --size -5", "--size -5"),
    "size 15": ("T --size 15", "--size 15 is out of range; use 16 to"),
    "size huge": ("T --size 30001", "--size 30001 is out of range"),
    "size of both sides": ("T --size 48x32", "--size 48x32: a picture keeps its photograph's aspect"),
    "size word": ("T --size large", "--size 'large' is not a size"),
    "size fraction": ("T --size 1.5", "--size '1.5' is not a size"),
    "texture too low": ("texture painting.png --size 48x8", "--size 48x8 is out of range"),
    "texture too thin": ("texture painting.png --size 4000x16", "thinner than 200:1"),
    "seed": ("T --seed 9223372036854775808", "--seed"),
    "out is the content": ("T -o photo.png", "photo.png is an input"),
    "out is a style": ("T -o ./painting.png", "painting.png is an input"),
    "out is the start": ("T --init other.png -o other.png", "other.png is an input"),
    "out links to an input": ("T -o soft.png", "soft.png is an input"),
    "out is another name of an input": ("T -o hard.png", "hard.png is an input"),
    "no folder": ("T -o nosuch/out.png", "the folder nosuch does not exist"),
    "folder as out": ("T -o sub", "sub is a folder"),
    "this folder as out": ("T -o .", ". is a folder"),
    "suffix": ("T -o out.xyz", "its suffix must be one of .png"),
    "no suffix": ("T -o out", "its suffix must be one of .png"),
    "unwritable format": ("T -o out.gif", "its suffix must be one of .png"),
    "out too long": (f"T -o {LONG}.png", "cannot write"),
    "no clobber": ("T -o old.png --no-clobber", "old.png exists and --no-clobber forbids"),
    "no clobber of snapshots": (
        "T -o run.png --no-clobber --save-every 2",
        "run.0004.png exists and --no-clobber forbids",
    ),
    "a snapshot is an input": (
        "transfer photo.png run.0004.png -o run.png --save-every 2",
        "run.0004.png is an input",
    ),
    "log without folder": ("T --log nosuch/log.csv", "the folder nosuch does not exist"),
    "log is an input": ("T --log photo.png", "photo.png is an input"),
    "log is the picture": ("T -o out.png --log ./out.png", "--log and -o are the same file"),
    "log is a folder": ("T --log sub", "sub is a folder"),
    "log kept when refused": ("T --log old.csv --style-weights 1 2", "--style-weights has 2"),
    "log kept when weights fail": ("T --log old.csv --weights text.png", "the weights text.png"),
    "save every": ("T --save-every -1", "--save-every is negative"),
    "save every word": ("T --save-every x", "--save-every"),
    "recipe": ("T --recipe nosuch.toml", "cannot read recipe nosuch.toml"),
    "recipe is a folder": ("T --recipe sub", "cannot read recipe sub"),
    "recipe no TOML": ("T --recipe text.png", "recipe text.png is not TOML"),
    "recipe no text": ("T --recipe photo.png", "recipe photo.png is not TOML"),
    "recipe key": ("T --recipe key.toml", "unknown key 'sise'; did you mean size?"),
    "recipe table": ("T --recipe table.toml", "unknown key 'descent'"),
    "recipe value": ("T --recipe value.toml", "--alpha nan is not allowed"),
    "recipe type": ("T --recipe type.toml", "--style-layers 'conv1_1' is not allowed"),
    "recipe too large": ("T --recipe large.toml", "over 256 KiB"),
    "photo": ("demo --photo chelsae", "unknown photograph 'chelsae'"),
    "painting": ("demo --painting swril", "unknown painting 'swril'"),
    "demo of a word": ("demo chelsea", "'chelsea' is one word too many"),
    "samples nowhere": ("samples", "DIR"),
    "samples into a file": ("samples text.png", "cannot make the folder 'text.png'"),
    "weights what": ("weights", "list,verify,fetch"),
    "weights action": ("weights frobnicate", "'frobnicate'"),
    "fetch nothing": ("weights fetch", "weights fetch needs a name"),
    "verify nothing": ("weights verify nosuch", "there is no file nosuch"),
    "info of a word": ("info nosuch", "'nosuch' is one word too many"),
}
REFUSED |= {
    f"--{option} {number}": (f"T --{option} {number}", f"--{option}")
    for option in ("alpha", "beta", "tv", "learning-rate", "iterations", "patience", "seed", "history")
    for number in ("-1", "nan", "inf")
}


@pytest.fixture
def traps(folder: Path, picture_file: PictureFile) -> Path:
    """Put every bad file there is into the folder."""
    (folder / "sub").mkdir()
    (folder / "text.png").write_text("This is no picture.\n")
    (folder / "empty.png").touch()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8).numpy()
    for name in ("half.jpg", "half.png"):
        Image.fromarray(noise).save(name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    for name, size in {"narrow.png": (200, 15), "small.png": (20, 12), "thin.png": (402, 2)}.items():
        Image.new("RGB", size).save(name)
    for name in ("old.png", "run.0004.png", "run.0003.png"):
        picture_file(name)
    (folder / "old.csv").write_text("kept\n")
    (folder / "soft.png").symlink_to("photo.png")
    (folder / "hard.png").hardlink_to("painting.png")
    (folder / "key.toml").write_text("sise = 256\n")
    (folder / "table.toml").write_text("[descent]\niterations = 3\n")
    (folder / "value.toml").write_text("alpha = nan\n")
    (folder / "type.toml").write_text('style_layers = "conv1_1"\n')
    (folder / "large.toml").write_text("# filler\n" * 40_000)
    return folder


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_user_can_mend_is_one_line_and_writes_nothing(
    traps: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    words, says = REFUSED[what]
    before = listing(traps)
    arguments = [word for word in words.split(" ") if word != "T"]
    if words.startswith("T "):
        arguments = ["transfer", "photo.png", "painting.png", *arguments]
    status = main(arguments)
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert said.err.startswith("impasto: ")
    assert says in said.err
    assert said.err.count("\n") == 1, "more than one line"
    assert not re.search("Traceback|internal error|---|[│╭╰]|helptext", said.err)
    assert listing(traps) == before


SAY_ERRORS = """
import contextlib, sys
from impasto.__main__ import main
with contextlib.redirect_stderr(sys.stdout):
    for command in sys.argv[1:]:
        main([command, "a", "b", "c", "--out"])
        main([command, "a", "b", "--iterations", "x"])
        if command not in ("demo", "info"):
            main([command])
"""


def test_messages_are_the_same_where_boxes_cannot_be_drawn() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", SAY_ERRORS, *COMMANDS],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for encoding in ("utf-8", "ascii")
    ]
    assert said[0] == said[1]
    assert said[0].count("\n") == 3 * len(COMMANDS) - 2
    assert "---" not in said[0]


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    monkeypatch.setattr("impasto.transfer.run", lambda *_: pytest.fail("it ran"))
    assert main(TRANSFER) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_no_command_shows_the_overview_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == said.err
    assert all(name in said.err for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"usage: impasto {command}" in said.out
    assert ("--preset" in said.out) == (
        command in ("transfer", "texture", "reconstruct", "measure", "style", "sweep")
    )


# --- what fails ----------------------------------------------------------------------------------


def failing_run(error: Exception) -> Callable[..., Iterator[None]]:
    def run(*_: object, **__: object) -> Iterator[None]:
        raise error
        yield

    return run


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("the moon\nis full"), "internal error, RuntimeError: the moon is full"),
        (MemoryError(), "not enough memory for 32x26 px"),
        (RuntimeError("can't allocate memory: you tried to"), "not enough memory for 32x26 px"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory for 32x26 px"),
    ],
)
def test_a_failed_run_says_so_in_one_line_and_writes_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    says: str,
) -> None:
    monkeypatch.delenv("IMPASTO_DEBUG", raising=False)
    monkeypatch.setattr("impasto.transfer.run", failing_run(error))
    before = listing(folder)
    assert main(TRANSFER) == 70
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert says in said.err
    assert listing(folder) == before


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMPASTO_DEBUG", "1")
    monkeypatch.setattr("impasto.transfer.run", failing_run(RuntimeError("the moon")))
    with pytest.raises(RuntimeError, match="the moon"):
        main(TRANSFER)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("folder")
def test_a_signal_before_the_work_ends_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("impasto.prepare.check", lambda *_: os.kill(os.getpid(), number))
    assert main(TRANSFER) == status
    assert capsys.readouterr().err == "impasto: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


# --- real processes ------------------------------------------------------------------------------

TINY = """
import sys
import torch
sys.path.insert(0, {tests!r})
from conftest import make_tiny_weights
import impasto.weights
torch.set_num_threads(1)
tiny = make_tiny_weights()
impasto.weights.load = lambda *_: tiny
from impasto.__main__ import main
sys.exit(main())
"""


def start(*words: str) -> "subprocess.Popen[str]":
    program = TINY.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_process_with_the_best_picture(
    folder: Path, number: signal.Signals, status: int
) -> None:
    words = ("transfer", "photo.png", "painting.png", "-o", "out.png", "--size", "32")
    process = start(*words, "--iterations", "10000000", "--optimizer", "adam", "--log", "log.csv")
    log = folder / "log.csv"
    while not log.exists() or log.read_text().count("\n") < 3:  # there is an iteration to go on from
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    *before, last = err.splitlines()
    assert not any(line.startswith(("impasto", "Traceback")) for line in before)
    assert re.fullmatch(
        r"impasto: interrupted at iteration (\d+); wrote the best picture to out\.png; "
        r"the same command goes on from iteration \1",
        last,
    )
    with Image.open("out.png") as image:
        assert image.size == (32, 26)
    assert {path.name for path in folder.iterdir()} == {
        *("photo.png", "painting.png", "other.png", "out.png", "log.csv")
    }


def test_the_installed_command_reports_as_the_function_does(folder: Path) -> None:
    for words, status in ((("--version",), 0), (("transfer", "nosuch.png", "painting.png"), 2)):
        command = [sys.executable, "-m", "impasto", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert (done.stdout + done.stderr).count("\n") == 1
        assert bool(done.stdout) == (status == 0)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("--help", "torch numpy PIL tyro pydantic rich skimage"),
        ("--version", "torch numpy PIL tyro pydantic rich skimage"),
        ("nosuch", "torch numpy PIL tyro pydantic rich skimage"),
        ("transfer --help", "torch skimage"),
        ("measure --help", "torch skimage"),
        ("transfer --nosuch", "torch skimage"),
    ],
)
def test_help_loads_nothing_heavy(words: str, unwanted: str) -> None:
    program = (
        "import contextlib, sys\n"
        "from impasto.__main__ import main\n"
        f"with contextlib.suppress(SystemExit): main({words.split()!r})\n"
        f"sys.exit(sorted(set({unwanted.split()!r}) & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_transfer_loads_no_more_than_it_needs(folder: Path) -> None:
    program = (
        "import sys\n"
        "from impasto.__main__ import main\n"
        f"main({TRANSFER!r})\n"
        "sys.exit({'torch._dynamo', 'sympy', 'scipy', 'skimage'} & set(sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "photo-painting.png").exists()


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import impasto, sys; sys.exit({'torch', 'numpy', 'PIL'} & set(sys.modules) or 0)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_reader_that_has_gone_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "impasto", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


# --- the plan -----------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(folder)
    words = ("transfer", "photo.png", "painting.png", "--size", "96", "--levels", "2", "--dry-run")
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    picture, first, second, memory, time = said.out.splitlines()
    assert picture.startswith("picture  96x77 px, ")
    assert first.startswith("level 1  48x38 px, 56")
    assert second.startswith("level 2  96x77 px, 44")
    assert re.fullmatch(r"memory   about [\d.]+ [GM]iB of [\d.]+ [GM]iB allowed", memory)
    assert re.fullmatch(r"time     about \d+ s", time)
    assert listing(folder) == before


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE", ""])
def test_a_command_sets_what_torch_reads_unless_the_user_has(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in door.SETTINGS:
        monkeypatch.setenv(each, "")  # so that it ends as it is now
        monkeypatch.delenv(each)
    # GNU's OpenMP takes no notice of the policy where it is told how long to spin.
    waiting = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    said = waiting if name in waiting else {name}
    expected = {each: value for each, value in door.SETTINGS.items() if each not in said}
    if name:
        monkeypatch.setenv(name, "7")
        expected[name] = "7"
    monkeypatch.setattr(cli, "run", lambda *_: 0)
    for _ in range(2):
        assert door.main(["runs"]) == 0
        assert {each: os.environ[each] for each in door.SETTINGS if each in os.environ} == expected


@pytest.mark.parametrize("said", ["yesterday", "", "nan", "inf"])
def test_a_time_that_is_none_is_passed_over(said: str) -> None:
    program = "import time, impasto; print(0 <= time.monotonic() - impasto.BEGAN < 60)"
    given = {**os.environ, door.REPLACED: said}
    done = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, check=True)
    assert done.stdout == b"True\n"


def test_a_command_goes_on_in_a_process_that_manages_its_memory_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced: list[tuple[str, list[str]]] = []
    settings: dict[str, str] = {}

    def execve(program: str, words: list[str], environment: dict[str, str]) -> None:
        replaced.append((program, words))
        settings.update(environment)
        raise OSError("no such luck")  # then the command is carried out all the same

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(door, "main", lambda: 7)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["impasto", "transfer", "a.png"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "impasto", "transfer", "a.png"])
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mxfast=64")
    monkeypatch.delenv(door.REPLACED, raising=False)
    assert door.start() == 7
    tunables = "glibc.malloc.mxfast=64:glibc.malloc.tcache_count=0"  # what the user says stays
    words = [sys.executable, "-X", "dev", "-m", "impasto", "transfer", "a.png"]
    assert replaced == [(sys.executable, words)]
    assert settings["GLIBC_TUNABLES"] == tunables
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.mxfast=64"
    # Such a process is not replaced again, nor where the settings were lost on the way, for ever.
    for name in ("GLIBC_TUNABLES", door.REPLACED):
        with monkeypatch.context() as there:
            there.setenv(name, settings[name])
            assert door.start() == 7
    assert len(replaced) == 1
    monkeypatch.delenv("GLIBC_TUNABLES")
    for arguments in ([], ["--version"], ["transfr"]):
        monkeypatch.setattr(sys, "argv", ["impasto", *arguments])
        assert door.start() == 7
    monkeypatch.setattr(sys, "argv", ["impasto", "transfer"])
    monkeypatch.setattr(sys, "platform", "darwin")
    assert door.start() == 7
    assert len(replaced) == 1
