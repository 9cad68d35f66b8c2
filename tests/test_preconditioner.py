"""Laws of the map that makes steps longer at low frequencies."""

import math

import pytest
import torch
from torch import Tensor

from impasto.preconditioner import Preconditioner, pictures_held

every_border = pytest.mark.parametrize("wrap", [False, True])
every_size = pytest.mark.parametrize("size", [(1, 1), (5, 8), (33, 16), (64, 47)])


def pictures(height: int, width: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)


@every_border
@every_size
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_it_is_linear_and_has_the_transpose_it_says(
    size: tuple[int, int], power: float, wrap: bool
) -> None:
    one, other = pictures(*size)
    apply = Preconditioner(one, power, wrap)
    torch.testing.assert_close(apply(one + 2 * other), apply(one) + 2 * apply(other))
    before = other.clone()
    torch.testing.assert_close((apply(one) * other).sum(), (one * apply.transposed(other)).sum())
    assert torch.equal(other, before)
    assert (apply(apply.transposed(one)) * one).sum() > 0


@every_border
def test_without_a_power_nothing_changes(wrap: bool) -> None:
    (one,) = pictures(9, 7, 1)
    apply = Preconditioner(one, 0, wrap)
    assert apply(one) is one
    assert apply.transposed(one) is one


@every_size
def test_away_from_borders_a_wave_is_scaled_by_its_frequency_alone(size: tuple[int, int]) -> None:
    height, width = size
    y = torch.arange(height, dtype=torch.float64)[:, None]
    x = torch.arange(width, dtype=torch.float64)
    apply = Preconditioner(torch.zeros(1, *size, dtype=torch.float64), 0.5)
    apply.border = 1.0
    gains = []
    for high, wide in ((0, 0), (1 % height, 0), (height - 1, width - 1)):
        wave = (math.pi * high * (y + 0.5) / height).cos() * (math.pi * wide * (x + 0.5) / width).cos()
        cycles = math.hypot(high / (2 * height), wide / (2 * width))
        found = apply(wave[None])[0]
        gain = (found * wave).sum() / wave.square().sum()
        torch.testing.assert_close(found, gain * wave, rtol=1e-9, atol=1e-12)
        gains.append(gain.item() * math.hypot(min(cycles, 0.045), 0.01) ** 0.5)
    assert gains == pytest.approx([gains[0]] * 3)


def test_borders_move_half_as_far_and_corners_a_quarter_but_not_where_pictures_repeat() -> None:
    (one,) = pictures(9, 7, 1)
    apply, around = Preconditioner(one, 0.5), Preconditioner(one, 0.5, wrap=True)
    ratio = apply(one) / apply._smoothed(one)
    expected = torch.ones(9, 7, dtype=torch.float64)
    expected[[0, -1]] *= 0.5
    expected[:, [0, -1]] *= 0.5
    torch.testing.assert_close(ratio, expected.expand(3, 9, 7))
    assert torch.equal(around(one), around._smoothed(one))


@every_border
def test_its_waves_are_orthonormal(wrap: bool) -> None:
    apply = Preconditioner(torch.zeros(1, 300, 7, dtype=torch.float64), 0.5, wrap)  # more than a strip
    for basis in (apply.rows, apply.columns):
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis), dtype=torch.float64))


@pytest.mark.parametrize("size", [(48, 64), (16, 64), (64, 8), (300, 10)])
def test_it_takes_as_many_pictures_as_it_says(size: tuple[int, int]) -> None:
    apply = Preconditioner(torch.zeros(3, *size), 0.5)
    found = (apply.rows.nbytes + apply.columns.nbytes + apply.scale.nbytes) / (12 * size[0] * size[1])
    assert pictures_held(*size) == pytest.approx(found, abs=0.5)


def test_a_picture_that_repeats_is_the_same_map_wherever_it_begins() -> None:
    (one,) = pictures(12, 17, 1)
    apply = Preconditioner(one, 0.5, wrap=True)
    torch.testing.assert_close(apply(one.roll((5, 3), (1, 2))), apply(one).roll((5, 3), (1, 2)))


@every_border
def test_the_scales_have_a_mean_square_of_one(wrap: bool) -> None:
    (one,) = pictures(24, 40, 1)
    apply = Preconditioner(one, 0.7, wrap)
    assert apply.scale.square().mean().item() == pytest.approx(1)
