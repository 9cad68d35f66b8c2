"""A descent lowers the loss, stays in the box, repeats itself, goes on from a state, and ends well."""

import io
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto import catalog
from impasto.errors import InputError, RunError
from impasto.events import Losses, Step
from impasto.objective import Evaluation, Objective
from impasto.optimize import LBFGS, OPTIMIZERS, Evaluate, Outcome, descend
from impasto.recipe import Recipe
from impasto.vgg import VGG19
from impasto.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
LINE_SEARCHES = ("lbfgs", "multistart")
"""They try several lengths of a step; the others take one, of the learning rate."""
SEARCHES = tuple(name for name, method in OPTIMIZERS.items() if method.refine)
"""They climb at times, to descend elsewhere."""
GENTLE = dict.fromkeys(("nadam", "sgd", "langevin"), 0.005)
"""Rates of those whose first steps from white noise, through the tiny network, are too long at 0.02."""
PRECISIONS = (torch.float32, torch.float64, torch.bfloat16)
every_precision = pytest.mark.parametrize("precision", PRECISIONS, ids=str)


def random_picture(height: int = 33, width: int = 37, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, height, width, generator=generator)


def evaluation(total: float, gradient: Tensor) -> Evaluation:
    return Evaluation(Losses(total, 0.0, 0.0, 0.0, {}, {}), gradient)


def bowl(target: Tensor, scale: float = 1.0, floor: float = 0.0) -> Evaluate:
    """Return a quadratic, a hundred times steeper in some pixels than in others."""
    steepness = torch.logspace(-1, 1, target.numel(), dtype=target.dtype).reshape(target.shape)

    def evaluate(picture: Tensor) -> Evaluation:
        away = picture - target
        total = floor + (steepness * away.square()).double().mean().item()
        return evaluation(scale * total, scale * 2 * steepness * away / away.numel())

    return evaluate


def follow(descent: Generator[Step, None, Outcome]) -> tuple[list[Step], Outcome]:
    """Return all steps of a descent, and how it ended."""
    steps = []
    while True:
        try:
            steps.append(next(descent))
        except StopIteration as end:
            return steps, end.value


def recipe(optimizer: str = "lbfgs", iterations: int = 6, **fields: Any) -> Recipe:
    return Recipe(optimizer=optimizer, iterations=iterations, **fields)  # type: ignore[arg-type]


def aim(weights: Weights, precision: torch.dtype, **fields: Any) -> tuple[Objective, Tensor]:
    """Return an objective of the tiny network, and a picture to start from."""
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    content, style, start = (
        random_picture(*size, seed=seed).to(dtype)
        for seed, size in enumerate([(33, 37), (37, 32), (33, 37)])
    )
    options = Recipe(**fields)
    network = VGG19(weights, options.pooling, options.padding, precision)
    return Objective(options, network, content, [style]), start


# --- descending ---------------------------------------------------------------------------------


def test_every_optimiser_has_a_line_of_help_and_those_that_search_are_known() -> None:
    assert list(OPTIMIZERS) == list(catalog.OPTIMIZERS)
    assert next(iter(OPTIMIZERS)) == Recipe().optimizer == "lbfgs"
    for name, method in OPTIMIZERS.items():
        assert method.refine in ("", *OPTIMIZERS)
        if name in SEARCHES:
            with pytest.raises(InputError, match="--patience needs one steady descent"):
                recipe(name, patience=3)
        else:
            recipe(name, patience=3)


@every_optimizer
@every_precision
@pytest.mark.parametrize("weighting", ["balanced", "report"])
@pytest.mark.parametrize("pooling", ["average", "max", "l2"])
def test_the_loss_falls_in_three_steps_and_pixels_stay_in_the_box(
    tiny_weights: Weights, optimizer: str, precision: torch.dtype, weighting: str, pooling: str
) -> None:
    objective, start = aim(tiny_weights, precision, weighting=weighting, pooling=pooling)
    options = recipe(optimizer, 3, learning_rate=GENTLE.get(optimizer, 0.02))
    steps, outcome = follow(descend(options, start, objective))
    assert [step.iteration for step in steps] == [0, 1, 2, 3]
    assert steps[3].losses.total < steps[0].losses.total
    for step in steps:
        assert step.picture.min() >= 0
        assert step.picture.max() <= 1
        assert step.picture.shape == start.shape
        assert step.picture.dtype == start.dtype
    assert objective.losses(outcome.best).total < objective.losses(start).total


