"""A recipe says every option once, refuses what makes no sense in one line, and never changes."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from impasto.catalog import PRESETS
from impasto.errors import InputError
from impasto.layers import REPORT_STYLE as REPORT_LAYERS
from impasto.recipe import Recipe, memory_bytes, read_toml


def refusal(**fields: Any) -> str:
    """Return the one line with which these fields are refused."""
    with pytest.raises(InputError) as caught:
        Recipe(**fields)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 2
    return line


def flag(field: str) -> str:
    return "--" + field.replace("_", "-")


# --- ranges -------------------------------------------------------------------------------------

NUMBERS = ["alpha", "beta", "tv", "learning_rate"]


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [-1, -1e-300, math.nan, math.inf, -math.inf, "much", None])
def test_a_weight_or_rate_is_a_finite_number_that_is_not_negative(field: str, value: object) -> None:
    assert flag(field) in refusal(**{field: value})


@pytest.mark.parametrize("field", ["layer_weights", "style_weights"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "much"])
def test_so_is_every_weight_of_a_list(field: str, value: object) -> None:
    assert flag(field) in refusal(**{field: (1.0, 1.0, value, 1.0, 1.0)})


@pytest.mark.parametrize(
    ("field", "values"),
    {
        "learning_rate": (0, 0.0),
        "iterations": (-1, 1.5, math.nan, math.inf, "ten"),
        "patience": (-1, 0.5, math.nan),
        "history": (0, -3, 1001, 1.5),
        "seed": (-1, 2**63, 0.5),
        "adam_betas": ((0.9,), (0.9, 0.99, 0.999), (1.0, 0.999), (-0.1, 0.9), (math.nan, 0.9), 0.9),
        "size": (0, 15, -512, 30_001, 512.5, "wide", "", "16x", "x16", "12x512", "512x15", "5e2", None),
        "weighting": ("fair", "", None),
        "optimizer": ("momentum", "", "Adam"),
        "momentum": (1, -0.1, math.nan),
        "temperature": (-1, math.inf),
        "starts": (0, 101, 1.5),
        "pooling": ("mean", "l3"),
        "padding": ("same",),
        "precision": ("float16", "half"),
        "init": (None, 3),
        "content_layers": ((), ("block4_conv9",), ("conv4_2", "block4_conv2"), ("",), 3),
        "style_layers": ((), ("conv1_1", "relu1_1"), ("conv9_1",)),
        "layer_weights": ((1.0,), (1.0,) * 4, (1.0,) * 6, (0.0,) * 5),
        "style_weights": ((0.0,), (0.0, 0.0)),
        "device": ("gpu", "cuda:", "cuda:x", "CUDA", "tpu", ""),
        "weights_sha256": ("abc", "g" * 64, "0" * 63),
    }.items(),
)
def test_what_is_out_of_range_is_refused_in_one_line(field: str, values: tuple[Any, ...]) -> None:
    for value in values:
        line = refusal(**{field: value})
        assert line.count(" ") >= 3, f"{line!r} does not say what is allowed"


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 16},
        {"size": 30_000},
        {"size": "640x480"},
        {"alpha": 0, "beta": 1},
        {"alpha": 1, "beta": 0},
        {"iterations": 0, "patience": 0},
        {"history": 1},
        {"history": 1000},
        {"seed": 2**63 - 1},
        {"adam_betas": (0, 0.5)},
        {"device": "cuda:3"},
        {"style_layers": ("conv1_1", "conv5_4"), "layer_weights": (0, 3)},
        {"weights_sha256": "0123456789abcdefABCDEF" + "0" * 42},
        {"style_weights": (0, 1)},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(fields: dict[str, Any]) -> None:
    Recipe(**fields)


def test_an_unknown_optimizer_suggests_the_near_one() -> None:
    line = refusal(optimizer="langevine")
    assert "there are lbfgs, adam," in line
    assert "did you mean langevin?" in line


@pytest.mark.parametrize("fields", [{"patience": 2}, {"average": 0.5}])
def test_what_needs_one_steady_descent_is_refused_beside_a_search(fields: dict[str, Any]) -> None:
    (field,) = fields
    assert f"leave --{field} out" in refusal(optimizer="multistart", **fields)
    Recipe(optimizer="sgd", **fields)


def test_a_recipe_with_neither_content_nor_style_is_refused() -> None:
    assert "at least one must be positive" in refusal(alpha=0, beta=0)


def test_an_unknown_field_suggests_the_near_one() -> None:
    line = refusal(itterations=3)
    assert "itterations" in line
    assert "did you mean iterations?" in line
    assert "did you mean" not in refusal(zzz=3)


def test_an_unknown_layer_suggests_the_near_one() -> None:
    assert "did you mean block4_conv2?" in refusal(content_layers=("blck4_conv2",))


def test_a_choice_says_what_there_is() -> None:
    line = refusal(pooling="mean")
    assert all(word in line for word in ("--pooling", "'mean'", "average", "max", "l2"))


# --- what fields mean ---------------------------------------------------------------------------


def test_both_name_systems_make_the_same_recipe() -> None:
    keras = Recipe(content_layers=("block4_conv2",), style_layers=("block1_conv1", "block3_conv4"))
    paper = Recipe(content_layers=("conv4_2",), style_layers=("relu1_1", "conv3_4"))
    assert keras == paper
    assert hash(keras) == hash(paper)


def test_lists_as_json_and_toml_give_them_are_taken() -> None:
    assert Recipe(style_layers=["conv1_1"], layer_weights=[2]).weight_of_layer == {  # type: ignore[arg-type]
        "block1_conv1": 2.0
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), (0.5, 0.5)),
        (("equal",), (0.5, 0.5)),
        (("1/N^2",), (0.8, 0.2)),
        (("geometric", 3), (0.25, 0.75)),
        ((3, 0.5), (3, 0.5)),
        (("relu2_1=2",), (0, 2)),
        (("block2_conv1=0.25", "conv1_1=1"), (1, 0.25)),
    ],
)
def test_layer_weights_come_as_a_list_by_name_or_by_rule(
    given: tuple[Any, ...], expected: tuple[float, ...]
) -> None:
    recipe = Recipe(style_layers=("conv1_1", "conv2_1"), layer_weights=given)
    assert tuple(recipe.weight_of_layer.values()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("geometric",), "geometric R"),
        (("geometric", 0), "geometric R"),
        (("harmonic",), "equal, 1/N"),
        (("equal", 2), "equal, 1/N"),
        (("conv3_3=1",), "none of the --style-layers"),
        (("conv1_1=much",), "a number of 0 or more"),
        (("conv1_1=-1",), "a number of 0 or more"),
        (("conv1_1=0",), "all zero"),
        (("conv1_9=0",), "unknown layer"),
    ],
)
def test_other_layer_weights_are_refused(given: tuple[Any, ...], message: str) -> None:
    assert message in refusal(layer_weights=given)


def test_a_style_has_a_scale_of_its_own_or_the_common_one() -> None:
    assert Recipe(style_scale=(0.5,)).scale_of_styles(2) == (0.5, 0.5)
    assert Recipe(style_scale=(0.5, 2)).scale_of_styles(2) == (0.5, 2)
    with pytest.raises(InputError, match="3 scales for 2 style pictures"):
        Recipe(style_scale=(1, 2, 3)).scale_of_styles(2)


def test_colours_losses_and_seams_are_checked() -> None:
    assert "has no --color-method pca; use auto or lab or luminance" in refusal(
        color="content", color_method="pca"
    )
    assert "has no --color-method lab" in refusal(color_method="lab")
    assert "unknown style loss 'grm'" in refusal(style_loss=("grm",))
    assert "each only once" in refusal(style_loss=("gram", "gram"))
    assert "2 weights for 1 losses" in refusal(style_loss_weights=(1, 2))
    assert "all zero" in refusal(style_loss_weights=(0,))
    assert "needs --padding circular" in refusal(tileable=True, padding="zeros")
    assert Recipe(tileable=True).border == "circular"
    assert dataclasses.replace(Recipe(tileable=True), tileable=False) == Recipe()
    assert "between 0 and 1" in refusal(color="content", color_method="luminance", color_strength=0.5)
    assert "for --style-loss wasserstein alone" in refusal(style_mix="barycenter")
    assert "--style-scale" in refusal(style_scale=(1e308,))
    assert "geometric R" in refusal(layer_weights=("geometric", 1e300))
    assert Recipe(layer_weights="equal").layer_weights == ("equal",)  # type: ignore[arg-type]


def test_layer_weights_are_used_as_given_and_else_equal() -> None:
    assert Recipe().weight_of_layer == dict.fromkeys(REPORT_LAYERS, 0.2)
    given = Recipe(style_layers=("conv2_1", "conv1_1"), layer_weights=(3, 0.5))
    assert given.weight_of_layer == {"block2_conv1": 3.0, "block1_conv1": 0.5}


def test_style_weights_are_scaled_to_sum_to_one_and_else_equal() -> None:
    assert Recipe(style_weights=(3, 1)).weight_of_styles(2) == (0.75, 0.25)
    assert Recipe().weight_of_styles(4) == (0.25,) * 4


@pytest.mark.parametrize(("given", "count"), [((1, 1, 1), 2), ((1,), 3), ((1, 2), 1)])
def test_style_weights_of_another_number_are_refused(given: tuple[float, ...], count: int) -> None:
    with pytest.raises(InputError, match=rf"has {len(given)} weights for {count} style") as caught:
        Recipe(style_weights=given).weight_of_styles(count)
    assert "\n" not in str(caught.value)


def test_the_size_is_a_long_side_or_width_and_height() -> None:
    assert Recipe(size=300).sides == Recipe(size="300").sides == (300,)
    assert Recipe(size="300x200").sides == (300, 200)
    assert Recipe(size="full").sides == ()


def test_a_recipe_is_frozen_and_changed_copies_are_checked_too() -> None:
    recipe = Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.size = 64  # type: ignore[misc]
    assert dataclasses.replace(recipe, size=64).size == 64
    assert recipe == Recipe()
    with pytest.raises(InputError, match="--alpha"):
        dataclasses.replace(recipe, alpha=-1)


def test_every_field_says_what_it_is() -> None:
    source = Path(__import__("impasto.recipe").recipe.__file__).read_text(encoding="utf-8")
    for field in dataclasses.fields(Recipe):
        declaration = source.split(f"\n    {field.name}: ", 1)[1]
        assert declaration.splitlines()[1].startswith('    """'), f"{field.name} has no help"


