"""Colours go where they are sent, as far as they are sent, and the rest of a picture stays."""

import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from skimage.exposure import match_histograms
from torch import Tensor
from torch.nn import functional

from impasto import color

pytestmark = pytest.mark.usefixtures("one_thread")

every_match = pytest.mark.parametrize("method", color.MATCHES)
every_map = pytest.mark.parametrize("method", color.MAPS)
every_restore = pytest.mark.parametrize("how", color.RESTORES)

MIX = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2], [0.1, 0.4, 0.5]])
"""Channels that vary together, as in any picture."""


def picture(seed: int, height: int = 24, width: int = 32, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return random colours in low..high whose channels vary together."""
    generator = torch.Generator().manual_seed(seed)
    colours = (MIX @ torch.rand(3, height * width, generator=generator)).reshape(3, height, width)
    return low + (high - low) * colours


def smooth(seed: int, size: tuple[int, int], noise: float = 0.1) -> Tensor:
    """Return wide patches of colour under noise."""
    generator = torch.Generator().manual_seed(seed)
    wide = functional.interpolate(torch.rand(1, 3, 5, 6, generator=generator), size, mode="bicubic")[0]
    return (wide + noise * torch.randn(3, *size, generator=generator)).clamp(0, 1)


def flat(*rgb: float, size: tuple[int, int] = (5, 7)) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32).reshape(3, 1, 1).expand(3, *size).contiguous()


def mean(of: Tensor) -> Tensor:
    return of.double().mean((1, 2))


def covariance(of: Tensor) -> Tensor:
    return torch.cov(of.double().flatten(1), correction=0)


def lab(of: Tensor) -> np.ndarray:
    found: np.ndarray = rgb2lab(of.permute(1, 2, 0).double().numpy())
    return found


def yiq(of: Tensor) -> Tensor:
    matrix = [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
    return torch.einsum("yc,chw->yhw", torch.tensor(matrix, dtype=torch.float64), of.double())


def steps(of: Tensor) -> float:
    """Return the total variation that denoising lowers: the sum of the lengths of the gradient."""
    down, across = of.new_zeros(of.shape), of.new_zeros(of.shape)
    down[:, :-1], across[:, :, :-1] = of.diff(dim=1), of.diff(dim=2)
    return torch.hypot(down, across).sum().item()


def assert_is_a_picture(found: Tensor, like: Tensor) -> None:
    assert found.dtype == torch.float32
    assert found.shape == like.shape
    assert found.is_contiguous()
    assert found.isfinite().all()
    assert 0 <= found.min() <= found.max() <= 1


@every_map
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_match_gives_the_style_the_contents_mean_and_covariance(method: str, seed: int) -> None:
    # Deep in 0..1 nothing is clipped: clipping moves both.
    style, content = picture(seed, low=0.2, high=0.6), picture(seed + 9, 17, 40, low=0.4, high=0.7)
    found = color.match(style, content, method)
    assert 0 < found.min() < found.max() < 1
    torch.testing.assert_close(mean(found), mean(content), rtol=0, atol=1e-6)
    torch.testing.assert_close(covariance(found), covariance(content), rtol=0, atol=1e-4)
    assert (covariance(style) - covariance(content)).abs().max() > 1e-3


@every_map
def test_a_linear_match_does_not_depend_on_the_strips(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    style, content = picture(0), picture(1, 17, 40)
    whole = color.match(style, content, method)
    monkeypatch.setattr(color, "_STRIP", 100)
    torch.testing.assert_close(color.match(style, content, method), whole, rtol=0, atol=1e-6)


@every_map
def test_a_map_takes_one_covariance_to_the_other(method: str) -> None:
    style, content = covariance(picture(0)), covariance(picture(1, high=0.3))
    found = color.MAPS[method](style, content)
    torch.testing.assert_close(found @ style @ found.T, content, rtol=0, atol=1e-12)


def test_monges_map_is_symmetric_and_positive_and_moves_colours_least() -> None:
    style, content = covariance(picture(0)), covariance(picture(1)[[2, 0, 1]])
    maps = {name: find(style, content) for name, find in color.MAPS.items()}
    torch.testing.assert_close(maps["monge"], maps["monge"].T, rtol=0, atol=1e-12)
    assert torch.linalg.eigvalsh(maps["monge"]).min() > 0
    moved = {
        name: ((a - torch.eye(3)) @ style @ (a - torch.eye(3)).T).trace() for name, a in maps.items()
    }
    assert min(moved, key=lambda name: moved[name]) == "monge"
    torch.testing.assert_close(maps["cholesky"].triu(1), torch.zeros(3, 3, dtype=torch.float64))


@every_match
def test_a_picture_matched_to_itself_stays_as_it_is(method: str) -> None:
    for own in (picture(2), picture(3, 1, 9), flat(0.2, 0.5, 0.9), flat(0, 0, 0), flat(1, 1, 1)):
        torch.testing.assert_close(color.match(own, own, method), own, rtol=0, atol=1e-4)


def test_the_histogram_becomes_the_contents() -> None:
    # No value twice in a channel: equal values stay equal, whatever the content's distribution.
    generator = torch.Generator().manual_seed(4)
    ramps = [torch.randperm(24 * 32, generator=generator) / (24 * 32) for _ in range(6)]
    style, content = torch.stack(ramps).reshape(2, 3, 24, 32)
    content = content.square()
    found = color.match(style, content, "histogram")
    ranks = [of.flatten(1).sort(dim=1).values for of in (found, content)]
    torch.testing.assert_close(*ranks, rtol=0, atol=1e-6)
    orders = [of.flatten(1).argsort(dim=1) for of in (found, style)]
    assert torch.equal(*orders)


@pytest.mark.parametrize("seed", range(3))
def test_of_8_bit_values_the_histogram_is_matched_exactly(seed: int) -> None:
    own, content = (picture(of, 40, 50, high=0.9).mul(255).round() / 255 for of in (seed, seed + 50))
    own[:, :20] = own[:, 20:].square().mul(255).round() / 255
    expected = match_histograms(own.numpy(), content.numpy(), channel_axis=0)
    torch.testing.assert_close(
        color.match(own, content, "histogram"), torch.from_numpy(expected), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("strip", [31, 100])
def test_strips_change_no_bit_of_a_histogram_or_of_luminance(
    monkeypatch: pytest.MonkeyPatch, strip: int
) -> None:
    own, content = torch.rand(2, 3, 17, 13, generator=torch.Generator().manual_seed(5))
    whole = color.match(own, content, "histogram"), color.luminance(own)
    monkeypatch.setattr(color, "_STRIP", strip)
    assert torch.equal(color.match(own, content, "histogram"), whole[0])
    assert torch.equal(color.luminance(own), whole[1])


def assert_blends(
    change: Callable[..., torch.Tensor], own: torch.Tensor, content: torch.Tensor, how: str
) -> None:
    """Assert that no strength leaves a picture as it is, and half of it changes half as much."""
    whole = change(own, content, how)
    assert change(own, content, how, 0) is own
    half = change(own, content, how, 0.5)
    torch.testing.assert_close(half, (own + whole) / 2, rtol=0, atol=1e-6)
    assert_is_a_picture(half, own)


@every_match
def test_a_match_blends_with_the_style(method: str) -> None:
    assert_blends(color.match, picture(6), picture(7, 20, 20, high=0.4), method)


@every_match
def test_a_match_is_a_picture_whatever_it_is_given(method: str) -> None:
    pictures = [
        picture(8),
        flat(0.2, 0.5, 0.9),
        flat(0, 0, 0),
        flat(1, 1, 1, size=(1, 1)),
        picture(9, 1, 13),
        picture(10, 13, 1),
        picture(11, 1, 1),
        picture(12)[:1].expand(3, -1, -1),  # grey: a covariance without an inverse
        picture(13, 30, 20).transpose(1, 2),
        picture(14).round(),
    ]
    for style, content in product(pictures, pictures):
        before = style.clone(), content.clone()
        for strength in (0.3, 1.0):
            assert_is_a_picture(color.match(style, content, method, strength), style)
        assert torch.equal(style, before[0])
        assert torch.equal(content, before[1])


@every_map
def test_a_style_of_one_colour_becomes_the_contents_mean(method: str) -> None:
    content = picture(15)
    found = color.match(flat(0.2, 0.5, 0.9), content, method)
    torch.testing.assert_close(mean(found), mean(content), rtol=0, atol=1e-6)
    assert found.flatten(1).std(dim=1).max() < 1e-6


@every_restore
def test_a_restored_picture_has_its_own_lightness_and_the_contents_chroma(how: str) -> None:
    # Greyish and of middling lightness: nothing is clipped.
    own, content = picture(16, low=0.4, high=0.6), picture(17, low=0.35, high=0.65)
    found = color.restore(own, content, how)
    assert 0 < found.min() < found.max() < 1
    if how == "lab":
        np.testing.assert_allclose(lab(found)[..., 0], lab(own)[..., 0], rtol=0, atol=1e-3)
        np.testing.assert_allclose(lab(found)[..., 1:], lab(content)[..., 1:], rtol=0, atol=1e-3)
    else:
        torch.testing.assert_close(yiq(found)[0], yiq(own)[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(yiq(found)[1:], yiq(content)[1:], rtol=0, atol=1e-6)


@every_restore
def test_a_grey_content_gives_a_grey_picture(how: str) -> None:
    content = torch.linspace(0, 1, 24 * 32).reshape(1, 24, 32).expand(3, -1, -1)
    found = color.restore(picture(18), content, how)
    assert (found.amax(0) - found.amin(0)).max() < 1e-4


@every_restore
def test_a_picture_keeps_its_own_colours_when_given_them(how: str) -> None:
    own = picture(19)
    torch.testing.assert_close(color.restore(own, own, how), own, rtol=0, atol=1e-5)


@every_restore
def test_restoring_blends_with_the_picture(how: str) -> None:
    assert_blends(color.restore, picture(20), picture(21), how)


@every_restore
@pytest.mark.parametrize("strip", [1, 31, 33, 200, 331])
def test_strips_change_no_bit_of_a_restored_picture(
    monkeypatch: pytest.MonkeyPatch, how: str, strip: int
) -> None:
    own, content = torch.rand(2, 3, 37, 33, generator=torch.Generator().manual_seed(22))
    whole = color.restore(own, content, how)
    monkeypatch.setattr(color, "_STRIP", strip)
    assert torch.equal(color.restore(own, content, how), whole)


@every_restore
def test_a_restored_picture_is_one_whatever_it_is_given(how: str) -> None:
    for size in ((24, 32), (1, 9), (9, 1), (1, 1)):
        corners = [flat(*rgb, size=size) for rgb in product((0.0, 1.0), repeat=3)]
        pictures = [*corners, picture(23, *size), picture(24, *size[::-1]).transpose(1, 2)]
        for own, content in product(pictures, pictures):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # blue with the lightness of black is outside CIELAB
                for strength in (0.3, 1.0):
                    assert_is_a_picture(color.restore(own, content, how, strength), own)


@every_restore
def test_a_content_of_another_size_cannot_be_restored(how: str) -> None:
    with pytest.raises(ValueError, match=r"content is 32x24 px, the picture 24x32 px; bring"):
        color.restore(picture(0, 32, 24), picture(1, 24, 32), how)


def test_what_is_not_offered_is_refused() -> None:
    own = picture(0)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"strength of .* from 0 to 1"):
            color.match(own, own, "monge", strength)
        with pytest.raises(ValueError, match=r"strength of .* from 0 to 1"):
            color.restore(own, own, "lab", strength)
    with pytest.raises(KeyError):
        color.match(own, own, "nosuch", 0)
    with pytest.raises(KeyError):
        color.restore(own, own, "nosuch", 0)
    for weight in (-0.1, float("nan")):
        with pytest.raises(ValueError, match=r"weight of .*; give 0 or more"):
            color.denoise(own, weight)


def test_luminance_is_grey_and_leaves_grey_alone() -> None:
    found = color.luminance(picture(25))
    assert_is_a_picture(found, picture(25))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0].double(), yiq(picture(25))[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(color.luminance(found), found, rtol=0, atol=1e-6)


def test_matched_luminance_has_the_contents_mean_and_deviation() -> None:
    style, content = (color.luminance(picture(seed, high=0.6)) for seed in (26, 27))
    content = 0.3 + content / 2
    found = color.match_luminance(style, content)
    torch.testing.assert_close(found.mean(), content.mean(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.std(), content.std(), rtol=0, atol=1e-6)
    torch.testing.assert_close(color.match_luminance(style, style), style, rtol=0, atol=1e-6)


def test_matched_luminance_is_a_picture_whatever_it_is_given() -> None:
    nearly = flat(0.5, 0.5, 0.5, size=(24, 32)) + 1e-6 * color.luminance(picture(28))
    pictures = [
        color.luminance(of)
        for of in (
            picture(29),
            picture(30, 1, 9),
            picture(31, 1, 1),
            flat(1, 1, 1),
            flat(0, 0, 0),
            nearly,
        )
    ]
    for style, content in product(pictures, pictures):
        assert_is_a_picture(color.match_luminance(style, content), style)
    for style in (flat(1, 1, 1), nearly):
        found = color.match_luminance(style, pictures[0])
        torch.testing.assert_close(found, pictures[0].mean().expand_as(found), rtol=0, atol=1e-3)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(48, 64), (20, 30), (10, 100)])
def test_denoising_lowers_total_variation_and_keeps_the_mean(size: tuple[int, int], wrap: bool) -> None:
    own = smooth(0, size)
    found = [color.denoise(own, weight, wrap) for weight in (0.02, 0.1, 0.3)]
    variations = [steps(of) for of in (own, *found)]
    assert variations == sorted(variations, reverse=True)
    assert variations[2] < variations[0] / 2
    for of in found:
        assert_is_a_picture(of, own)
        torch.testing.assert_close(mean(of), mean(own), rtol=0, atol=1e-3)


def test_denoising_finds_the_picture_below_the_noise_and_its_edges() -> None:
    clean = flat(0.2, 0.5, 0.8, size=(40, 40))
    clean[:, :, 20:] = 1 - clean[:, :, 20:]
    noise = 0.05 * torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(1))
    found = color.denoise((clean + noise).clamp(0, 1), 0.1)
    assert (found - clean).square().mean() < 0.1 * noise.square().mean()


@pytest.mark.parametrize("size", [(48, 64), (20, 30), (16, 100)])
@pytest.mark.parametrize("weight", [0.05, 0.1, 0.3])
def test_denoising_a_tileable_picture_does_not_see_where_it_begins(
    size: tuple[int, int], weight: float
) -> None:
    own = smooth(2, size)
    found, plain = color.denoise(own, weight, wrap=True), color.denoise(own, weight)
    for offset in ((1, 0), (0, 3), (5, 7), (size[0] // 2, size[1] // 2)):
        rolled, back = own.roll(offset, (1, 2)), (-offset[0], -offset[1])
        assert torch.equal(color.denoise(rolled, weight, wrap=True).roll(back, (1, 2)), found)
        unwrapped = color.denoise(rolled, weight).roll(back, (1, 2))
        assert (unwrapped - plain).abs().max() > 1e-2


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(150, 130), (33, 260)])
@pytest.mark.parametrize("side", [32, 77])
def test_denoising_in_parts_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], side: int, wrap: bool
) -> None:
    own = smooth(3, size)
    whole = color.denoise(own, 0.2, wrap)
    monkeypatch.setattr(color, "_SIDE", side)
    assert torch.equal(color.denoise(own, 0.2, wrap), whole)
    monkeypatch.setattr(color, "_STEPS", 80)  # more steps see further, and are given more
    further = color.denoise(own, 0.2, wrap)
    monkeypatch.setattr(color, "_SIDE", 1024)
    assert torch.equal(color.denoise(own, 0.2, wrap), further)


@pytest.mark.parametrize("wrap", [False, True])
def test_denoising_gives_a_picture_whatever_it_is_given(wrap: bool) -> None:
    pictures = (flat(0, 0.5, 1), picture(32, 1, 9), picture(33, 9, 1), picture(34, 1, 1))
    for own in (*pictures, picture(35, 30, 20).transpose(1, 2)):
        before = own.clone()
        for weight in (1e-6, 0.1, 100):
            assert_is_a_picture(color.denoise(own, weight, wrap), own)
        assert color.denoise(own, 0, wrap) is own
        assert torch.equal(own, before)
    torch.testing.assert_close(color.denoise(pictures[0], 0.1, wrap), pictures[0], rtol=0, atol=1e-6)