@every_precision
def test_every_step_of_lbfgs_lowers_the_loss(tiny_weights: Weights, precision: torch.dtype) -> None:
    objective, start = aim(tiny_weights, precision)
    steps, _ = follow(descend(recipe(iterations=25), start, objective))
    totals = [step.losses.total for step in steps]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)
    assert totals[-1] < 0.5 * totals[0]


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (64, 47)])
@every_optimizer
def test_a_picture_of_any_size_descends(
    tiny_weights: Weights, size: tuple[int, int], optimizer: str
) -> None:
    options = recipe(optimizer, 8)
    content, style = random_picture(*size, seed=1), random_picture(48, 40, seed=2)
    objective = Objective(options, VGG19(tiny_weights), content, [style])
    steps, _ = follow(descend(options, content, objective))
    assert steps[-1].losses.total < 0.9 * steps[0].losses.total


@every_optimizer
@pytest.mark.parametrize("target", [-0.5, 0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("rate", [0.02, 0.7])
def test_pixels_stay_in_the_box_wherever_the_loss_wants_them(
    optimizer: str, target: float, rate: float
) -> None:
    start = random_picture(5, 6).round()  # every pixel at a wall
    inner = bowl(torch.full_like(start, target))

    def evaluate(picture: Tensor) -> Evaluation:
        assert picture.isfinite().all(), "a step was endless"
        return inner(picture)

    steps, outcome = follow(descend(recipe(optimizer, 100, learning_rate=rate), start, evaluate))
    for step in steps:
        assert step.picture.min() >= 0
        assert step.picture.max() <= 1
    assert outcome.best.min() >= 0
    assert outcome.best.max() <= 1
    floor = evaluate(torch.full_like(start, min(max(target, 0), 1))).losses.total
    first = steps[0].losses.total - floor
    assert evaluate(outcome.best).losses.total - floor < 0.5 * first


def holding(target: Tensor) -> Evaluate:
    """Return the losses of a bowl whose upper rows are to stay."""
    inner = bowl(target)

    def evaluate(picture: Tensor) -> Evaluation:
        found = inner(picture)
        held = torch.zeros_like(picture, dtype=torch.bool)
        held[:, :3] = True
        return Evaluation(found.losses, found.gradient.masked_fill_(held, 0), held)

    return evaluate


@every_optimizer
def test_pixels_that_are_held_stay(optimizer: str) -> None:
    start, target = random_picture(6, 6).clamp(0.1, 0.9), random_picture(6, 6, seed=1)
    steps = assert_goes_on(recipe(optimizer, 12), start, holding(target))
    for step in steps:
        torch.testing.assert_close(step.picture[:, :3], start[:, :3], rtol=0, atol=1e-6)
    assert not torch.equal(steps[-1].picture[:, 3:], start[:, 3:])


@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("keeps", [False, True])
def test_what_lbfgs_descends_is_the_derivative_by_u(power: float, keeps: bool) -> None:
    start = random_picture(6, 7).double().clamp(0.1, 0.9)
    goal = random_picture(6, 7, seed=1).double()
    evaluate = holding(goal) if keeps else bowl(goal)
    lbfgs = LBFGS(recipe("lbfgs", 3, precondition=power), start, evaluate)
    u = 0.3 * (random_picture(6, 7, seed=2).double() - 0.5)
    along = random_picture(6, 7, seed=3).double() - 0.5
    held = lbfgs.held
    totals = []
    for step in (-1e-5, 1e-5):
        point = lbfgs._point(u + step * along)
        totals.append(point.losses.total)
    expected = (totals[1] - totals[0]) / 2e-5
    found = (lbfgs._point(u).gradient * along).sum().item()
    assert (held is not None) == keeps
    assert found == pytest.approx(expected, rel=1e-5)


@every_optimizer
def test_the_best_picture_is_the_lowest_seen(tiny_weights: Weights, optimizer: str) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    options = recipe(
        optimizer, 12, learning_rate=0.3
    )  # far too fast: all but line searches go up and down
    steps, outcome = follow(descend(options, start, objective))
    totals = [step.losses.total for step in steps]
    if optimizer not in LINE_SEARCHES:
        assert totals != sorted(totals, reverse=True)
    lowest = totals.index(min(totals))
    assert torch.equal(outcome.best, steps[lowest].picture)
    for index, step in enumerate(steps):
        seen = totals[: index + 1]
        assert torch.equal(step.best, steps[seen.index(min(seen))].picture)


@every_optimizer
def test_a_steps_losses_are_those_of_its_picture_and_neither_changes_later(
    tiny_weights: Weights, optimizer: str
) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    given = start.clone()
    kept = []
    for step in descend(recipe(optimizer), start, objective):
        kept.append((step, step.picture.clone(), step.best.clone()))
        assert step.losses == objective.losses(step.picture)
    assert torch.equal(start, given)
    for step, picture, best in kept:
        assert torch.equal(step.picture, picture)
        assert torch.equal(step.best, best)


@every_optimizer
@every_precision
def test_the_same_descent_gives_the_same_bytes(
    tiny_weights: Weights, optimizer: str, precision: torch.dtype
) -> None:
    runs = []
    for _ in range(2):
        objective, start = aim(tiny_weights, precision)
        runs.append(follow(descend(recipe(optimizer), start, objective)))
    (one, ended), (other, ended_too) = runs
    assert [step.losses for step in one] == [step.losses for step in other]
    assert all(torch.equal(a.picture, b.picture) for a, b in zip(one, other, strict=True))
    assert ended[:3] == ended_too[:3]
    assert torch.equal(ended.best, ended_too.best)


@every_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_iterations_return_the_start_bit_for_bit(optimizer: str, dtype: torch.dtype) -> None:
    start = random_picture(9, 9).to(dtype)
    start[0, 0, :3] = torch.tensor([0.0, 1.0, 1e-30])
    steps, outcome = follow(descend(recipe(optimizer, 0), start, bowl(torch.zeros_like(start))))
    assert [step.iteration for step in steps] == [0]
    assert torch.equal(outcome.best, start)
    assert torch.equal(steps[0].picture, start)
    assert (outcome.iterations, outcome.evaluations) == (0, 1)


# --- evaluations --------------------------------------------------------------------------------


def counted(evaluate: Evaluate) -> tuple[Evaluate, list[bytes]]:
    """Return an evaluate that remembers the bytes of every picture it was given."""
    seen: list[bytes] = []

    def remember(picture: Tensor) -> Evaluation:
        seen.append(picture.numpy().tobytes())
        return evaluate(picture)

    return remember, seen


@every_optimizer
@every_precision
@pytest.mark.parametrize("weighting", ["balanced", "report"])
def test_nothing_is_evaluated_twice(
    tiny_weights: Weights, optimizer: str, precision: torch.dtype, weighting: str
) -> None:
    objective, start = aim(tiny_weights, precision, weighting=weighting, alpha=1e-3)
    evaluate, seen = counted(objective)
    for step in descend(recipe(optimizer, 15), start, evaluate):
        assert step.evaluations == len(seen)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_evaluated_twice_where_line_searches_are_long(seed: int) -> None:
    target = random_picture(4, 5, seed=seed)

    def rugged(picture: Tensor) -> Evaluation:
        pixels = picture.double().requires_grad_()
        away = pixels - target
        total = (away.square() + 0.02 * (1 - torch.cos(40 * away))).sum()
        (gradient,) = torch.autograd.grad(total, pixels)
        return evaluation(total.item(), gradient.float())

    evaluate, seen = counted(rugged)
    steps, outcome = follow(
        descend(recipe(iterations=40), random_picture(4, 5, seed=seed + 9), evaluate)
    )
    assert outcome.evaluations == len(seen) > len(steps), "no line search was long"
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in LINE_SEARCHES])
def test_without_a_line_search_an_iteration_is_an_evaluation(
    tiny_weights: Weights, optimizer: str
) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    steps, outcome = follow(descend(recipe(optimizer, 5), start, objective))
    assert [step.evaluations for step in steps] == [1, 2, 3, 4, 5, 6]
    assert outcome.evaluations == 6


