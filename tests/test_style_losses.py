"""The laws of `losses.STYLE_LOSSES`: they hold for every row of the table, by its being there."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from impasto import catalog, losses
from impasto.losses import SELF_SIMILARITY, STYLE_LOSSES, SummaryLoss
from impasto.recipe import Recipe
from impasto.summaries import COLUMNS, FOURIER, PATCHES, SAMPLES, Place, fourier, gram, patches, points
from impasto.tiles import Span

pytestmark = pytest.mark.usefixtures("one_thread")

LOSSES = {**STYLE_LOSSES, "self-similarity": SELF_SIMILARITY}
RECIPE = Recipe(mmd_constant=0.7)
SHAPE = (4, 5, 7)

every_loss = pytest.mark.parametrize("row", LOSSES.values(), ids=LOSSES.keys())


def features(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """Return features like a ReLU's: none is negative."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def summary(row: SummaryLoss, found: Tensor, spread: float = 1.0) -> Tensor:
    taken = row.statistic.summarise(found, Place.whole(found, spread=spread))
    return losses.exact(taken) / found[0].numel() if row.statistic.mean else losses.exact(taken)


def distance(row: SummaryLoss, found: Tensor, target: Tensor, spread: float = 1.0) -> Tensor:
    aim = row.aim(summary(row, target, spread), RECIPE)
    return row.distances({"a": summary(row, found, spread)}, {"a": aim})["a"]


def test_the_table_and_its_help_name_the_same_losses() -> None:
    assert list(STYLE_LOSSES) == list(catalog.STYLE_LOSSES)
    assert next(iter(STYLE_LOSSES)) == Recipe().style_loss[0] == "gram"


@every_loss
def test_a_loss_is_zero_at_its_target_and_positive_elsewhere(row: SummaryLoss) -> None:
    if row.unbiased:
        return  # see the mean of many draws below
    for seed in range(5):
        at, other = features(seed), features(seed + 100)
        scale = distance(row, 3 * other + 1, at).item()
        assert abs(distance(row, at.clone(), at).item()) <= 1e-5 * scale
        assert distance(row, other, at).item() > 0
        assert distance(row, 0 * at, at).item() > 0


@every_loss
def test_a_loss_is_blind_to_where_a_feature_is(row: SummaryLoss) -> None:
    paired = STYLE_LOSSES["mmd-gaussian-paired"]
    if row in (SELF_SIMILARITY, paired) or row.statistic in (COLUMNS, PATCHES):
        return  # it knows places, pairs them by chance, takes some of so few twice, sees neighbours
    at, target = features(1), features(2)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0))
    moved = at.flatten(1)[:, order].reshape(SHAPE)
    assert distance(row, moved, target).item() == pytest.approx(
        distance(row, at, target).item(), rel=1e-9
    )


@every_loss
def test_a_loss_has_the_gradient_that_finite_differences_see(row: SummaryLoss) -> None:
    at, target = features(3).requires_grad_(), features(4)
    assert torch.autograd.gradcheck(lambda f: distance(row, f, target), at, rtol=1e-3, atol=1e-6)


@every_loss
def test_a_loss_grows_with_the_features_as_the_table_says(row: SummaryLoss) -> None:
    at, target = features(5), features(6)
    spread = 4.0 if row.statistic is FOURIER else 1.0
    twice = distance(row, 2 * at, 2 * target, spread).item()
    assert twice == pytest.approx(4**row.degree * distance(row, at, target).item(), rel=1e-6)


@every_loss
def test_a_summary_adds_up_over_the_parts_of_a_picture(row: SummaryLoss) -> None:
    at = features(7, (3, 60, 80))
    whole = row.statistic.summarise(at, Place.whole(at, "block2_conv1", seed=5))
    parts = torch.zeros_like(whole)
    for rows, columns in itertools.product((Span(0, 17), Span(17, 60)), (Span(0, 50), Span(50, 80))):
        place = Place("block2_conv1", rows, columns, (60, 80), seed=5)
        part = row.statistic.summarise(
            at[:, rows.start : rows.stop, columns.start : columns.stop], place
        )
        assert part.shape == row.statistic.shape(3, place)
        parts += part
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-9)


@every_loss
def test_bf16_features_are_summed_in_float32(row: SummaryLoss) -> None:
    at = features(8, (4, 40, 50)).bfloat16()
    found = row.statistic.summarise(at, Place.whole(at))
    assert found.dtype == torch.float32
    expected = row.statistic.summarise(at.double(), Place.whole(at))
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-2)


