"""A plan fits the memory it was given, prefers what is better, and says what would fit."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from impasto import cost, plan, schedule
from impasto.cost import FINISHING, NO_MASKS, Costs, Masks
from impasto.errors import InputError
from impasto.losses import STYLE_LOSSES
from impasto.objective import looks
from impasto.optimize import OPTIMIZERS
from impasto.plan import Level, Plan
from impasto.recipe import Recipe
from impasto.tiles import WHOLE, Cut

GIB = 1 << 30


@pytest.fixture(autouse=True)
def torch_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count as for a torch without CUDA: the budgets below are for it, whichever is installed."""
    for module in (cost, plan):
        monkeypatch.setattr(module, "BASE", 330 << 20)


def make(side: int, memory: str, **fields: object) -> tuple[Plan, int]:
    """Return the plan for a square picture and style, and the bytes that it is expected to take."""
    recipe = Recipe(size=side, memory=memory, precision="float32", device="cpu", **fields)  # type: ignore[arg-type]
    made = plan.make(recipe, (side, side), (side, side))
    costs = Costs(recipe, made.precision, made.by_winograd, looks(recipe, content=True, style=True))
    return made, max(
        costs.memory(
            level.size,
            level.held,
            level.making,
            level.cut,
            [(side, side)] * 2,
            [level.size],
            level is made.levels[-1],
        )
        for level in made.levels
    )


@pytest.mark.parametrize("memory", ["1GiB", "2GiB", "4GiB", "8GiB", "16GiB"])
@pytest.mark.parametrize("side", [512, 1024, 2048])
@pytest.mark.parametrize("levels", [(1,), ("auto",)])
def test_a_plan_fits_the_memory(side: int, memory: str, levels: tuple[object, ...]) -> None:
    made, bytes_needed = make(side, memory, levels=levels)
    assert bytes_needed <= int(memory.removesuffix("GiB")) * GIB
    assert made.size == (side, side)


def test_with_room_enough_nothing_is_cut() -> None:
    made, _ = make(1024, "16GiB", levels=(1,))
    (level,) = made.levels
    assert (level.cut.tile, level.optimizer, level.history) == (None, "lbfgs", 20)


def test_the_tighter_the_memory_the_less_is_remembered() -> None:
    found = []
    for memory in ("24GiB", "12GiB", "8GiB", "4GiB", "2GiB"):
        made, _ = make(4096, memory, levels=(1,))
        level = made.levels[0]
        found.append(level.history if level.optimizer == "lbfgs" else 0)
    assert found == sorted(found, reverse=True)
    assert found[0] == 20
    assert found[-1] == 0


@pytest.mark.parametrize(
    ("optimizer", "finer"), [("multistart", "lbfgs"), ("langevin", "sgd"), ("nadam", "nadam")]
)
def test_a_search_is_for_the_coarsest_level(optimizer: str, finer: str) -> None:
    made, _ = make(1024, "16GiB", optimizer=optimizer)
    assert [level.optimizer for level in made.levels] == [optimizer, finer, finer]
    assert [make(64, "16GiB", optimizer=optimizer)[0].levels[0].optimizer] == [optimizer]


def test_where_memory_is_short_one_start_is_enough() -> None:
    fields = {"optimizer": "multistart", "levels": (1,)}
    assert make(2048, "16GiB", **fields)[0].levels[0].optimizer == "multistart"
    assert make(2048, "4GiB", **fields)[0].levels[0].optimizer in ("lbfgs", "adam")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimiser_is_named_in_the_plan(optimizer: str) -> None:
    level = plan.Level((48, 64), 30, optimizer, 20)
    title = OPTIMIZERS[optimizer].title
    assert f"30 iterations, {title}" in level.describe()
    assert ("history 20" in level.describe()) == ("L-BFGS" in title)


def test_tiles_that_have_room_are_kept_for_the_way_back() -> None:
    keeps = [make(1536, f"{gib}GiB", levels=(1,))[0].levels[0].cut for gib in (3, 5)]
    assert all(cut.tile for cut in keeps)
    assert any(cut.keep > 1 for cut in keeps)


def test_what_would_fit_is_said() -> None:
    with pytest.raises(
        InputError, match=r"700 MiB is too little for 8192x8192 px; --size \d+ would fit"
    ) as told:
        make(8192, "700MiB")
    size = int(str(told.value).split("--size ")[1].split()[0])
    make(size, "700MiB", levels=(1,))
    with pytest.raises(InputError, match="for any other size; give more"):
        make(64, "100MiB")


def test_circular_padding_is_cut_only_on_the_pooling_grid() -> None:
    fields = {"padding": "circular", "levels": (1,)}
    assert make(1024, "1GiB", **fields)[0].levels[0].cut.tile
    with pytest.raises(InputError, match="too little for 1023x1023"):
        make(1023, "1GiB", **fields)