def test_lbfgs_needs_little_more_than_an_evaluation_per_iteration(tiny_weights: Weights) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    _, outcome = follow(descend(recipe(iterations=30), start, objective))
    assert outcome.iterations == 30
    assert outcome.evaluations < 1.5 * 30


# --- gradient descent, and with noise -----------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("side", [5, 40])
@pytest.mark.parametrize("rate", [0.002, 0.02])
def test_the_first_step_of_gradient_descent_moves_the_mean_pixel_by_the_rate(
    scale: float, side: int, rate: float
) -> None:
    start, target = (0.4 + 0.2 * random_picture(side, side, seed) for seed in (0, 1))
    steps, _ = follow(descend(recipe("sgd", 1, learning_rate=rate), start, bowl(target, scale)))
    move = (steps[1].picture - steps[0].picture).abs().mean().item()
    assert move == pytest.approx(rate, rel=1e-3)


def test_gradient_descent_is_slowed_down_by_the_steepest_place_so_far() -> None:
    start = torch.full((3, 4, 4), 0.5)
    slopes = iter([1.0, 10.0, 5.0, 20.0])

    def evaluate(picture: Tensor) -> Evaluation:
        return evaluation(1.0, torch.full_like(picture, next(slopes)))

    steps, _ = follow(descend(recipe("sgd", 3, learning_rate=0.01, momentum=0), start, evaluate))
    moves = [(two.picture - one.picture).mean().item() for one, two in itertools.pairwise(steps)]
    assert moves == pytest.approx([-0.01, -0.01, -0.005], rel=1e-3)