# --- presets ------------------------------------------------------------------------------------

REPORT = {
    "weighting": "report",
    "pooling": "average",
    "padding": "zeros",
    "alpha": 1e-3,
    "beta": 1.0,
    "tv": 0.0,
    "init": "noise",
    "iterations": 1000,
    "patience": 0,
    "content_layers": ("block4_conv2",),
    "style_layers": REPORT_LAYERS,
    "weight_of_layer": dict.fromkeys(REPORT_LAYERS, 0.2),
    "weights": "vgg19-embedded",
}


@pytest.mark.parametrize(
    ("name", "descent"),
    [
        ("report", {"optimizer": "adam", "learning_rate": 0.02, "adam_betas": (0.9, 0.999)}),
        ("gatys", {"optimizer": "lbfgs"}),
    ],
)
def test_report_and_gatys_are_the_report(name: str, descent: dict[str, object]) -> None:
    recipe = Recipe.from_preset(name)
    assert {field: getattr(recipe, field) for field in REPORT} == REPORT
    assert {field: getattr(recipe, field) for field in descent} == descent


def test_the_default_is_balanced_average_lbfgs_from_the_content_at_512() -> None:
    recipe = Recipe.from_preset("default")
    assert recipe == Recipe()
    chosen = (
        recipe.weighting,
        recipe.pooling,
        recipe.padding,
        recipe.optimizer,
        recipe.init,
        recipe.size,
    )
    assert chosen == ("balanced", "average", "replicate", "lbfgs", "content", 512)


