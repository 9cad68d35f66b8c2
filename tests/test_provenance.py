"""A picture knows how it was made, tells nothing else, and can be made again."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from impasto import images, jobs, memory, plan, provenance, replays, runs
from impasto.errors import InputError, Interrupted, RunError
from impasto.events import Event, Step
from impasto.files import sha256
from impasto.provenance import End, Written
from impasto.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny_network", "one_thread")

RECIPE = Recipe(size=32, iterations=2, precision="float32", seed=7)

MADE = provenance.begun(RECIPE, {}, "", plan.make(RECIPE, (26, 32)), {}, Written())


@pytest.fixture
def files(picture_file: Callable[..., Path]) -> runs.Files:
    photo, painting = picture_file("photo.png", 40, 32, seed=1), picture_file("s.png", 36, 36, seed=2)
    return runs.Files(photo, (painting,), photo.with_name("out.png"))


def again(files: runs.Files) -> runs.Files:
    return dataclasses.replace(files, out=files.out.with_stem("again"))


@pytest.mark.parametrize(
    ("suffix", "bit_depth"),
    [(suffix, 8) for suffix in images.WRITABLE] + [(suffix, 16) for suffix in (".png", ".tif")],
)
def test_every_format_says_how_the_picture_was_made(
    files: runs.Files, suffix: str, bit_depth: int
) -> None:
    files = dataclasses.replace(files, out=files.out.with_suffix(suffix), bit_depth=bit_depth)
    result = runs.carry_out(RECIPE, files)
    made = jobs.story_of(files.out)
    assert provenance.recipe_of(made) == RECIPE
    assert made.inputs.keys() == {"content", "styles"}
    assert len(made.weights) == 64
    assert made.losses.total == result.losses.total
    assert made.end == End(result.reason, 2, result.evaluations)
    assert made.written.bit_depth == bit_depth
    assert made.conditions["torch"] == torch.__version__
    assert any("seed = 7" in line for line in provenance.describe(made))
    found = replays.replay(files.out, again(files))
    assert (found.share, found.most, found.conditions) == (0, 0, "")
    assert found.result.path.read_bytes() == files.out.read_bytes()


def test_no_path_no_name_and_no_date_is_said(files: runs.Files) -> None:
    start = files.out.with_name("my-start.png")
    start.write_bytes(files.styles[0].read_bytes())
    recipe = dataclasses.replace(RECIPE, init=str(start))
    runs.carry_out(recipe, files)
    said = json.dumps(dataclasses.asdict(jobs.story_of(files.out)))
    for word in (str(files.out.parent), "photo", "s.png", "my-start", time.strftime("%Y-%m")):
        assert word not in said
    with pytest.raises(InputError, match="give it with --init FILE"):
        replays.replay(files.out, again(files))
    assert replays.replay(files.out, again(files), init=start).share == 0


def test_what_the_photograph_was_made_of_is_not_what_the_picture_is(files: runs.Files) -> None:
    runs.carry_out(RECIPE, files)
    second = dataclasses.replace(again(files), content=files.out, no_clobber=True)
    runs.carry_out(RECIPE, second)
    assert jobs.story_of(second.out).inputs["content"] == [sha256(files.out)]
    assert second.out.read_bytes().count(b"<impasto:made>") == 1


def test_other_files_are_refused_by_their_role(files: runs.Files) -> None:
    runs.carry_out(RECIPE, files)
    (painting,) = files.styles
    for change, words in (
        ({"content": painting}, "another file than --content"),
        ({"content": None}, "--content: .* was made from 1, none given"),
        ({"styles": (painting, painting)}, "--style: .* was made from 1, 2 given"),
        ({"keep": painting}, "--keep: .* was made from none, 1 given"),
    ):
        with pytest.raises(InputError, match=words):
            replays.replay(files.out, dataclasses.replace(again(files), **change))  # type: ignore[arg-type]
    assert not again(files).out.exists()


def test_a_replay_that_differs_says_by_how_much(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.carry_out(RECIPE, files)
    other = dataclasses.replace(RECIPE, seed=8, init="noise")
    monkeypatch.setattr(provenance, "recipe_of", lambda *_: other)
    found = replays.replay(files.out, again(files))
    assert found.share > 0.5
    assert found.most > 0.1


def test_an_alpha_that_one_of_two_pictures_has_is_a_difference(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.carry_out(RECIPE, files)
    real = replays.carry_out

    def carry_out(recipe: Recipe, files: runs.Files, *rest: Any, **more: Any) -> runs.Result:
        result = real(recipe, files, *rest, **more)
        alpha = torch.ones(1, 26, 32)
        alpha[:, :13] = 0.9
        images.write(images.read(files.out), files.out, alpha=alpha)
        return result

    monkeypatch.setattr(replays, "carry_out", carry_out)
    assert replays.replay(files.out, again(files)).share == 0.5


def test_a_replay_follows_the_plan_of_the_picture(files: runs.Files) -> None:
    recipe = dataclasses.replace(RECIPE, size=96)
    made = plan.make(recipe, (77, 96), (96, 96))
    (level,) = made.levels
    tiled = dataclasses.replace(level, cut=level.cut._replace(tile=(48, 48)), history=3)
    before = dataclasses.replace(made, levels=(tiled,))
    runs.carry_out(recipe, files, before=before)
    assert plan.from_json(jobs.story_of(files.out).plan) == dataclasses.replace(
        before, budget=0, ample=True
    )
    assert replays.replay(files.out, again(files)).share == 0
    assert plan.from_json(jobs.story_of(again(files).out).plan).levels == (tiled,)  # type: ignore[union-attr]


def test_a_replay_with_less_memory_is_cut_smaller_and_says_so(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    shallow = {"content_layers": ("block2_conv2",), "style_layers": ("block1_conv1", "block2_conv1")}
    recipe = dataclasses.replace(RECIPE, size=400, **shallow)  # tiles with little around them
    runs.carry_out(recipe, files)
    made = plan.from_json(jobs.story_of(files.out).plan)
    assert made
    needed = plan.forecast(recipe, made, (40, 32), (36, 36)).memory
    monkeypatch.setattr(memory, "free", lambda _device: 1 << 40)
    monkeypatch.setattr(memory, "available", lambda _device: needed - 1)
    found = replays.replay(files.out, again(files))
    assert "another plan" in found.conditions
    now = plan.from_json(jobs.story_of(again(files).out).plan)
    assert now
    assert now.levels[0].cut.tile
    assert not made.levels[0].cut.tile
    # Where nothing fits it is planned anew.
    monkeypatch.setattr(memory, "available", lambda _device: 1)
    found = replays.replay(files.out, again(files))
    assert (found.share, found.conditions) == (0, "")


def test_an_interrupted_picture_says_so(files: runs.Files) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 1:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stop])
    made = jobs.story_of(files.out)
    assert made.end
    assert (made.end.reason, made.end.iterations) == (provenance.INTERRUPTED, 1)
    assert made.losses is None
    with pytest.raises(InputError, match="interrupted run"):
        replays.replay(files.out, again(files))


def test_where_losses_cannot_be_written_the_picture_stands(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = images.write, []

    def write(*arguments: Any) -> None:
        if written:
            raise InputError("cannot write: no space left on device")
        written.append(arguments)
        real(*arguments)

    monkeypatch.setattr(images, "write", write)
    with pytest.raises(RunError, match=r"wrote .*out\.png, but on the way: .*no space"):
        runs.carry_out(RECIPE, files)
    assert jobs.story_of(files.out).losses is None


def test_a_picture_of_another_program_says_nothing(files: runs.Files) -> None:
    assert files.content is not None
    with pytest.raises(InputError, match="does not say how it was made"):
        jobs.story_of(files.content)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("recipe", {"weights": "/etc/passwd"}, "was made with weights from a file"),
        ("recipe", {"init": "/etc/passwd"}, "began with a picture from a file"),
        ("recipe", {"unknown": 1}, "unknown"),
        ("recipe", {"size": 10**9}, "size"),
        ("recipe", None, "does not say"),
        ("inputs", None, "does not say"),
        ("inputs", {"content": "ab"}, "does not say"),
        ("inputs", {"\x1b[2J": ["ab"]}, "made from 1, none given"),
        ("written", {"bit_depth": 7}, "does not say"),
        ("conditions", 3, "does not say"),
        ("losses", {"total": "\x1b"}, "does not say"),
        ("end", None, "interrupted"),
    ],
)
def test_a_strangers_word_is_not_taken(
    files: runs.Files, tmp_path: Path, field: str, value: Any, words: str
) -> None:
    path = forged(files, tmp_path / "forged.png", field, value)
    with pytest.raises(InputError, match=words):
        replays.replay(path, again(files))
    assert not again(files).out.exists()


def forged(files: runs.Files, path: Path, field: str, value: Any) -> Path:
    """Write a picture that says something else of itself."""
    runs.carry_out(RECIPE, files)
    made = dataclasses.asdict(jobs.story_of(files.out))
    said = json.dumps({**made, field: {**made[field], **value} if isinstance(value, dict) else value})
    xmp = f"<impasto:made>{said}</impasto:made>".encode()
    images.write(torch.rand(3, 26, 32), path, xmp=xmp)
    return path


@pytest.mark.parametrize("value", [{"levels": [{}]}, {"levels": 3}, {"device": "cuda:9"}, {"more": 1}])
def test_a_plan_that_cannot_be_is_made_anew(
    files: runs.Files, tmp_path: Path, value: dict[str, Any]
) -> None:
    path = forged(files, tmp_path / "forged.png", "plan", value)
    assert provenance.describe(jobs.story_of(path))
    replays.replay(path, again(files))
    assert images.read(again(files).out).equal(images.read(files.out))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<impasto:made></impasto:made>",
        b"<impasto:made>{}</impasto:made>",
        provenance.packed(MADE).replace(b'"schema":1', b'"schema":2'),
        b"<impasto:made>[1]</impasto:made>",
        b"<impasto:made>\xff\xff</impasto:made>",
        b"<impasto:made>" + b"[" * 50_000 + b"</impasto:made>",
        b"<impasto:made>" * 10_000,
    ],
)
def test_what_says_nothing_is_none(packet: bytes) -> None:
    assert provenance.unpacked(packet) is None


def test_orders_to_the_terminal_are_not_passed_on() -> None:
    made = dataclasses.replace(MADE, weights="\x1b[2J", conditions={"a": "b\nc"})
    lines = provenance.describe(made.ended(End("done\x07", 1, 1)))
    assert all(line.isprintable() for line in lines)


def test_more_than_a_jpeg_holds_is_left_out() -> None:
    assert provenance.unpacked(provenance.packed(MADE)) == MADE
    long = dataclasses.replace(MADE, inputs={"styles": ["0" * 64] * 1000})
    assert provenance.packed(long) == b""