def test_momentum_repeats_a_share_of_the_last_step() -> None:
    start = torch.full((3, 4, 4), 0.5)
    options = recipe("sgd", 3, learning_rate=0.01, momentum=0.5)
    steps, _ = follow(descend(options, start, scripted([1.0] * 4)))
    moves = [(two.picture - one.picture).mean().item() for one, two in itertools.pairwise(steps)]
    assert moves == pytest.approx([-0.01, -0.015, -0.0175], rel=1e-3)


def test_the_noise_has_the_temperature_asked_for_and_ends_at_none() -> None:
    start = torch.full((3, 60, 60), 0.5)
    flat: Evaluate = lambda picture: evaluation(1.0, torch.full_like(picture, 1e-3))  # noqa: E731
    options = recipe("langevin", 4, learning_rate=0.02, temperature=1e-3, momentum=0)
    steps, _ = follow(descend(options, start, flat))
    moves = [(two.picture - one.picture).std().item() for one, two in itertools.pairwise(steps)]
    most = math.sqrt(2 * 0.02 * 1e-3)
    assert moves == pytest.approx([most * left for left in (0.75, 0.5, 0.25, 0)], rel=0.03, abs=1e-6)
    again, _ = follow(descend(options, start, flat))
    assert torch.equal(again[-1].picture, steps[-1].picture)
    other, _ = follow(descend(recipe("langevin", 4, seed=1), start, flat))
    assert not torch.equal(other[-1].picture, steps[-1].picture)


@pytest.mark.parametrize("fields", [{"temperature": 0}, {"iterations": 1}])
def test_without_noise_langevin_dynamics_are_gradient_descent(fields: dict[str, Any]) -> None:
    start, target = random_picture(6, 6), random_picture(6, 6, seed=1)
    ends = [
        follow(descend(recipe(name, **fields), start, bowl(target)))[1].best
        for name in ("langevin", "sgd")
    ]
    assert torch.equal(*ends)


# --- several starts -----------------------------------------------------------------------------


def two_valleys(picture: Tensor) -> Evaluation:
    """Return a loss by the picture's contrast: a shallow valley at 0.02, and a deep one at 0.1."""
    pixels = picture.double().requires_grad_()
    spread = pixels.std()
    valleys = -0.2 * torch.exp(-(((spread - 0.02) / 0.02) ** 2)) - torch.exp(
        -(((spread - 0.1) / 0.04) ** 2)
    )
    (gradient,) = torch.autograd.grad(valleys, pixels)
    return evaluation(2 + valleys.item(), gradient.to(picture.dtype))