@every_loss
def test_a_summary_of_a_region_has_the_gradient_that_finite_differences_see(row: SummaryLoss) -> None:
    at, region = features(9), features(10, SHAPE[1:]).round(decimals=1)
    place = Place.whole(at)._replace(region=region, anchor=region)
    assert torch.autograd.gradcheck(
        lambda found: row.statistic.summarise(found, place), at.requires_grad_()
    )


def test_a_weighted_gram_matrix_equals_its_naive_loop() -> None:
    at, weights = features(11), features(12, SHAPE[1:])
    vectors, counts = at.flatten(1).T, weights.flatten()
    expected = sum(count * torch.outer(one, one) for one, count in zip(vectors, counts, strict=True))
    torch.testing.assert_close(gram(at, weights), expected)
    assert torch.equal(gram(at, torch.ones(SHAPE[1:])), gram(at))


# --- equal to naive loops -----------------------------------------------------------------------


def kernel_sum(f: np.ndarray, s: np.ndarray, kernel: Callable[[Any, Any], Any]) -> float:
    """Return the squared MMD as its definition has it, over all pairs of positions."""

    def mean(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean([[kernel(x, y) for y in other.T] for x in one.T]))

    return mean(f, f) + mean(s, s) - 2 * mean(f, s)


def naive_wasserstein(f: np.ndarray, s: np.ndarray) -> float:
    one, other = (np.cov(x, bias=True) for x in (f, s))
    floor = 1e-4 * np.trace(other) / len(f) * np.eye(len(f))
    one, other = one + floor, other + floor
    root = scipy.linalg.sqrtm(other)
    cross = scipy.linalg.sqrtm(root @ one @ root)
    shift = ((f.mean(1) - s.mean(1)) ** 2).sum()
    return float(shift + np.trace(one + other - 2 * np.real(cross))) / len(f)


def naive_bn(f: np.ndarray, s: np.ndarray) -> float:
    floor = 1e-5 * s.var(1).mean()
    return float(
        sum(
            (x.mean() - y.mean()) ** 2 + (np.sqrt(x.var() + floor) - np.sqrt(y.var() + floor)) ** 2
            for x, y in zip(f, s, strict=True)
        )
        / len(f)
    )


def naive_gram(f: np.ndarray, s: np.ndarray) -> float:
    difference = f @ f.T / f.shape[1] - s @ s.T / s.shape[1]
    return float((difference**2).sum()) / (4 * len(f) ** 2)


def naive_histogram(f: np.ndarray, s: np.ndarray) -> float:
    pairs = zip(f, s, strict=True)
    return float(np.mean([(np.sort(x) - np.sort(y)) ** 2 for x, y in pairs]))


def naive_nearest(f: np.ndarray, s: np.ndarray) -> float:
    def directions(x: np.ndarray) -> np.ndarray:
        centered = x - x.mean(1, keepdims=True)
        return centered / np.linalg.norm(centered, axis=0)

    nearest = [max((x @ y, i) for i, y in enumerate(directions(s).T))[1] for x in directions(f).T]
    return float(np.mean([(x - s[:, i]) ** 2 for x, i in zip(f.T, nearest, strict=True)]))


def naive_patches(f: np.ndarray) -> np.ndarray:
    grid = f.reshape(SHAPE)
    corners = itertools.product(range(SHAPE[1] - 2), range(SHAPE[2] - 2))
    return np.stack([grid[:, i : i + 3, j : j + 3].ravel() for i, j in corners], axis=1)


def naive_alike(f: np.ndarray, s: np.ndarray) -> float:
    def distances(x: np.ndarray) -> np.ndarray:
        unit = x / np.linalg.norm(x, axis=0)
        found = 1 - unit.T @ unit
        return found / found.sum(0)

    return float(np.abs(distances(f) - distances(s)).mean() * f.shape[1])


NAIVE: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "gram": naive_gram,
    "covariance": lambda f, s: float(
        ((np.cov(f, bias=True) - np.cov(s, bias=True)) ** 2).sum() / (4 * len(f) ** 2)
    ),
    "mmd-linear": lambda f, s: kernel_sum(f, s, lambda x, y: x @ y),
    "mmd-poly": lambda f, s: kernel_sum(
        f, s, lambda x, y: (x @ y + 0.7 * (s**2).sum() / s.shape[1]) ** 2
    ),
    "bn": naive_bn,
    "gram-mean-std": lambda f, s: (
        naive_gram(f, s) + (s**2).sum() / s.shape[1] / len(s) / 4 * naive_bn(f, s)
    ),
    "wasserstein": naive_wasserstein,
    "histogram": naive_histogram,
    "nearest": naive_nearest,
    "nearest-patches": lambda f, s: naive_nearest(*map(naive_patches, (f, s))),
    "self-similarity": naive_alike,
}