def test_a_style_larger_than_the_picture_counts() -> None:
    recipe = Recipe(size=2048, memory="2GiB", precision="float32", device="cpu", levels=(1,))
    narrow = plan.make(recipe, (256, 2048), (256, 2048)).levels[0]
    square = plan.make(recipe, (256, 2048), (2048, 2048)).levels[0]
    assert narrow.cut.tile is None
    assert square.cut.tile is not None


def test_a_style_that_cannot_be_cut_is_known_beforehand() -> None:
    recipe = Recipe(
        size=2048, memory="1.5GiB", precision="float32", device="cpu", padding="circular", levels=(1,)
    )
    assert plan.make(recipe, (2048, 2048), (2048, 2048)).levels[0].cut.tile
    with pytest.raises(InputError, match="too little for 2048x2048"):
        plan.make(recipe, (2048, 2048), (1367, 2048))


def test_a_long_history_counts_in_however_much_memory() -> None:
    made, needed = make(1000, "7.2GiB", levels=(1,), history=300, iterations=300)
    assert needed <= 7.2 * GIB
    assert made.levels[0].cut.tile or made.levels[0].history < 300


def test_levels_that_a_style_is_too_thin_for_are_left_out() -> None:
    recipe = Recipe(size=512, device="cpu")
    assert [max(level.size) for level in plan.make(recipe, (400, 512), (90, 1600)).levels] == [512]
    assert [max(level.size) for level in plan.make(recipe, (400, 512), (400, 512)).levels] == [256, 512]
    with pytest.raises(InputError, match="a style is 512x13 px"):
        plan.make(recipe, (400, 512), (40, 1600))


def test_a_start_of_the_users_keeps_its_detail() -> None:
    recipe = Recipe(size=1024, init="earlier.png", device="cpu")
    assert len(plan.make(recipe, (700, 1024), (700, 1024)).levels) == 1


def test_several_processes_get_a_tile_each() -> None:
    recipe = Recipe(size=512, precision="float32", device="cpu", levels=(1,), memory="8GiB")
    for ranks in (2, 3):
        made = plan.make(recipe, (512, 512), (512, 512), ranks=ranks)
        assert made.levels[0].cut.tile is not None


def test_reports_recipe_has_one_level() -> None:
    for preset in ("report", "gatys"):
        recipe = Recipe.from_preset(preset, size=1024)
        assert len(schedule.levels(recipe, 1024, 768)) == 1


def test_a_level_carries_out_the_recipe_with_its_own_share() -> None:
    made, _ = make(1024, "16GiB")
    recipe = Recipe(size=1024)
    own = [level.recipe(recipe) for level in made.levels]
    assert sum(one.iterations for one in own) == recipe.iterations
    assert {dataclasses.replace(one, iterations=100) for one in own} == {recipe}


def test_the_forecast_counts_every_level() -> None:
    recipe = Recipe(size=128, iterations=4, precision="float32", device="cpu")
    made = plan.make(recipe, (96, 128), (100, 100))
    found = plan.forecast(recipe, made, (96, 128), (100, 100))
    assert 300 << 20 < found.memory < GIB
    assert found.seconds > 0


# --- masks --------------------------------------------------------------------------------------


def masks_of(regions: int, side: int) -> Masks:
    return Masks((regions, side, side), (regions, side, side), (1, side, side), (1, side, side))


def needed(recipe: Recipe, made: Plan, masks: Masks, cut: Cut = WHOLE) -> int:
    """Return the bytes of the last level of a square picture and style, cut like this."""
    level = made.levels[-1]
    wanted = looks(recipe, content=True, style=True)
    costs = Costs(recipe, made.precision, made.by_winograd, wanted, masks.regions)
    inputs, styles = [level.size] * 2, [level.size]
    return costs.memory(
        level.size, level.held, level.making, cut, inputs, styles, last=True, masks=masks
    )


@pytest.mark.parametrize("memory", ["2GiB", "4GiB"])
def test_regions_are_in_the_plan(memory: str) -> None:
    recipe = Recipe(size=1024, memory=memory, precision="float32", device="cpu", levels=(1,))
    size, found = (1024, 1024), []
    for masks in (NO_MASKS, masks_of(1, 1024), masks_of(8, 1024), masks_of(16, 1024)):
        made = plan.make(recipe, size, size, masks=masks)
        assert needed(recipe, made, masks, made.levels[0].cut) <= made.budget
        found.append(
            needed(recipe, dataclasses.replace(made, levels=(Level(size, 1, "adam", 1),)), masks)
        )
    assert found == sorted(found)
    # On the finest layer's grid, and on all of them 1.33 times that, each region is a float a pixel.
    assert found[3] - found[2] > 8 * 1.33 * 4 * 1024**2