def test_other_starts_reach_a_deeper_valley() -> None:
    start = 0.5 + 0.02 * (random_picture(8, 8) - 0.5)
    plain, several = (
        follow(descend(recipe(name, 40, precondition=0), start, two_valleys))[1].best
        for name in LINE_SEARCHES
    )
    assert plain.std() < 0.05
    assert several.std() == pytest.approx(0.1, abs=0.02)


def test_each_start_has_its_share_and_the_best_goes_on(tiny_weights: Weights) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    steps, _ = follow(descend(recipe("multistart", 30, starts=3), start, objective))
    totals = [step.losses.total for step in steps]
    shares = totals[1:6], totals[6:11], totals[11:16]
    for share in (*shares, totals[16:]):
        assert share == sorted(share, reverse=True)
    assert all(other[0] > share[-1] for share, other in itertools.pairwise(shares))
    assert totals[16] < min(totals[:16])


@pytest.mark.parametrize("fields", [{"starts": 1, "iterations": 9}, {"iterations": 3}])
def test_one_start_is_lbfgs(tiny_weights: Weights, fields: dict[str, Any]) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    runs = [follow(descend(recipe(name, **fields), start, objective)) for name in LINE_SEARCHES]
    assert [step.losses for step in runs[0][0]] == [step.losses for step in runs[1][0]]
    assert runs[0][1][:3] == runs[1][1][:3]


def test_starts_differ_by_their_number_and_by_the_seed(tiny_weights: Weights) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    begun = []
    for seed in (0, 1):
        evaluate, seen = counted(objective)
        list(descend(recipe("multistart", 8, seed=seed), start, evaluate))
        begun.append(set(seen))
    assert len(begun[0] - begun[1]) >= 6, "three other starts, and a step from each"


# --- going on from a state ----------------------------------------------------------------------


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as it comes back from a file that may hold nothing but tensors and scalars."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


def assert_goes_on(options: Recipe, start: Tensor, evaluate: Evaluate) -> list[Step]:
    """Assert that from every step's state the rest is the uninterrupted descent, bit for bit."""
    states = []
    descent = descend(options, start, evaluate)
    steps = []
    try:
        while True:
            steps.append(next(descent))
            states.append(stored(steps[-1].state()))
    except StopIteration as end:
        outcome: Outcome = end.value
    for index, state in enumerate(states):
        rest, ended = follow(descend(options, start, evaluate, state))
        for found, expected in zip(rest, steps[index + 1 :], strict=True):
            assert found.iteration == expected.iteration
            assert found.losses == expected.losses
            assert found.evaluations == expected.evaluations
            assert torch.equal(found.picture, expected.picture)
            assert torch.equal(found.best, expected.best)
        assert ended[:3] == outcome[:3]
        assert torch.equal(ended.best, outcome.best)
    return steps


@every_optimizer
@every_precision
def test_from_any_states_step_the_descent_goes_on_bit_for_bit(
    tiny_weights: Weights, optimizer: str, precision: torch.dtype
) -> None:
    objective, start = aim(tiny_weights, precision)
    steps = assert_goes_on(recipe(optimizer, 6, history=3, learning_rate=0.2), start, objective)
    assert len(steps) == 7


@every_optimizer
def test_it_goes_on_across_halvings_and_onto_a_plateau(optimizer: str) -> None:
    inner = bowl(torch.full((3, 4, 4), 0.55), floor=1e-4)

    def evaluate(picture: Tensor) -> Evaluation:
        # The first step is too long; where it lands depends on nothing but the picture.
        found = inner(picture)
        searches = optimizer in LINE_SEARCHES
        far = picture.mean() > (0.515 if searches else 0.64)
        # Multistart's other starts are far from uniform: they do not fall into this.
        bad = far and (not searches or (found.losses.total > 1e-3 and picture.std() < 0.05))
        return evaluation(math.nan, found.gradient) if bad else found

    # A plateau is no end for those that climb: the recipe refuses it.
    patience = 0 if optimizer in SEARCHES else 4
    # Where the loss is no painting's, a preconditioner is in the way.
    options = recipe(optimizer, 60, learning_rate=0.16, patience=patience, precondition=0)
    steps = assert_goes_on(options, torch.full((3, 4, 4), 0.5), evaluate)
    assert steps[-1].state()["halvings"] > 0
    assert (len(steps) < 61) == bool(patience), "the plateau was not noticed"


