"""Every loss is zero at its target, never negative, differentiable, and equal to a naive loop."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from impasto import losses
from impasto.summaries import gram

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (4, 5, 7)
POSITIONS = 5 * 7


def features(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Law(NamedTuple):
    """A loss of features and their target, and the same as a naive loop."""

    loss: Callable[[Tensor, Tensor], Tensor]
    naive: Callable[[np.ndarray, np.ndarray], float]


LAWS = {
    "content": Law(losses.content_loss, reference.content_loss),
    "squared distance": Law(
        losses.squared_distance, lambda f, p: sum(float(x) ** 2 for x in (f - p).ravel())
    ),
    "style of raw Gram matrices": Law(
        lambda f, p: losses.style_layer_loss(gram(f), gram(p), POSITIONS),
        lambda f, p: reference.style_layer_loss(reference.gram(f), reference.gram(p), POSITIONS),
    ),
    "style of mean Gram matrices": Law(
        lambda f, p: losses.style_layer_loss(gram(f) / POSITIONS, gram(p) / POSITIONS),
        lambda f, p: reference.style_layer_loss(reference.gram(f), reference.gram(p), POSITIONS),
    ),
    "Gram distance": Law(
        lambda f, p: losses.gram_distance(gram(f), gram(p)),
        lambda f, p: float(((reference.gram(f) - reference.gram(p)) ** 2).sum()),
    ),
    "total variation": Law(
        lambda f, _: losses.total_variation(f), lambda f, _: reference.total_variation(f)
    ),
}
every_loss = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


@every_loss
def test_a_loss_is_exactly_zero_at_its_target(law: Law) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        target = features(0).to(dtype)
        # Total variation has no target of its own: it aims at a flat picture.
        at = torch.full_like(target, 0.3) if law is LAWS["total variation"] else target.clone()
        assert law.loss(at, target).item() == 0


@every_loss
def test_a_loss_is_positive_away_from_its_target(law: Law) -> None:
    for seed in range(1, 20):
        assert law.loss(features(seed), features(0)).item() > 0
        assert law.loss(1e-3 * features(seed), 0 * features(0)).item() > 0


@every_loss
def test_a_loss_has_the_gradient_that_finite_differences_see(law: Law) -> None:
    at, target = features(1).requires_grad_(), features(2)
    assert torch.autograd.gradcheck(lambda f: law.loss(f, target), at)


@every_loss
def test_a_loss_equals_its_naive_loop(law: Law) -> None:
    at, target = features(3), features(4)
    expected = law.naive(at.numpy(), target.numpy())
    assert law.loss(at, target).item() == pytest.approx(expected, rel=1e-12)
    single = law.loss(at.float(), target.float()).item()
    assert single == pytest.approx(expected, rel=1e-5)


@every_loss
def test_a_loss_of_bf16_features_is_summed_in_more_than_bf16(law: Law) -> None:
    if law is LAWS["total variation"]:
        return  # taken on the picture, which is never bf16
    at, target = features(3).bfloat16(), features(4).bfloat16()
    found = law.loss(at, target)
    assert found.dtype in (torch.float32, torch.float64)
    expected = law.naive(at.double().numpy(), target.double().numpy())
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_gram_matrix_is_the_naive_sum_and_symmetric_and_positive() -> None:
    at = features(5)
    found = gram(at)
    np.testing.assert_allclose(found.numpy(), reference.gram(at.numpy()), rtol=1e-12)
    torch.testing.assert_close(found, found.T, rtol=1e-12, atol=1e-12)
    assert torch.linalg.eigvalsh(found).min() > -1e-9


def test_a_gram_matrix_is_blind_to_where_and_sees_what() -> None:
    at = features(6)
    order = torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(0))
    moved = at.flatten(1)[:, order].reshape(SHAPE)
    assert not torch.equal(moved, at)
    torch.testing.assert_close(gram(moved), gram(at), rtol=1e-12, atol=1e-12)
    assert losses.style_layer_loss(gram(moved), gram(at)).item() < 1e-20
    assert losses.content_loss(moved, at).item() > 1
    swapped = at[[1, 0, 2, 3]]
    assert losses.gram_distance(gram(swapped), gram(at)).item() > 1


def test_a_gram_matrix_adds_up_over_the_parts_of_a_picture() -> None:
    at = features(7)
    parts = gram(at[:, :2]) + gram(at[:, 2:, :3]) + gram(at[:, 2:, 3:])
    torch.testing.assert_close(parts, gram(at), rtol=1e-12, atol=1e-12)


def test_a_gram_matrix_of_bf16_features_is_float32() -> None:
    found = gram(torch.full((1, 40, 50), 1 + 1 / 128).bfloat16())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(2000 * (1 + 1 / 128) ** 2, rel=1e-6)


def test_a_gram_matrix_of_bf16_features_loses_nothing_to_bf16_instructions() -> None:
    generator = torch.Generator().manual_seed(10)
    at = torch.rand(64, 60, 80, generator=generator).bfloat16()
    for one in (at, at.contiguous(memory_format=torch.contiguous_format).permute(0, 2, 1)):
        exact = reference.gram(one.double().numpy())
        np.testing.assert_allclose(gram(one).double().numpy(), exact, rtol=2e-5)
    # Only for that product: matrices in float32 are multiplied in float32 again.
    wide = torch.rand(64, 4800, generator=generator)
    found = (wide @ wide.T).double()
    torch.testing.assert_close(found, wide.double() @ wide.double().T, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_gradient_of_a_gram_matrix_lies_as_the_features_do(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(11)
    rows = torch.rand(1, 16, 20, 24, generator=generator).to(dtype)
    pulls = torch.rand(16, 16, generator=generator)
    expected = torch.einsum("ij,jhw->ihw", (pulls + pulls.T).double(), rows[0].double())
    for layout in (torch.contiguous_format, torch.channels_last):
        at = rows.contiguous(memory_format=layout).requires_grad_()
        found = gram(at.squeeze(0))
        (gradient,) = torch.autograd.grad((found * pulls.to(found)).sum(), at)
        assert gradient.is_contiguous(memory_format=layout)
        tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(gradient[0].double(), expected, rtol=tolerance, atol=0)


def test_equation_3_needs_positions_or_mean_gram_matrices_and_they_agree() -> None:
    one, other = gram(features(8)), gram(features(9))
    raw = losses.style_layer_loss(one, other, POSITIONS).item()
    assert losses.style_layer_loss(one / POSITIONS, other / POSITIONS).item() == pytest.approx(
        raw, rel=1e-12
    )
    assert losses.style_layer_loss(one, other).item() == pytest.approx(raw * POSITIONS**2, rel=1e-12)


def test_mean_gram_matrices_compare_pictures_of_different_sizes() -> None:
    at = features(10)
    twice = torch.cat([at, at], dim=2)
    difference = losses.style_layer_loss(gram(twice) / (2 * POSITIONS), gram(at) / POSITIONS)
    assert difference.item() < 1e-25


def test_close_gram_matrices_are_told_apart_in_float64() -> None:
    large = torch.full((2, 2), 3e7)
    near = large.clone()
    near[0, 0] += 2  # float32's next number
    assert losses.gram_distance(near, large).item() == 4
    assert losses.gram_distance(near, large).dtype == torch.float64


def test_style_and_total_are_weighted_sums() -> None:
    layers = {name: features(seed).square().mean() for seed, name in enumerate("abc")}
    weights = {"c": 0.5, "a": 2.0, "b": 0.0, "unused": 9.0}
    expected = sum(weights[name] * layers[name].item() for name in layers)
    style = losses.style_loss(layers, weights)
    assert style.item() == pytest.approx(expected, rel=1e-12)
    total = losses.total_loss(layers["a"], style, alpha=1e-3, beta=7.0)
    assert total.item() == pytest.approx(1e-3 * layers["a"].item() + 7 * expected, rel=1e-12)


@pytest.mark.parametrize("size", [(6, 8), (5, 3), (40, 64)])
def test_total_variation_is_a_mean_per_pixel_whatever_the_size(size: tuple[int, int]) -> None:
    height, width = size
    down, across = torch.arange(height)[:, None], torch.arange(width)[None]
    checkers = (down + across).remainder(2).double()
    stripes = across.remainder(2).double().expand(size)
    assert losses.total_variation(checkers.expand(3, *size)).item() == pytest.approx(6, rel=1e-12)
    assert losses.total_variation(stripes.expand(3, *size)).item() == pytest.approx(3, rel=1e-12)
    assert losses.total_variation(stripes[None] / 2).item() == pytest.approx(0.25, rel=1e-12)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("wrap", [False, True])
def test_total_variation_comes_in_strips_of_any_height(norm: str, wrap: bool) -> None:
    picture = features(11, (3, 9, 6))
    size = (9, 6)
    whole = losses.total_variation(picture, norm, wrap)
    below = torch.cat([picture, picture[:, :1]], dim=1) if wrap else picture
    parts = [
        losses.strip_variation(below[:, top : top + 5], min(4, 9 - top), size, norm, wrap)
        for top in range(0, 9, 4)
    ]
    assert sum(part.item() for part in parts) == pytest.approx(whole.item(), rel=1e-12)
    if wrap:
        rolled = losses.total_variation(picture.roll((4, 2), (1, 2)), norm, wrap)
        assert rolled.item() == pytest.approx(whole.item(), rel=1e-12)
    assert losses.total_variation(torch.full_like(picture, 0.3), norm, wrap).item() == 0


def test_l1_variation_is_the_mean_step_and_round_at_zero() -> None:
    stripes = torch.arange(64).remainder(2).double().expand(1, 8, 64)
    assert losses.total_variation(stripes, "l1").item() == pytest.approx(1, abs=0.005)
    faint = losses.total_variation(stripes / 2550, "l1").item()
    assert faint < 0.1 / 2550
    at = features(12, (2, 4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: losses.total_variation(x, "l1", wrap=True), at)