@pytest.mark.parametrize("name", NAIVE)
def test_a_loss_equals_its_naive_loop(name: str) -> None:
    at, target = features(9), features(10)
    if LOSSES[name].statistic is COLUMNS:  # of so few positions they take many twice
        at, target = at.flatten(1), target.flatten(1)
        row = LOSSES[name]
        found = row.distances({"a": at}, {"a": row.aim(target, RECIPE)})["a"]
    else:
        found = distance(LOSSES[name], at, target)
    expected = NAIVE[name](at.flatten(1).numpy(), target.flatten(1).numpy())
    assert found.item() == pytest.approx(expected, rel=2e-5)


def test_every_loss_has_a_naive_loop_or_a_test_of_its_own() -> None:
    assert set(LOSSES) - set(NAIVE) == {"sliced", "mmd-gaussian", "mmd-gaussian-paired"}


def test_the_polynomial_kernel_without_its_constant_is_gram_by_4_n_squared() -> None:
    at, target = features(11), features(12)
    recipe = Recipe(mmd_constant=0)
    row = STYLE_LOSSES["mmd-poly"]
    aim = row.aim(summary(row, target), recipe)
    found = row.distances({"a": summary(row, at)}, {"a": aim})["a"].item()
    assert found == pytest.approx(
        4 * len(at) ** 2 * distance(STYLE_LOSSES["gram"], at, target).item(), rel=1e-12
    )


def test_both_gaussian_estimates_agree_with_the_sum_over_all_pairs() -> None:
    f, s = features(13, (4, 32, 48)), 0.8 * features(14, (4, 32, 48)) + 0.3
    flat = s.flatten(1)
    spread = flat.var(dim=1, correction=0).sum().item()

    def kernels(x: Tensor, y: Tensor) -> float:
        return float((torch.cdist(x.flatten(1).T, y.flatten(1).T) ** 2 / (-2 * spread)).exp().mean())

    expected = kernels(f, f) + kernels(s, s) - 2 * kernels(f, s)
    waves = [
        (fourier(f, place) - fourier(s, place)).div(f[0].numel()).square().sum().item()
        for place in (Place.whole(f, seed=seed, spread=spread) for seed in range(200))
    ]
    assert np.mean(waves) == pytest.approx(expected, rel=0.1)
    # A single draw of so few waves (two per channel) is this good:
    assert np.std(waves) < 1.5 * expected

    generator = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(200):
        mixed = [x.flatten(1)[:, torch.randperm(1536, generator=generator)] for x in (f, s)]
        pairs.append(losses.paired_gaussian_loss(*mixed).item())
    error = np.std(pairs) / np.sqrt(len(pairs))
    assert abs(np.mean(pairs) - expected) < 4 * error + 0.02 * expected


def test_the_paired_estimate_of_a_style_with_itself_is_zero_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(300):
        one, other = torch.rand(2, 4, 500, generator=generator, dtype=torch.float64)
        found.append(losses.paired_gaussian_loss(one, other).item())
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(300)


def test_the_sliced_distance_is_that_of_projected_and_sorted_samples() -> None:
    f, s = features(16).flatten(1), features(17).flatten(1)
    directions = losses._sliced_target(s).directions
    assert directions.square().sum(1).sub(1).abs().max() < 1e-12
    expected = np.mean(
        [(np.sort(v @ f.numpy()) - np.sort(v @ s.numpy())) ** 2 for v in directions.numpy()]
    )
    assert losses.sliced_loss(f, s).item() == pytest.approx(expected, rel=1e-12)


def test_sorted_samples_of_other_numbers_are_compared_by_their_shares() -> None:
    s = features(18, (3, 1, 40)).flatten(1)
    twice = s.repeat_interleave(2, dim=1)
    assert losses.sliced_loss(twice, s).item() < 0.01 * losses.sliced_loss(twice + 0.5, s).item()


def test_the_wasserstein_distance_bears_covariances_of_low_rank() -> None:
    for positions in (2, 3, 6):
        at = features(19, (8, 1, positions)).requires_grad_()
        target = features(20, (8, 1, 5))
        loss = distance(STYLE_LOSSES["wasserstein"], at, target)
        (gradient,) = torch.autograd.grad(loss, at)
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 10
        flat = distance(STYLE_LOSSES["wasserstein"], 0 * at, 0 * target)
        (gradient,) = torch.autograd.grad(flat, at)
        assert gradient.isfinite().all()