@every_optimizer
def test_a_state_is_a_copy_that_later_steps_leave_alone(tiny_weights: Weights, optimizer: str) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    descent = descend(recipe(optimizer), start, objective)
    steps = list(itertools.islice(descent, 4))
    state = steps[3].state()
    file = io.BytesIO()
    torch.save(state, file)
    list(descent)
    again = io.BytesIO()
    torch.save(state, again)
    assert again.getvalue() == file.getvalue()


@every_optimizer
def test_a_state_is_refused_once_the_descent_has_moved_on(tiny_weights: Weights, optimizer: str) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    descent = descend(recipe(optimizer), start, objective)
    first = next(descent)
    first.state()
    second = next(descent)
    with pytest.raises(RuntimeError, match="moved on"):
        first.state()
    second.state()


@every_optimizer
def test_a_continued_descent_leaves_the_state_alone(tiny_weights: Weights, optimizer: str) -> None:
    objective, start = aim(tiny_weights, torch.float32)
    state = list(itertools.islice(descend(recipe(optimizer), start, objective), 3))[2].state()
    one, two = (follow(descend(recipe(optimizer), start, objective, state)) for _ in range(2))
    assert [step.losses for step in one[0]] == [step.losses for step in two[0]]


# --- losses that are not finite -----------------------------------------------------------------

NAN, INF = math.nan, math.inf
Spoil = Callable[[Evaluation], Evaluation]


def spoil_gradient(found: Evaluation) -> Evaluation:
    gradient = found.gradient.clone()
    gradient[0, 0, 0] = NAN
    return Evaluation(found.losses, gradient)


SPOILS: dict[str, Spoil] = {
    "nan": lambda found: evaluation(NAN, found.gradient),
    "inf": lambda found: evaluation(INF, found.gradient),
    "gradient": spoil_gradient,
}
every_spoil = pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS.keys())


def spoilt(
    evaluate: Evaluate, spoil: Spoil, calls: Iterator[int] | range
) -> tuple[Evaluate, list[Tensor]]:
    """Return an evaluate that is spoilt at some pictures, counted from 0, and the pictures it saw.

    To look again at a picture that was good once is no new call.
    """
    seen: list[Tensor] = []
    good: list[Tensor] = []

    def count(picture: Tensor) -> Evaluation:
        again = any(torch.equal(picture, before) for before in good)
        bad = not again and len(seen) in calls
        if not again:
            seen.append(picture.clone())
            good.extend([] if bad else [seen[-1]])
        found = evaluate(picture)
        return spoil(found) if bad else found

    return count, seen


@every_optimizer
@every_spoil
def test_a_start_that_is_not_finite_is_an_error(optimizer: str, spoil: Spoil) -> None:
    for iterations in (0, 5):
        evaluate, seen = spoilt(bowl(torch.zeros(3, 4, 4)), spoil, range(9))
        with pytest.raises(RunError, match="start has no finite loss") as caught:
            list(descend(recipe(optimizer, iterations), random_picture(4, 4), evaluate))
        assert caught.value.exit_code == 70
        assert "\n" not in str(caught.value)
        assert len(seen) == 1


@every_optimizer
@every_spoil
@pytest.mark.parametrize("times", [1, 2, 3])
def test_up_to_three_times_it_steps_back_halves_and_goes_on(
    optimizer: str, spoil: Spoil, times: int
) -> None:
    start, target = random_picture(6, 6).clamp(0.2, 0.8), random_picture(6, 6, seed=1)
    evaluate, seen = spoilt(bowl(target), spoil, range(1, 1 + times))
    steps, outcome = follow(descend(recipe(optimizer, 10), start, evaluate))
    assert outcome.iterations == 10
    assert outcome.evaluations == len(seen) + (0 if optimizer in LINE_SEARCHES else times)
    assert steps[-1].losses.total < steps[0].losses.total
    assert all(step.picture.isfinite().all() and math.isfinite(step.losses.total) for step in steps)
    moves = [(picture - steps[0].picture).abs().mean().item() for picture in seen[1 : 2 + times]]
    for longer, shorter in itertools.pairwise(moves):
        assert shorter == pytest.approx(longer / 2, rel=0.1)