def test_a_draft_is_smaller_and_shorter_than_the_default() -> None:
    draft, default = Recipe.from_preset("draft"), Recipe()
    assert draft.sides[0] < default.sides[0]
    assert draft.iterations < default.iterations


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_legal_recipe_that_fields_are_laid_over(name: str) -> None:
    assert PRESETS[name].help
    assert Recipe.from_preset(name, size=64, alpha=7).alpha == 7
    fields = Recipe.preset_fields(name)
    fields["iterations"] = 1
    assert Recipe.preset_fields(name) != fields, "the preset itself was changed"


def test_an_unknown_preset_suggests_the_near_one() -> None:
    with pytest.raises(InputError, match="did you mean report"):
        Recipe.from_preset("reprot")


# --- recipe files -------------------------------------------------------------------------------


def toml(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_recipe_file_gives_fields_with_dashes_or_underscores(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        'alpha = 0.1\nsize = 256\nstyle-layers = ["conv1_1", "conv2_1"]\nlayer_weights = [1, 2.5]\n',
    )
    recipe = Recipe(**read_toml(path))  # type: ignore[arg-type]
    assert recipe == Recipe(
        alpha=0.1, size=256, style_layers=("block1_conv1", "block2_conv1"), layer_weights=(1.0, 2.5)
    )


def test_every_field_can_stand_in_a_recipe_file(tmp_path: Path) -> None:
    lines = []
    for field in dataclasses.fields(Recipe):
        value = field.default
        text = repr(list(value)) if isinstance(value, tuple) else repr(value)
        text = text.lower() if isinstance(value, bool) else text
        lines.append(f"{flag(field.name)[2:]} = {text}")
    assert Recipe(**read_toml(toml(tmp_path, "\n".join(lines)))) == Recipe()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("itterations = 3", "unknown key 'itterations'; did you mean iterations"),
        ("[transfer]\nsize = 3", "unknown key 'transfer'"),
        ("size = ", "is not TOML"),
        ("size = 1\nsize = 2", "is not TOML"),
        (b"\xff\xfe\x00", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("# " + "x" * 300_000, "over 256 KiB"),
    ],
)
def test_what_is_no_recipe_file_is_refused_in_one_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_toml(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_recipe_file_that_is_missing_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match="cannot read recipe"):
            read_toml(path)


