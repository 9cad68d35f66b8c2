"""A run tells its story in order, from every start, for whatever pictures there are."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto import color, devices, losses, schedule, transfer
from impasto.cost import FINISHING
from impasto.errors import InputError
from impasto.events import Event, Finished, Started, Step
from impasto.memory import Count
from impasto.objective import Regions
from impasto.optimize import OPTIMIZERS
from impasto.plan import make
from impasto.recipe import Recipe
from impasto.tiles import Cut
from impasto.transfer import Pictures, plan_for, run
from impasto.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread", "tiny_network")

INITS = ("content", "noise", "style", "gray")


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


PHOTO, PAINTING, OTHER = random_picture(48, 64, 1), random_picture(40, 30, 2), random_picture(33, 50, 3)


def tell(pictures: Pictures, **options: Any) -> list[Event]:
    """Return all events of a run at 48 px, or as the options say."""
    recipe = Recipe(**{"size": 48, "iterations": 2, "precision": "float32", **options})
    return list(transfer.run(recipe, pictures, transfer.plan_for(recipe, pictures)))


def start_and_end(pictures: Pictures, **options: Any) -> tuple[Tensor, Finished]:
    """Return the picture of step 0 and the last event."""
    _, first, *_, last = tell(pictures, **options)
    assert isinstance(first, Step)
    assert isinstance(last, Finished)
    return first.picture, last


# --- the story ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_events_come_in_order(optimizer: str, iterations: int) -> None:
    started, *steps, finished = tell(
        Pictures(PHOTO, (PAINTING,)), optimizer=optimizer, iterations=iterations
    )
    assert isinstance(started, Started)
    assert (started.width, started.height, started.iterations) == (48, 36, iterations)
    assert (started.device, started.precision) == (str(devices.choose_device("auto")), "float32")
    assert all(isinstance(step, Step) for step in steps)
    assert [step.iteration for step in steps] == list(range(iterations + 1))  # type: ignore[union-attr]
    assert isinstance(finished, Finished)
    assert finished.iterations == iterations
    last = steps[-1]
    assert isinstance(last, Step)
    assert finished.evaluations == last.evaluations
    assert torch.equal(finished.picture, last.best)
    assert finished.evaluate(last.picture) == last.losses
    assert tuple(finished.picture.shape) == (3, 36, 48)


def test_what_is_to_be_known_of_the_weights_is_said(
    tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    noted = replace(tiny_weights, notes=("unverified",))
    monkeypatch.setattr("impasto.weights.load", lambda *_: noted)
    started, *_ = tell(Pictures(PHOTO, (PAINTING,)))
    assert isinstance(started, Started)
    assert started.notes == ("unverified",)


def test_a_run_goes_on_from_any_state_as_if_it_had_not_stopped() -> None:
    recipe = Recipe(size=40, iterations=5, precision="float32", init="noise")
    pictures = Pictures(PHOTO, (PAINTING,))
    plan = transfer.plan_for(recipe, pictures)
    state = None
    for finished in transfer.run(recipe, pictures, plan):
        if isinstance(finished, Step) and finished.iteration == 3:
            state = finished.state()
    started, *rest, ended = transfer.run(recipe, pictures, plan, state)
    assert isinstance(started, Started)
    assert isinstance(ended, Finished)
    assert isinstance(finished, Finished)
    assert [step.iteration for step in rest] == [4, 5]  # type: ignore[union-attr]
    assert torch.equal(ended.picture, finished.picture)
    assert ended.evaluations == finished.evaluations


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("init", INITS)
def test_the_same_recipe_gives_the_same_bytes(precision: str, init: str) -> None:
    pictures = Pictures(PHOTO, (PAINTING, OTHER))
    ends = [start_and_end(pictures, precision=precision, init=init, seed=5)[1] for _ in range(2)]
    assert torch.equal(ends[0].picture, ends[1].picture)


def test_inputs_are_left_alone() -> None:
    kept = [picture.clone() for picture in (PHOTO, PAINTING)]
    tell(Pictures(PHOTO, (PAINTING,)))
    assert torch.equal(PHOTO, kept[0])
    assert torch.equal(PAINTING, kept[1])


@pytest.mark.parametrize("size", [16, 33, 64, 80])
def test_pictures_of_any_size_become_less_like_their_start(size: int) -> None:
    pictures = Pictures(random_picture(60, 60), (random_picture(50, 50, 2),))
    _, first, *_, last = tell(pictures, size=size, iterations=5)
    assert isinstance(first, Step)
    assert isinstance(last, Finished)
    assert tuple(last.picture.shape) == (3, size, size)
    assert last.evaluate(last.picture).total < 0.9 * first.losses.total


# --- starts -------------------------------------------------------------------------------------


def test_each_start_is_what_it_is_called() -> None:
    pictures = Pictures(PHOTO, (PAINTING,))
    starts = {init: start_and_end(pictures, init=init, iterations=0)[0] for init in INITS}
    assert torch.equal(starts["content"], schedule.resize(PHOTO, (36, 48)))
    assert torch.equal(starts["style"], schedule.cover(PAINTING, (36, 48)))
    assert torch.equal(starts["gray"], torch.full((3, 36, 48), 0.5))
    noise = starts["noise"]
    assert 0.45 < noise.mean().item() < 0.55
    assert noise.std().item() == pytest.approx(12**-0.5, rel=0.05)
    assert {tuple(start.shape) for start in starts.values()} == {(3, 36, 48)}


def test_a_start_of_the_right_size_comes_back_bit_for_bit_after_no_iterations() -> None:
    photo = random_picture(36, 48, 9)
    _, last = start_and_end(Pictures(photo, (PAINTING,)), iterations=0)
    assert torch.equal(last.picture, photo)
    given = random_picture(36, 48, 10)
    _, last = start_and_end(Pictures(photo, (PAINTING,), start=given), iterations=0)
    assert torch.equal(last.picture, given)


def test_noise_is_white_noise_of_the_seed() -> None:
    pictures = Pictures(PHOTO, (PAINTING,))
    one, same, other = (
        start_and_end(pictures, init="noise", iterations=0, seed=seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_start_picture_is_brought_to_size_whatever_init_says() -> None:
    given = random_picture(100, 90, 4)
    for init in (*INITS, "start.png"):
        start, _ = start_and_end(Pictures(PHOTO, (PAINTING,), start=given), init=init)
        assert (start - schedule.resize(given, (36, 48)).clamp(1 / 512, 1 - 1 / 512)).abs().max() < 1e-5


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_from_every_start_the_loss_falls(init: str, optimizer: str) -> None:
    _, first, *_, last = tell(
        Pictures(PHOTO, (PAINTING,)), init=init, optimizer=optimizer, iterations=4, learning_rate=0.05
    )
    assert isinstance(first, Step)
    assert isinstance(last, Finished)
    assert last.evaluate(last.picture).total < first.losses.total


# --- textures and reconstructions ---------------------------------------------------------------


@pytest.mark.parametrize("init", [init for init in INITS if init != "content"])
def test_a_texture_has_the_styles_aspect_and_no_content_loss(init: str) -> None:
    _, first, *_, last = tell(Pictures(styles=(PAINTING,)), init=init, iterations=3)
    assert isinstance(first, Step)
    assert isinstance(last, Finished)
    assert tuple(last.picture.shape) == (3, 48, 36)
    assert (first.losses.content, first.losses.content_layers) == (0, {})
    if init != "style":  # which has the style's Gram matrices already
        assert last.evaluate(last.picture).style < first.losses.style


def test_a_texture_can_have_any_size() -> None:
    _, last = start_and_end(Pictures(styles=(PAINTING,)), init="noise", size="50x20")
    assert tuple(last.picture.shape) == (3, 20, 50)


@pytest.mark.parametrize(
    ("pictures", "init"),
    [
        (Pictures(styles=(PAINTING,)), "content"),
        (Pictures(PHOTO), "style"),
        (Pictures(PHOTO, (PAINTING,)), "a-file-that-nobody-read.png"),
    ],
)
def test_a_start_that_is_not_there_is_refused(pictures: Pictures, init: str) -> None:
    with pytest.raises(InputError, match=f"--init {init}: this run has no such picture"):
        tell(pictures, init=init)


@pytest.mark.parametrize("init", [init for init in INITS if init != "style"])
def test_a_reconstruction_has_no_style_loss_and_approaches_the_content(init: str) -> None:
    _, first, *_, last = tell(Pictures(PHOTO), init=init, alpha=1.0, iterations=4)
    assert isinstance(first, Step)
    assert isinstance(last, Finished)
    assert (first.losses.style, first.losses.style_layers) == (0, {})
    if init != "content":  # which is the target
        assert last.evaluate(last.picture).content < first.losses.content


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(InputError, match="give a content or a style"):
        tell(Pictures())


# --- the call in one line -----------------------------------------------------------------------


def test_picture_is_the_picture_a_run_ends_with() -> None:
    options: dict[str, Any] = {"size": 40, "iterations": 3, "seed": 3, "init": "noise", "pooling": "max"}
    found = transfer.picture(PHOTO, PAINTING, OTHER, style_weights=(1, 3), **options)
    recipe = Recipe(style_weights=(1, 3), **options)
    pictures = Pictures(PHOTO, (PAINTING, OTHER))
    *_, last = transfer.run(recipe, pictures, transfer.plan_for(recipe, pictures))
    assert isinstance(last, Finished)
    assert torch.equal(found, last.picture)
    assert transfer.picture(None, PAINTING, **options).shape == (3, 40, 30)
    assert transfer.picture(PHOTO, **options).shape == (3, 30, 40)


def test_every_optimizer_pooling_padding_and_weighting_makes_a_picture() -> None:
    for optimizer, pooling, padding, weighting in itertools.product(
        OPTIMIZERS,
        ("average", "max", "l2"),
        ("zeros", "replicate", "reflect", "circular"),
        ("balanced", "report"),
    ):
        found = transfer.picture(
            PHOTO,
            PAINTING,
            size=44,
            iterations=1,
            optimizer=optimizer,
            pooling=pooling,
            padding=padding,
            weighting=weighting,
        )
        assert found.shape == (3, 33, 44)
        assert found.isfinite().all()
        assert 0 <= found.min() <= found.max() <= 1


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pictures", "options", "message"),
    [
        (
            Pictures(torch.rand(3, 10, 2010), (PAINTING,)),
            {"size": 4020},
            "picture is .*thinner than 200:1",
        ),
        (Pictures(torch.rand(3, 10, 2010), (PAINTING,)), {}, "is 48x1 px: .*at least 16 px"),
        (Pictures(torch.rand(3, 100, 10), (PAINTING,)), {}, "at least 16 px"),
        (Pictures(PHOTO, (torch.rand(3, 10, 2010),)), {}, "a style is 48x1 px: .*at least 16 px"),
        (Pictures(PHOTO, (torch.rand(3, 100, 20),)), {}, "a style is .*at least 16 px"),
        (Pictures(PHOTO, (PAINTING, torch.rand(3, 20, 100))), {}, "a style is .*at least 16 px"),
        (Pictures(PHOTO, (PAINTING,)), {"size": 20}, "is 20x15"),
        (Pictures(PHOTO, (PAINTING,)), {"size": "48x48"}, "give the long side alone"),
        (Pictures(styles=(PAINTING,)), {"size": "16x4000"}, "thinner than 200:1"),
        (Pictures(PHOTO, (PAINTING,)), {"size": 41, "padding": "reflect"}, "at least 32 px"),
        (Pictures(PHOTO, (torch.rand(3, 48, 30),)), {"padding": "reflect"}, "style .*at least 32 px"),
        (Pictures(PHOTO, (PAINTING,)), {"style_weights": (1, 2)}, "2 weights for 1 style picture;"),
    ],
)
def test_pictures_that_the_network_cannot_take_are_refused_in_one_line(
    pictures: Pictures, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tell(pictures, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "circular", "reflect"])
def test_the_smallest_picture_that_is_allowed_works(padding: str) -> None:
    side = 32 if padding == "reflect" else 16
    for small in (torch.rand(3, side, side + 5), torch.rand(3, side + 5, side)):
        found = transfer.picture(small, small.flip(1), size=side + 5, iterations=1, padding=padding)
        assert found.shape == small.shape


def test_reflection_asks_no_more_than_the_deepest_layer_in_use_needs() -> None:
    shallow: dict[str, Any] = {"content_layers": ("conv2_2",), "style_layers": ("conv1_1", "conv3_1")}
    photo = random_picture(16, 20)
    found = transfer.picture(photo, photo.flip(2), size=20, iterations=1, padding="reflect", **shallow)
    assert found.shape == photo.shape


# --- the plan -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"fpu", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16", "avx2"}, torch.bfloat16),
        ({"avx512f", "avx2", "amx_tile"}, torch.float32),
        (set(), torch.float32),
    ],
)
def test_the_processors_instructions_decide_the_precision(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "_cpu_flags", lambda: flags)
    plan = make(Recipe(device="cpu"), (48, 64), None)
    assert (plan.device, plan.precision) == (torch.device("cpu"), expected)
    for name, dtype in devices.DTYPES.items():
        assert make(Recipe(device="cpu", precision=name), (48, 64), None).precision == dtype  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_device_is_the_best_there_is(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 * cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.choose_device("auto").type == expected
    assert devices.choose_device("cpu").type == "cpu"
    for name, there in {"cuda": cuda, "cuda:1": cuda, "cuda:2": False, "mps": mps}.items():
        if there:
            assert devices.choose_device(name) == torch.device(name)
        else:
            with pytest.raises(InputError, match=f"no device {name}"):
                devices.choose_device(name)


def test_mps_computes_in_float32_and_refuses_float64() -> None:
    mps = torch.device("mps")
    assert devices.choose_precision("auto", mps) == torch.float32
    with pytest.raises(InputError, match="mps has no float64"):
        devices.choose_precision("float64", mps)


@pytest.mark.parametrize("has", [True, False])
def test_cuda_uses_bf16_where_it_is_not_emulated(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda *, including_emulation: has and not including_emulation
    )
    found = devices.choose_precision("auto", torch.device("cuda"))
    assert found == (torch.bfloat16 if has else torch.float32)


def test_the_plan_has_the_contents_aspect_else_the_styles() -> None:
    recipe = Recipe(size=100)
    assert make(recipe, (48, 64), (30, 90)).size == (75, 100)
    assert make(recipe, None, (30, 90)).size == (33, 100)
    assert make(Recipe(size="90x30"), None, (48, 64)).size == (30, 90)


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_the_picture_is_never_in_less_than_float32(precision: str) -> None:
    start, last = start_and_end(Pictures(PHOTO, (PAINTING,)), precision=precision)
    expected = torch.float64 if precision == "float64" else torch.float32
    assert start.dtype == last.picture.dtype == expected


# --- levels -------------------------------------------------------------------------------------

LEVELS: dict[str, Any] = {"levels": (24, 32), "iterations": 7}


def test_levels_are_one_story_from_coarse_to_fine() -> None:
    started, *steps, finished = tell(Pictures(PHOTO, (PAINTING,)), **LEVELS)
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert [level.split()[0] for level in started.levels] == ["24x18", "32x24", "48x36"]
    told = [step for step in steps if isinstance(step, Step)]
    assert [step.iteration for step in told] == list(range(8))
    assert [step.level for step in told] == sorted(step.level for step in told)
    sides = {step.level: max(step.picture.shape) for step in told}
    assert sides == {0: 24, 1: 32, 2: 48}
    evaluations = [step.evaluations for step in told]
    assert evaluations == sorted(evaluations)
    assert finished.iterations == 7
    assert finished.evaluations >= evaluations[-1]
    assert tuple(finished.picture.shape) == (3, 36, 48)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_from_any_level_bit_for_bit(optimizer: str) -> None:
    recipe = Recipe(size=48, precision="float32", optimizer=optimizer, **LEVELS)
    pictures = Pictures(PHOTO, (PAINTING,))
    plan = transfer.plan_for(recipe, pictures)
    whole: list[Step] = []
    states = []
    for event in transfer.run(recipe, pictures, plan):
        if isinstance(event, Step):
            whole.append(event)
            states.append(event.state())
        elif isinstance(event, Finished):
            end = event.picture
    for index in (1, 4, 6):
        rest = list(transfer.run(recipe, pictures, plan, states[index]))
        steps = [event for event in rest if isinstance(event, Step)]
        assert [step.iteration for step in steps] == [step.iteration for step in whole[index + 1 :]]
        for step, before in zip(steps, whole[index + 1 :], strict=True):
            assert step.losses == before.losses
            assert torch.equal(step.picture, before.picture)
        last = rest[-1]
        assert isinstance(last, Finished)
        assert torch.equal(last.picture, end)


def test_a_level_begins_where_the_one_before_it_ended() -> None:
    steps = [
        event
        for event in tell(
            Pictures(PHOTO, (PAINTING,)),
            levels=(24,),
            iterations=6,
            learning_rate=1e-6,
            optimizer="adam",
            alpha=0,
        )
        if isinstance(event, Step)
    ]
    coarse = next(step for step in reversed(steps) if step.level == 0)
    fine = next(step for step in steps if step.level == 1)
    # Without --alpha nothing of the photograph may come in.
    enlarged = schedule.resize(coarse.best, (36, 48))
    assert (fine.picture - enlarged).abs().max() < 1e-4


def test_tiles_and_a_disk_change_nothing_but_rounding() -> None:
    recipe = Recipe(size=48, iterations=3, precision="float64")
    pictures = Pictures(PHOTO, (PAINTING, OTHER))
    plan = transfer.plan_for(recipe, pictures)
    found = []
    for cut in (Cut(), Cut((16, 32), 2), Cut((16, 16), 1, on_disk=True)):
        levels = tuple(replace(level, cut=cut) for level in plan.levels)
        *_, last = transfer.run(recipe, pictures, replace(plan, levels=levels))
        assert isinstance(last, Finished)
        found.append(last.picture)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("init", ["content", "noise"])
def test_the_photographs_detail_comes_in_only_where_the_run_began_with_it(
    init: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    enlarge = schedule.enlarge

    def watched(
        picture: Tensor, size: tuple[int, int], content: Tensor | None = None, wrap: bool = False
    ) -> Tensor:
        given.append(content is not None)
        return enlarge(picture, size, content, wrap)

    monkeypatch.setattr(schedule, "enlarge", watched)
    tell(Pictures(PHOTO, (PAINTING,)), init=init, levels=(24,))
    tell(Pictures(PHOTO), init=init, levels=(24,))
    assert given == [init == "content", False]


def test_a_step_that_is_kept_keeps_no_optimiser() -> None:
    steps = [event for event in tell(Pictures(PHOTO, (PAINTING,)), **LEVELS) if isinstance(event, Step)]
    for step in steps:
        with pytest.raises(RuntimeError, match="the run has moved on"):
            step.state()


# --- colours, seams, calm -----------------------------------------------------------------------


def finished(pictures: Pictures, **options: Any) -> Tensor:
    *_, last = tell(pictures, **options)
    assert isinstance(last, Finished)
    return last.picture


@pytest.mark.parametrize("method", ["auto", "lab", "luminance"])
def test_the_photographs_colours_are_put_back(method: str) -> None:
    grey = color.luminance(PHOTO)
    found = finished(Pictures(grey, (PAINTING,)), color="content", color_method=method)
    assert (found.amax(0) - found.amin(0)).max() < 0.01
    assert (found - finished(Pictures(grey, (PAINTING,)))).abs().max() > 0.05


def test_no_strength_leaves_the_colours_alone() -> None:
    plain = finished(Pictures(PHOTO, (PAINTING,)))
    for kind in ("content", "match"):
        found = finished(Pictures(PHOTO, (PAINTING,)), color=kind, color_strength=0)
        assert torch.equal(found, plain)


@pytest.mark.parametrize("method", ["auto", "monge", "pca", "cholesky", "histogram"])
def test_a_painting_is_matched_to_the_photograph_before_it_is_looked_at(method: str) -> None:
    matched = color.match(PAINTING, PHOTO, "monge" if method == "auto" else method, 0.7)
    found = finished(
        Pictures(PHOTO, (PAINTING,)), color="match", color_method=method, color_strength=0.7
    )
    assert torch.equal(found, finished(Pictures(PHOTO, (matched,))))
    assert not torch.equal(found, finished(Pictures(PHOTO, (PAINTING,))))


@pytest.mark.parametrize("kind", ["content", "match"])
def test_a_texture_has_no_photograph_to_take_colours_from(kind: str) -> None:
    with pytest.raises(InputError, match=f"--color {kind}: this run has no photograph"):
        tell(Pictures(None, (PAINTING,)), color=kind, init="noise")


def test_noise_is_taken_out_of_the_finished_picture() -> None:
    rough = finished(Pictures(PHOTO, (PAINTING,)))
    smooth = finished(Pictures(PHOTO, (PAINTING,)), denoise=0.1)
    assert losses.total_variation(smooth) < 0.7 * losses.total_variation(rough)


def test_the_mean_of_the_iterates_is_returned() -> None:
    events = tell(Pictures(PHOTO, (PAINTING,)), average=0.5, iterations=3, levels=(1,))
    pictures = [event.picture for event in events if isinstance(event, Step)]
    expected = (pictures[1] + 2 * pictures[2] + 4 * pictures[3]) / 7
    last = events[-1]
    assert isinstance(last, Finished)
    torch.testing.assert_close(last.picture, expected, rtol=0, atol=1e-6)


def test_the_mean_goes_on_where_a_run_was_left() -> None:
    options: dict[str, Any] = {"average": 0.8, "iterations": 6, "levels": (1,)}
    recipe, pictures = Recipe(size=32, precision="float32", **options), Pictures(PHOTO, (PAINTING,))
    plan = plan_for(recipe, pictures)
    state = None
    for event in run(recipe, pictures, plan):
        if isinstance(event, Step) and event.iteration == 3:
            state = event.state()
    *_, whole = run(recipe, pictures, plan)
    *_, continued = run(recipe, pictures, plan, state)
    assert isinstance(whole, Finished)
    assert isinstance(continued, Finished)
    assert torch.equal(whole.picture, continued.picture)


def test_a_tileable_picture_has_no_seam_where_it_meets_itself() -> None:
    options: dict[str, Any] = {"init": "noise", "iterations": 12, "size": "50x40", "levels": (24,)}
    found = finished(Pictures(None, (PAINTING,)), tileable=True, denoise=0.02, **options)
    assert found.shape == (3, 48, 64)
    twice = found.tile(1, 2, 2)
    seams = [twice.diff(dim=1)[:, 47].abs().mean(), twice.diff(dim=2)[:, :, 63].abs().mean()]
    inside = [found.diff(dim=1).abs().mean(), found.diff(dim=2).abs().mean()]
    for seam, usual in zip(seams, inside, strict=True):
        assert seam < 1.6 * usual


def test_a_smaller_style_is_another_target() -> None:
    one, half = (finished(Pictures(PHOTO, (PAINTING,)), style_scale=(scale,)) for scale in (1, 0.5))
    assert (one - half).abs().max() > 0.02
    both = finished(Pictures(PHOTO, (PAINTING, PAINTING)), style_scale=(1, 0.5))
    assert (both - one).abs().max() > 0.01


# --- what stays, and what is painted by what ----------------------------------------------------


def left_half(height: int = 24, width: int = 32) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, :, : width // 2] = 1
    return mask


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("init", ["content", "noise"])
def test_pixels_that_are_kept_are_the_photographs_to_the_last_bit(optimizer: str, init: str) -> None:
    small = schedule.resize(PHOTO, (24, 32))
    options: dict[str, Any] = {"optimizer": optimizer, "init": init, "color": "content", "denoise": 0.05}
    options["size"] = 32
    found = finished(Pictures(small, (PAINTING,), keep=left_half()), **options)
    assert torch.equal(found[:, :, :16], small[:, :, :16])
    assert (found[:, :, 16:] - small[:, :, 16:]).abs().max() > 0.02


def test_the_painting_is_laid_over_the_photograph_as_strongly_as_the_map_says() -> None:
    small = schedule.resize(PHOTO, (24, 32))
    plain = finished(Pictures(small, (PAINTING,)), size=32)
    found = finished(Pictures(small, (PAINTING,), strength=0.25 * left_half()), size=32)
    torch.testing.assert_close(found[:, :, :16], (0.75 * small + 0.25 * plain)[:, :, :16])
    assert torch.equal(found[:, :, 16:], small[:, :, 16:])


@pytest.mark.parametrize("method", ["lab", "luminance"])
@pytest.mark.parametrize("size", [(48, 64), (24, 32)])
def test_a_picture_is_finished_in_the_memory_that_the_plan_reckons_with(
    monkeypatch: pytest.MonkeyPatch, method: str, size: tuple[int, int]
) -> None:
    for name, less in (("_STRIP", 100), ("_SIDE", 16), ("_STEPS", 2)):  # no larger than a large one's
        monkeypatch.setattr(color, name, less)
    content, mask = schedule.resize(PHOTO, size), torch.full((1, *size), 0.7)
    options: dict[str, Any] = {"color": "content", "color_method": method, "denoise": 0.1}
    recipe = Recipe(size=64, iterations=1, **options)
    pictures = Pictures(content, (PAINTING,), keep=mask, strength=mask)
    started, *_ = run(recipe, pictures, plan_for(recipe, pictures))
    assert isinstance(started, Started)
    before = random_picture(48, 64, 7)
    with Count() as count:
        started.finish(before)
    made = count.peak / before.nbytes - 1  # the picture itself is seen, and not made
    assert FINISHING - 2 <= made <= FINISHING


def test_regions_are_painted_by_their_styles_on_every_level() -> None:
    regions = Regions(torch.cat([left_half(48, 64), 1 - left_half(48, 64)]))
    options: dict[str, Any] = {"levels": (24,), "iterations": 6, "style_layers": ("conv1_1",)}
    one = finished(Pictures(PHOTO, (PAINTING, OTHER), regions=regions), **options)
    swapped = finished(Pictures(PHOTO, (OTHER, PAINTING), regions=regions), **options)
    assert (one - swapped).abs().max() > 0.01


@pytest.mark.parametrize(
    ("pictures", "options", "message"),
    [
        (
            Pictures(PHOTO, (PAINTING,), regions=Regions(torch.ones(2, 48, 64))),
            {},
            "2 regions for 1 styles",
        ),
        (
            Pictures(PHOTO, (PAINTING,), regions=Regions(torch.ones(2, 48, 64), torch.ones(1, 40, 30))),
            {},
            "region 2 of the content has no style",
        ),
        (
            Pictures(
                PHOTO, (PAINTING, OTHER), regions=Regions(torch.ones(1, 48, 64), torch.ones(1, 40, 30))
            ),
            {},
            "for one STYLE",
        ),
        (Pictures(PHOTO, (PAINTING,), regions=Regions(torch.ones(1, 64, 48))), {}, "aspects may"),
        (Pictures(PHOTO, (PAINTING,), regions=Regions(torch.zeros(1, 48, 64))), {}, "is empty"),
        (
            Pictures(PHOTO, (PAINTING, OTHER), regions=Regions(torch.ones(2, 48, 64))),
            {"style_weights": (1, 2)},
            "use one of them",
        ),
        (
            Pictures(None, (PAINTING,), keep=torch.ones(1, 40, 30)),
            {"init": "noise"},
            "this run has none",
        ),
        (Pictures(PHOTO, (PAINTING,), keep=torch.ones(1, 10, 64)), {}, "--keep is 64x10"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    pictures: Pictures, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tell(pictures, **options)


@pytest.mark.parametrize("field", ["keep", "strength"])
def test_masks_are_checked_before_the_work_begins(field: str) -> None:
    pictures = Pictures(PHOTO, (PAINTING,), **{field: torch.ones(1, 64, 48)})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="aspects may"):
        plan_for(Recipe(size=32), pictures)


def test_a_mask_over_its_photograph_fits_whatever_the_grid_makes_of_the_sides() -> None:
    photo = random_picture(33, 50)
    options: dict[str, Any] = {"tileable": True, "size": 48, "levels": (32,)}
    found = finished(Pictures(photo, (PAINTING,), keep=torch.ones(1, 33, 50)), **options)
    assert found.shape == (3, 32, 48)
    torch.testing.assert_close(found, schedule.resize(photo, (32, 48)))


def test_a_state_serves_twice_where_the_mean_is_taken() -> None:
    recipe = Recipe(size=32, precision="float32", iterations=5, average=0.7, levels=(1,))
    pictures = Pictures(PHOTO, (PAINTING,))
    plan = plan_for(recipe, pictures)
    (state,) = [
        event.state()
        for event in run(recipe, pictures, plan)
        if isinstance(event, Step) and event.iteration == 2
    ]
    ends = [list(run(recipe, pictures, plan, state))[-1] for _ in range(2)]
    assert torch.equal(ends[0].picture, ends[1].picture)  # type: ignore[union-attr]


def test_styles_may_be_mixed_to_their_barycentre() -> None:
    options: dict[str, Any] = {"style_loss": ("wasserstein",), "iterations": 4}
    pictures = Pictures(PHOTO, (PAINTING, OTHER))
    mixture = finished(pictures, **options)
    between = finished(pictures, style_mix="barycenter", **options)
    assert (mixture - between).abs().max() > 1e-3