@every_optimizer
@every_spoil
@pytest.mark.parametrize("after", [0, 3])
def test_the_fourth_time_is_an_error_and_never_a_picture(
    optimizer: str, spoil: Spoil, after: int
) -> None:
    evaluate, seen = spoilt(bowl(random_picture(6, 6, seed=1)), spoil, range(1 + after, 99))
    steps: list[Step] = []
    with pytest.raises(RunError, match="not finite") as caught:
        steps.extend(descend(recipe(optimizer, 10), random_picture(6, 6), evaluate))
    assert caught.value.exit_code == 70
    assert "\n" not in str(caught.value)
    assert "--learning-rate" in str(caught.value)
    assert len(seen) == 1 + after + 4, "stepped back more or less than three times"
    assert steps, "the start was not shown"
    assert all(step.picture.isfinite().all() and math.isfinite(step.losses.total) for step in steps)


@every_optimizer
def test_stepping_back_later_in_a_descent_keeps_what_was_reached(optimizer: str) -> None:
    start, target = random_picture(6, 6).clamp(0.2, 0.8), random_picture(6, 6, seed=1)
    evaluate, _ = spoilt(bowl(target), SPOILS["nan"], range(6, 8))
    steps, outcome = follow(descend(recipe(optimizer, 12), start, evaluate))
    totals = [step.losses.total for step in steps]
    assert outcome.iterations == 12
    if optimizer in SEARCHES:
        assert min(totals[6:]) < min(totals[:6])
    else:
        assert totals == sorted(totals, reverse=True)


# --- precision of the loss ----------------------------------------------------------------------


def rounded(evaluate: Evaluate) -> Evaluate:
    """Return an evaluate with 8 bits of loss and gradient."""

    def evaluate_in_bf16(picture: Tensor) -> Evaluation:
        found = evaluate(picture)
        total = torch.tensor(found.losses.total).bfloat16().item()
        return evaluation(total, found.gradient.bfloat16().to(picture.dtype))

    return evaluate_in_bf16


@every_optimizer
@pytest.mark.parametrize("start", ["inside", "saturated"])
@pytest.mark.parametrize("scale", [1e-7, 1.0, 1e7])
def test_eight_bits_of_loss_and_gradient_are_enough(optimizer: str, start: str, scale: float) -> None:
    picture = random_picture(12, 12)
    begin = picture.round() if start == "saturated" else picture
    target = random_picture(12, 12, seed=1).clamp(0.1, 0.9)
    exact = bowl(target, scale)
    options = recipe(optimizer, 60, learning_rate=0.05)
    steps, outcome = follow(descend(options, begin, rounded(exact)))
    assert steps[1].losses.total < steps[0].losses.total, "the first step was too small to be seen"
    assert exact(outcome.best).losses.total < 0.03 * exact(begin).losses.total


def test_the_first_step_moves_pixels_by_a_few_percent_whatever_the_losss_scale() -> None:
    start, target = random_picture(20, 20), random_picture(20, 20, seed=1)
    for scale in (1e-12, 1e-3, 1.0, 1e9):
        evaluate, seen = spoilt(bowl(target, scale), SPOILS["nan"], range(0))
        steps, _ = follow(descend(recipe(iterations=1), start, evaluate))
        move = (seen[1] - steps[0].picture).abs().mean().item()
        assert 0.01 < move < 0.04


@every_optimizer
@pytest.mark.parametrize("power", [-40, -8, 8, 40])
def test_the_descent_is_the_same_whatever_the_losss_scale(optimizer: str, power: int) -> None:
    start, target = random_picture(8, 8), random_picture(8, 8, seed=1)
    plain, _ = follow(descend(recipe(optimizer, 8), start, bowl(target)))
    scaled, _ = follow(descend(recipe(optimizer, 8), start, bowl(target, 2.0**power)))
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(one.picture, other.picture, rtol=1e-4, atol=1e-5)


