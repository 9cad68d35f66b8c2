"""A learned style stands for its painting: the same losses, from a file of some megabytes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto import files, learning, measures, styles, transfer
from impasto.__main__ import main
from impasto.catalog import STYLE_LOSSES
from impasto.errors import InputError
from impasto.events import Finished, Started
from impasto.recipe import Recipe
from impasto.styles import Made, Style
from impasto.transfer import Pictures

pytestmark = pytest.mark.usefixtures("one_thread", "tiny_network")

FIELDS: dict[str, Any] = {"size": 64, "iterations": 2, "precision": "float32"}


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


PHOTO, PAINTING, OTHER = picture(48, 64, 1), picture(40, 50, 2), picture(64, 40, 3)


def learned(painting: Tensor = PAINTING, **fields: Any) -> Style:
    return learning.learn(Recipe(**{**FIELDS, **fields}), painting, "painting.safetensors")


def kept(style: Style, folder: Path) -> Style:
    styles.save(style, folder / "style.safetensors")
    return styles.load(folder / "style.safetensors")


def near(name: str, loss: float) -> Any:
    # Of random waves the mean is over 2048 stored positions, of 51 x 64 at the first layer.
    return pytest.approx(loss, rel=1e-2 if name == "mmd-gaussian" else 1e-4)


def of_photo(recipe: Recipe, *others: Tensor | Style) -> float:
    return measures.losses(recipe, PHOTO, None, *others).style


@pytest.mark.parametrize("weighting", ["balanced", "report"])
@pytest.mark.parametrize("name", list(STYLE_LOSSES))
def test_every_loss_is_the_paintings(name: str, weighting: str, tmp_path: Path) -> None:
    recipe = Recipe(**FIELDS, style_loss=(name,), weighting=weighting)
    style = kept(learned(style_loss=(name,)), tmp_path)
    assert of_photo(recipe, style) == near(name, of_photo(recipe, PAINTING))


@pytest.mark.parametrize("name", [name for name in STYLE_LOSSES if name not in ("gram", "wasserstein")])
def test_it_mixes_with_paintings_by_weights(name: str) -> None:
    recipe = Recipe(**FIELDS, style_loss=(name,), style_weights=(1, 3))
    mixed = of_photo(recipe, learned(style_loss=(name,)), OTHER)
    assert mixed == near(name, of_photo(recipe, PAINTING, OTHER))


def test_the_barycentre_is_the_paintings() -> None:
    recipe = Recipe(**FIELDS, style_loss=("wasserstein",), style_mix="barycenter")
    mixed = of_photo(recipe, learned(), learned(OTHER))
    assert mixed == pytest.approx(of_photo(recipe, PAINTING, OTHER), rel=1e-4)


def test_what_is_learned_for_gram_serves_every_loss_of_moments() -> None:
    style = learned()
    for name in ("gram", "covariance", "mmd-linear", "mmd-poly", "bn", "gram-mean-std", "wasserstein"):
        style.check(Recipe(style_loss=(name,)))


def test_a_run_ends_near_the_same_picture_and_regions_may_be_learned() -> None:
    both = [
        transfer.picture(PHOTO, style, size=64, iterations=1, levels=(1,), precision="float64")
        for style in (PAINTING, learned(precision="float64"))
    ]
    assert (both[0] - both[1]).abs().max() < 1e-3
    halves = torch.zeros(2, 48, 64)
    halves[0, :, :32] = halves[1, :, 32:] = 1
    recipe = Recipe(**FIELDS)
    pictures = Pictures(PHOTO, (learned(), OTHER), regions=transfer.Regions(halves))
    *_, finished = transfer.run(recipe, pictures, transfer.plan_for(recipe, pictures))
    assert isinstance(finished, Finished)


def test_every_level_has_its_own_size_and_another_one_is_said() -> None:
    style = learned(levels=(32, 64))
    assert list(style.sizes) == [(26, 32), (51, 64)]
    assert style.at((20, 30)) is style.sizes[26, 32]
    assert style.at((500, 700)) is style.sizes[51, 64]

    def notes(**fields: Any) -> tuple[str, ...]:
        recipe, pictures = Recipe(**{**FIELDS, **fields}), Pictures(PHOTO, (style,))
        started = next(transfer.run(recipe, pictures, transfer.plan_for(recipe, pictures)))
        assert isinstance(started, Started)
        return started.notes

    assert notes() == notes(levels=(32, 64)) == ()
    (note,) = notes(size=96)
    assert "learned at 32 and 64 px" in note
    assert "wanted at 96 px" in note


def test_a_texture_has_its_aspect_and_measures_look_at_no_painting() -> None:
    style = learned()
    assert transfer.picture(None, style, size=64, init="noise", iterations=1).shape == (3, 51, 64)
    found = measures.measure(Recipe(**FIELDS), PHOTO, PHOTO, style)
    assert "ssim" in found.measures
    assert "style_gram" not in found.measures


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pooling": "max"}, "--pooling average, not max"),
        ({"padding": "zeros"}, "--padding replicate, not zeros"),
        ({"tileable": True}, "--padding replicate, not circular"),
        ({"style_loss": ("sliced",)}, "not learned for --style-loss sliced;"),
        ({"style_layers": ("conv1_2",)}, "not learned for --style-loss gram at block1_conv2"),
        ({"color": "match"}, "--color match looks at the painting"),
        ({"color": "content", "color_method": "luminance"}, "--color-method luminance looks at"),
        ({"init": "style"}, "--init style looks at the painting"),
    ],
)
def test_what_was_not_learned_is_said(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        transfer.picture(PHOTO, learned(), **{**FIELDS, **fields})


def test_other_weights_and_masks_of_the_painting_are_refused() -> None:
    style = learned()
    other = Style(style.name, Made("1" * 64, "average", "replicate"), style.sizes)
    with pytest.raises(InputError, match="learned with other --weights"):
        transfer.picture(PHOTO, other, **FIELDS)
    with pytest.raises(InputError, match="learned with other --weights"):
        measures.losses(Recipe(**FIELDS), PHOTO, None, other)
    pictures = Pictures(
        PHOTO, (style,), regions=transfer.Regions(torch.ones(1, 48, 64), torch.ones(1, 40, 50))
    )
    with pytest.raises(InputError, match="--style-mask looks at the painting"):
        transfer.plan_for(Recipe(**FIELDS), pictures)


def test_summaries_of_another_width_are_refused_and_a_loaded_style_leaves_its_file(
    tmp_path: Path,
) -> None:
    style = learned()
    wide = {key: torch.ones(99, 100) for key in style.at(style.size).summaries}
    other = Style(style.name, style.made, {style.size: styles.Learned(wide)})
    with pytest.raises(InputError, match="of another width"):
        transfer.picture(PHOTO, other, **FIELDS)
    back = kept(style, tmp_path)
    before = of_photo(Recipe(**FIELDS), back)
    (tmp_path / "style.safetensors").write_bytes(b"")
    assert of_photo(Recipe(**FIELDS), back) == before


def test_the_largest_size_is_that_with_the_longest_side() -> None:
    one = styles.Learned({})
    assert Style(
        "s", Made("", "average", "zeros"), {(64, 40): one, (48, 64): one, (40, 65): one}
    ).size == (
        40,
        65,
    )


def test_a_file_comes_back_as_it_was_and_the_same_style_has_the_same_bytes(tmp_path: Path) -> None:
    style = learned(style_loss=("nearest",))
    back = kept(style, tmp_path)
    assert back.made == style.made
    assert back.sizes.keys() == style.sizes.keys()
    for size, one in style.sizes.items():
        found = back.sizes[size].summaries
        assert found.keys() == one.summaries.keys()
        assert all(torch.equal(found[key], one.summaries[key]) for key in found)
    before = files.sha256(tmp_path / "style.safetensors")
    kept(learned(style_loss=("nearest",)), tmp_path)
    assert files.sha256(tmp_path / "style.safetensors") == before


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "style.safetensors"
    kept(learned(), tmp_path)
    whole = path.read_bytes()
    made = {"impasto style": json.dumps({"weights": "", "pooling": "average", "padding": "zeros"})}
    summary = {"8x8/moments/block1_conv1": torch.ones(2, 3)}
    save_file(summary, path, made)
    styles.load(path)
    broken: list[Callable[[], object]] = [
        lambda: path.write_bytes(whole[: len(whole) // 2]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(b"\x89PNG" + whole),
        lambda: save_file(summary, path),
        lambda: save_file(summary, path, {"impasto style": "{}"}),
        lambda: save_file(summary, path, {"impasto style": "["}),
        lambda: save_file({}, path, made),
        lambda: save_file({"8x8/moments": torch.ones(2, 3)}, path, made),
        lambda: save_file({"8x-8/moments/block1_conv1": torch.ones(2, 3)}, path, made),
        lambda: save_file({"8x8/moments/block1_conv1": torch.ones(2)}, path, made),
        lambda: save_file({"8x8/moments/block1_conv1": torch.ones(3, 3)}, path, made),
        lambda: save_file({"8x8/moments/block1_conv1": torch.ones(2, 3).double()}, path, made),
        lambda: save_file({f"{'9' * 400}x8/moments/block1_conv1": torch.ones(2, 3)}, path, made),
        lambda: save_file({**summary, "9x9/samples/block1_conv1": torch.ones(2, 3)}, path, made),
        lambda: save_file(summary, path, {"impasto style": "[" * 100_000}),
        lambda: save_file(summary, path, {"impasto style": '{"weights": 5}'}),
        lambda: save_file({"8x8/moments/block1_conv1": torch.full((2, 3), torch.nan)}, path, made),
    ]
    for break_it in broken:
        break_it()
        with pytest.raises(InputError, match="cannot read the style") as caught:
            styles.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        styles.load(tmp_path / "none.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InputError, match="not a regular file"):
        styles.load(tmp_path / "pipe.safetensors")


def test_the_command_learns_and_the_file_is_used_like_a_painting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    picture_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    picture_file("photo.png", seed=1)
    picture_file("painting.png", seed=2)
    small = ("--size", "32", "--iterations", "1")
    assert main(("style", "learn", "painting.png", *small)) == 0
    assert "wrote painting.safetensors: painting.png at 32 px" in capsys.readouterr().out
    assert main(("transfer", "photo.png", "painting.safetensors", *small)) == 0
    assert Path("photo-painting.png").exists()
    words = ("photo-painting.png", "--content", "photo.png", "--style", "painting.safetensors")
    assert main(("measure", *words, "--json")) == 0
    assert "ssim" in json.loads(capsys.readouterr().out)["measures"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("learn", "painting.png", "-o", "style.png"), "style.png must end in .safetensors"),
        (("learn", "painting.png", "-o", "no/style.safetensors"), "the folder no does not exist"),
        (("learn", "none.png"), "none.png"),
        (("forget", "painting.png"), "forget"),
        (("learn", "painting.png", "--recipe", "r.safetensors", "-o", "r.safetensors"), "is an input"),
        (("learn", "painting.png", "--no-clobber", "-o", "old.safetensors"), "--no-clobber"),
    ],
)
def test_what_cannot_be_learned_or_written_is_one_line(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    picture_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    picture_file("painting.png")
    Path("old.safetensors").write_text("old", encoding="utf-8")
    Path("r.safetensors").write_text("size = 64", encoding="utf-8")
    assert main(("style", *words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert Path("old.safetensors").read_text(encoding="utf-8") == "old"