def test_the_barycentre_of_gaussians_lies_between_them() -> None:
    row = STYLE_LOSSES["wasserstein"]
    one, other = (summary(row, features(seed, (3, 6, 6)) * (1 + seed % 2)) for seed in (21, 22))
    for shares in ([1.0, 0.0], [0.0, 1.0]):
        ends = losses.barycenter([one, other], shares)
        torch.testing.assert_close(ends, [one, other][int(shares[1])], rtol=1e-5, atol=1e-7)
    middle = losses.barycenter([one, other], [0.5, 0.5])
    whole = losses.wasserstein(one, other).item()
    for end in (one, other):
        assert losses.wasserstein(middle, end).item() == pytest.approx(whole / 4, rel=1e-4)


# --- where samples lie --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (40, 50), (32, 64), (517, 389), (1200, 4), (3, 5000)])
@pytest.mark.parametrize("joint", [False, True])
def test_samples_are_spread_over_the_picture_and_inside_of_it(
    size: tuple[int, int], joint: bool
) -> None:
    height, width = size
    rows, columns = points(Place("block3_conv1", Span(0, 1), Span(0, 1), size, seed=3), joint=joint)
    most = 2048 if joint else 4096  # of 256 channels
    assert len(rows) == len(columns) <= most
    assert 0 <= rows.min() <= rows.max() < height
    assert 0 <= columns.min() <= columns.max() < width
    places = set(zip(rows.tolist(), columns.tolist(), strict=True))
    if not joint:
        assert len(places) == len(rows), "a position was taken twice"
        if height * width <= most:
            assert len(places) == height * width
        assert len(rows) >= min(most // 2, height * width)
    if height >= 64:
        counts = torch.histc(rows.double(), 4, 0, height)
        assert counts.min() > 0.8 * counts.max()


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 2, 7), (2, 7, 2), (2, 40, 60), (2, 300, 200)])
def test_patches_are_squares_inside_of_the_layer(shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    places = torch.arange(height * width, dtype=torch.float64).reshape(1, height, width)
    found = patches(places, Place.whole(places, "block3_conv1")).reshape(3, 3, -1)
    down, across = found // width, found % width
    for step in (1, 2):
        assert torch.equal(down[step], (down[0] + step).clamp(max=height - 1))
        assert torch.equal(across[:, step], (across[:, 0] + step).clamp(max=width - 1))
    corners = found[0, 0].tolist()
    assert len(set(corners)) == len(corners)
    assert min(512, max(1, height - 2) * max(1, width - 2)) <= len(corners) <= 1024


def test_joint_samples_are_the_same_places_in_every_layer() -> None:
    fine = points(Place("block1_conv1", Span(0, 1), Span(0, 1), (320, 256), seed=1), 4, joint=True)
    deep = points(Place("block5_conv1", Span(0, 1), Span(0, 1), (20, 16), seed=1), joint=True)
    for one, other in zip(fine, deep, strict=True):
        assert torch.equal(one // 16, other)
    apart = points(Place("block1_conv2", Span(0, 1), Span(0, 1), (320, 256), seed=1))
    again = points(Place("block1_conv1", Span(0, 1), Span(0, 1), (320, 256), seed=1))
    assert not torch.equal(apart[0], again[0])


def test_several_styles_share_the_samples() -> None:
    one, other = torch.zeros(3, 100), torch.ones(3, 60)
    mixed = SAMPLES.mix([one, other], [0.5, 0.5])
    assert mixed.shape == (3, 80)
    assert mixed.sum() == 3 * 40
    single = SAMPLES.mix([one[:, :1], other[:, :1]], [0.9, 0.1])
    assert single.shape == (3, 2), "every style that counts has a sample"
    assert torch.equal(SAMPLES.mix([one, other], [0, 1]), other)


def test_a_single_position_is_no_style_but_no_crash() -> None:
    row = STYLE_LOSSES["mmd-gaussian-paired"]
    at = features(24, (4, 1, 1)).requires_grad_()
    loss = distance(row, at, features(25, (4, 1, 1)))
    (gradient,) = torch.autograd.grad(loss, at)
    assert gradient.isfinite().all()


def test_gram_of_waves_is_bounded() -> None:
    found = fourier(features(23, (4, 9, 9)), Place.whole(features(23, (4, 9, 9)), spread=2.0)) / 81
    assert found.square().sum().item() < 1.5
    assert gram(features(23)).shape == (4, 4)