# --- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.0, 0.7])
def test_at_an_exact_minimum_there_is_nothing_lower(floor: float) -> None:
    start = torch.full((3, 4, 4), 0.5)
    steps, outcome = follow(descend(recipe(iterations=9), start, bowl(start, floor=floor)))
    assert (outcome.reason, outcome.iterations) == ("nothing lower found", 0)
    assert len(steps) == 1
    assert torch.equal(outcome.best, start)


def test_a_minimum_that_is_reached_ends_the_descent() -> None:
    start, target = random_picture(4, 4), random_picture(4, 4, seed=1).clamp(0.1, 0.9)
    steps, outcome = follow(descend(recipe(iterations=2000), start, bowl(target)))
    assert outcome.reason == "nothing lower found"
    assert outcome.iterations == steps[-1].iteration < 2000
    torch.testing.assert_close(outcome.best, target, rtol=0, atol=1e-3)


def test_a_gradient_that_lies_is_found_out() -> None:
    target = torch.full((3, 4, 4), 0.2)

    def uphill(picture: Tensor) -> Evaluation:
        found = bowl(target)(picture)
        return Evaluation(found.losses, -found.gradient)

    _, outcome = follow(descend(recipe(iterations=9), torch.full((3, 4, 4), 0.5), uphill))
    assert (outcome.reason, outcome.iterations) == ("nothing lower found", 0)
    assert outcome.evaluations < 60


@pytest.mark.parametrize("optimizer", ["adam", "amsgrad", "nadam", "adamax", "sgd"])
def test_without_a_slope_pixels_stay_where_they_are(optimizer: str) -> None:
    start = torch.full((3, 4, 4), 0.5)
    _, outcome = follow(descend(recipe(optimizer, 5), start, bowl(start)))
    assert (outcome.reason, outcome.iterations) == ("all iterations done", 5)
    assert torch.equal(outcome.best, start)


def scripted(totals: list[float]) -> Evaluate:
    """Return an evaluate whose totals are given, whatever the picture."""
    left = iter(totals)
    return lambda picture: evaluation(next(left), torch.full_like(picture, 1e-3))


def ended_at(totals: list[float], patience: int) -> tuple[int, str]:
    options = recipe("adam", len(totals) - 1, patience=patience)
    _, outcome = follow(descend(options, torch.full((3, 2, 2), 0.5), scripted(totals)))
    return outcome.iterations, outcome.reason


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize("plateau", [0.5, 0.496, 0.6, 0.0])
def test_patience_ends_on_a_plateau_and_not_earlier(patience: int, plateau: float) -> None:
    falling = [0.9**n for n in range(7)] + [0.5]
    at, reason = ended_at(falling + [plateau] * 20, patience)
    last_fall = len(falling) - 1 + (plateau == 0.0)
    assert at == last_fall + patience
    assert "less than 1%" in reason
    assert f"{patience} iterations" in reason


def test_a_slow_but_steady_fall_is_no_plateau_for_enough_patience() -> None:
    totals = [0.996**n for n in range(30)]
    assert ended_at(totals, patience=3)[0] == 29
    assert ended_at(totals, patience=2)[0] == 2
    assert ended_at(totals, patience=0) == (29, "all iterations done")


def test_going_up_and_down_is_a_plateau_unless_the_lowest_falls() -> None:
    assert ended_at([1.0, 1.2, 0.9, 1.3, 0.8, 1.4, 0.7, 1.5, 0.6], patience=2)[0] == 8
    assert ended_at([1.0, 0.5, 0.9, 0.7, 0.6, 0.55, 0.52, 0.51], patience=3)[0] == 4


def test_without_patience_a_plateau_does_not_end_the_descent() -> None:
    assert ended_at([0.5] * 40, patience=0) == (39, "all iterations done")


def test_patience_ends_lbfgs_on_a_plateau_too() -> None:
    start, target = random_picture(4, 4), random_picture(4, 4, seed=1).clamp(0.1, 0.9)
    options = recipe(iterations=200, patience=3, precondition=0)
    steps, outcome = follow(descend(options, start, bowl(target, floor=1.0)))
    assert "less than 1%" in outcome.reason
    assert 3 <= outcome.iterations < 50
    assert min(step.losses.total for step in steps) < 1.01
