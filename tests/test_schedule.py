"""Sizes: aspects are kept, pictures that fit are left alone, what the network cannot take is refused."""

import itertools

import pytest
import torch
from torch import Tensor

from impasto import schedule
from impasto.errors import InputError
from impasto.recipe import Recipe


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("height", [1, 16, 37, 480, 1999])
@pytest.mark.parametrize("width", [1, 16, 53, 640, 2000])
@pytest.mark.parametrize("long_side", [16, 17, 512])
def test_a_fitted_size_has_the_long_side_and_the_aspect(height: int, width: int, long_side: int) -> None:
    found = schedule.fitted(height, width, long_side)
    assert max(found) == long_side
    scale = long_side / max(height, width)
    assert all(
        side >= 1 and (side == 1 or abs(side - before * scale) <= 0.5)
        for side, before in zip(found, (height, width), strict=True)
    )


def test_a_picture_that_fits_is_returned_bit_for_bit() -> None:
    picture = random_picture(24, 32) * 3 - 1  # also outside of 0..1
    assert schedule.resize(picture, (24, 32)) is picture
    assert schedule.fit(picture, 32) is picture
    assert torch.equal(schedule.cover(picture, (24, 32)), picture)


@pytest.mark.parametrize("size", [(16, 21), (31, 47), (96, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_resized_picture_has_its_size_and_stays_inside_the_box(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    # Black and white noise is where bicubic interpolation overshoots most.
    picture = random_picture(48, 64).round().to(dtype)
    found = schedule.resize(picture, size)
    assert found.shape == (3, *size)
    assert found.dtype == dtype
    assert found.min() >= 0 and found.max() <= 1
    assert schedule.fit(picture, size[1]).shape == (3, *schedule.fitted(48, 64, size[1]))


@pytest.mark.parametrize("size", [(5, 7), (48, 64), (200, 10)])
def test_a_flat_picture_stays_flat_at_any_size(size: tuple[int, int]) -> None:
    torch.testing.assert_close(
        schedule.resize(torch.full((3, 48, 64), 0.7), size), torch.full((3, *size), 0.7)
    )


def test_a_shrunken_picture_is_averaged_not_sampled() -> None:
    checkers = (
        (torch.arange(64)[:, None] + torch.arange(64)[None]).remainder(2).float().expand(3, -1, -1)
    )
    found = schedule.resize(checkers, (16, 16))
    assert (found[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("size", [(16, 16), (20, 40), (40, 20)])
def test_cover_takes_the_centre_without_stretching(size: tuple[int, int]) -> None:
    height, width = 60, 90
    across = torch.linspace(0.1, 0.9, width).expand(3, height, width)
    down = torch.linspace(0.1, 0.9, height)[:, None].expand(3, height, width)
    scale = min(height / size[0], width / size[1])
    for ramp, axis, long in ((across, 2, width), (down, 1, height)):
        found = schedule.cover(ramp, size)
        assert found.shape == (3, *size)
        assert found.mean().item() == pytest.approx(0.5, abs=0.01)
        # The slope per output pixel is the input's times the one scale of both axes.
        middle = found.narrow(axis, size[axis - 1] // 4, size[axis - 1] // 2)
        slope = middle.diff(dim=axis).mean().item()
        assert slope == pytest.approx(0.8 / (long - 1) * scale, rel=0.03)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((15, 400), "at least 16 px"),
        ((400, 15), "at least 16 px"),
        ((16, 3201), "thinner than 200:1"),
        ((3201, 16), "thinner than 200:1"),
        ((1, 1), "at least 16 px"),
    ],
)
def test_what_the_network_cannot_take_is_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        schedule.check_sides(*size, "the picture")
    assert "the picture" in str(caught.value)
    assert f"{size[1]}x{size[0]}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(16, 16), (16, 3200), (3200, 16)])
def test_the_smallest_and_the_thinnest_are_taken(size: tuple[int, int]) -> None:
    schedule.check_sides(*size, "the picture")
    with pytest.raises(InputError, match="at least 32 px"):
        schedule.check_sides(*size, "the picture", smallest=32)


# --- levels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("long_side", [16, 200, 256, 300, 511, 512, 1000, 1024, 4096, 10_000])
@pytest.mark.parametrize("iterations", [0, 1, 2, 7, 100, 1000])
def test_levels_rise_to_the_picture_and_share_its_iterations(long_side: int, iterations: int) -> None:
    size = (max(16, long_side * 3 // 4), long_side)
    found = schedule.levels(Recipe(iterations=iterations), *size)
    sizes, shares = zip(*found, strict=True)
    assert sizes[-1] == size
    assert list(sizes) == sorted(sizes)
    assert sum(shares) == iterations
    assert all(share > 0 for share in shares) or iterations == 0
    assert list(shares) == sorted(shares, reverse=True) or iterations < 20
    if long_side >= 512 and iterations >= 100:
        assert 256 <= max(sizes[0]) < 512
        for one, two in itertools.pairwise(sizes):
            assert 2 * max(one) == pytest.approx(max(two), abs=2)


def test_levels_can_be_counted_or_named() -> None:
    def sides(*levels: object, size: int = 512) -> list[int]:
        recipe = Recipe(levels=levels, iterations=60)  # type: ignore[arg-type]
        return [max(one) for one, _ in schedule.levels(recipe, size, size)]

    assert sides(1) == [512]
    assert sides(3) == [128, 256, 512]
    assert sides(100, 300) == sides(100, 300, 512) == [100, 300, 512]
    assert sides(512) == [512]
    with pytest.raises(InputError, match="--levels 100 600: a level of 600 px is larger"):
        sides(100, 600)


def test_a_thin_picture_has_no_level_thinner_than_64() -> None:
    assert [size for size, _ in schedule.levels(Recipe(), 100, 2000)] == [(100, 2000)]


def test_an_enlarged_picture_gets_back_detail_of_the_photograph_alone() -> None:
    small, photo = random_picture(20, 30) * 0.5 + 0.25, random_picture(40, 60, 1) * 0.2
    plain = schedule.enlarge(small, (40, 60))
    assert torch.equal(plain, schedule.resize(small, (40, 60)))
    detailed = schedule.enlarge(small, (40, 60), photo)
    lost = photo - schedule.resize(schedule.resize(photo, (20, 30)), (40, 60))
    torch.testing.assert_close(detailed, plain + lost / 2)
    assert torch.equal(schedule.enlarge(photo, (40, 60), photo), photo)
    flat = torch.full_like(photo, 0.3)
    torch.testing.assert_close(schedule.enlarge(small, (40, 60), flat), plain)


def test_a_repeating_picture_is_enlarged_across_its_far_sides() -> None:
    picture = torch.rand(3, 16, 32, generator=torch.Generator().manual_seed(0))
    larger = schedule.enlarge(picture, (48, 80), wrap=True)
    rolled = schedule.enlarge(picture.roll((2, 4), (1, 2)), (48, 80), wrap=True)
    torch.testing.assert_close(rolled, larger.roll((6, 10), (1, 2)), rtol=0, atol=1e-5)
    inside = (slice(None), slice(12, 36), slice(20, 60))
    torch.testing.assert_close(larger[inside], schedule.enlarge(picture, (48, 80))[inside])