def test_masks_are_in_the_way_of_what_would_fit() -> None:
    recipe = Recipe(size=4096, memory="1200MiB", precision="float32", device="cpu", levels=(1,))
    masks = masks_of(16, 4096)
    with pytest.raises(InputError, match=r"too little for 4096x4096 px; --size \d+ would fit") as told:
        plan.make(recipe, (4096, 4096), (4096, 4096), masks=masks)
    side = int(str(told.value).split("--size ")[1].split()[0])
    fits = dataclasses.replace(recipe, size=side)
    plan.make(fits, (side, side), (side, side), masks=masks_of(16, side))


@pytest.mark.parametrize("names", [("gram",), tuple(STYLE_LOSSES)])
@pytest.mark.parametrize("regions", [0, 1, 16])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_where_nothing_is_counted_counting_would_agree(
    names: tuple[str, ...], regions: int, precision: str
) -> None:
    fields: dict[str, Any] = {"style_loss": names, "precision": precision, "mask_spread": "all"}
    recipe = Recipe(device="cpu", memory="999GiB", levels=(1,), **fields)
    made = plan.make(recipe, (512, 512), (512, 512))
    assert made.ample
    costs = Costs(recipe, made.precision, made.by_winograd, looks(recipe, True, True), regions)
    for side in (64, 512, 3000):
        size, masks = (side, side), masks_of(regions, side) if regions else NO_MASKS
        level = dataclasses.replace(made.levels[0], size=size)
        room = plan._Room(0, costs, [size] * 2, [size], masks, size, last=True, ranks=1)
        assert not room._replace(budget=room.needed(level, WHOLE)).is_ample(level)


def test_memory_is_kept_where_there_is_twice_what_is_needed_and_given_back_where_there_is_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size, recipe = (1500, 1500), Recipe(size=1500, precision="float32", device="cpu", levels=(1,))
    needed = plan.forecast(recipe, plan.make(recipe, size, size), size, size).memory
    for times, ample in ((1.1, False), (1.9, False), (2.1, True)):
        told = dataclasses.replace(recipe, memory=f"{int(times * needed) >> 10}K")
        assert plan.make(told, size, size).ample == ample
        plenty = plan.make(dataclasses.replace(recipe, memory="999GiB"), size, size)
        assert plan.again(told, plenty, size, size).ample == ample, "as much as there is now"
        # An estimate that is just high enough decides nothing by itself.
        level = plenty.levels[0]
        with monkeypatch.context() as there:
            there.setattr(plan, "_PLENTY_FIXED", 0)
            there.setattr(plan, "_PLENTY", (needed - cost.BASE) / math.prod(size) - 24 * level.held)
            assert plan.make(told, size, size).ample == ample


def test_what_an_optimiser_makes_between_evaluations_is_counted() -> None:
    recipe = Recipe(size=4096, precision="float32", device="cpu", levels=(1,))
    size, cut = (4096, 4096), Cut((64, 64), 1, on_disk=True)
    costs = Costs(recipe, torch.float32, False, looks(recipe, True, True))
    found = costs.memory(size, 6, 4, cut, [], [(64, 64)], last=True)
    fixed = costs.fixed(costs.windows(size, cut))
    assert found - fixed >= (6 + 4) * costs.picture(size)
    # Adam and NAdam hold as much, and NAdam makes one picture more.
    plans = (
        Plan((Level(size, 9, name, 1, cut),), torch.device("cpu"), torch.float32, False)
        for name in ("adam", "nadam")
    )
    adam, nadam = (plan.forecast(recipe, one, size, (64, 64)).memory for one in plans)
    assert nadam - adam == costs.picture(size)


def test_the_forecast_counts_regions() -> None:
    recipe = Recipe(size=128, iterations=4, precision="float32", device="cpu")
    size, found = (128, 128), []
    for masks in (NO_MASKS, masks_of(8, 128)):
        made = plan.make(recipe, size, size, masks=masks)
        found.append(plan.forecast(recipe, made, size, size, masks=masks).memory)
    assert found[1] > found[0] + (100 << 20), "eight regions have eight Gram matrices of every layer"


@pytest.mark.parametrize("options", [{}, {"denoise": 0.1}, {"color": "content"}])
def test_snapshots_are_in_the_plan(options: dict[str, Any]) -> None:
    recipe = Recipe(size=4096, precision="float32", device="cpu", levels=(1,), **options)
    size, cut = (4096, 4096), Cut((256, 256), 1, on_disk=True)
    costs = Costs(recipe, torch.float32, False, looks(recipe, True, True))
    never, often = (
        costs.memory(size, 6, 1, cut, [size] * 2, [size], last=True, snapshots=saved)
        for saved in (None, size)
    )
    pictures = (often - never) / costs.picture(size)
    assert 0 < pictures < FINISHING + 1
    assert (pictures > 2) == bool(options)