@pytest.mark.parametrize(
    "text", ["alpha = nan", "beta = -1", "tv = inf", "size = {a = 1}", "init = 2020-01-01", "seed = [1]"]
)
def test_values_of_a_recipe_file_are_checked_like_any_other(tmp_path: Path, text: str) -> None:
    assert text.split()[0] in refusal(**read_toml(toml(tmp_path, text)))


def test_a_size_is_the_same_as_a_word_or_a_number() -> None:
    assert Recipe(size="512") == Recipe(size=512)
    assert Recipe(size="64x32").size == "64x32"


def test_a_recipe_file_with_a_key_in_both_spellings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('style-layers = ["conv1_1"]\nstyle_layers = ["conv2_1"]\n')
    with pytest.raises(InputError, match="has 'style_layers' twice"):
        read_toml(path)


@pytest.mark.parametrize("levels", [(0,), (13,), (300, 200), (200, 200), ("auto", 2), (8, 64), ()])
def test_levels_that_make_no_sense_are_refused(levels: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="--levels"):
        Recipe(levels=levels)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", ["much", "-1GiB", "4 apples", "0", "", "nan", "1e9GiB"])
def test_memory_that_makes_no_sense_is_refused(memory: str) -> None:
    with pytest.raises(InputError, match="--memory"):
        Recipe(memory=memory)


@pytest.mark.parametrize(
    ("text", "expected"), [("4GiB", 4 << 30), ("500M", 500 << 20), ("1.5 gb", 3 << 29), ("1024", 1024)]
)
def test_memory_is_read_in_powers_of_1024(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


def test_a_single_level_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    for text, levels in (("2", (2,)), ('"auto"', ("auto",)), ("[64, 128]", (64, 128))):
        path.write_text(f"levels = {text}\n")
        assert Recipe(**read_toml(path)).levels == levels  # type: ignore[arg-type]
