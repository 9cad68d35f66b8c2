"""Colours: a style's matched to the content's, the content's put back, and noise taken out. Pure.

Pictures are ``[3, H, W]``, float32, sRGB in 0..1, on the CPU, and so is what comes back. A ``strength``
of 0..1 blends linearly between the picture untouched, which at 0 comes back bit for bit, and the whole
effect. All is done in strips or tiles: however large a picture, what is needed beside it is bounded.

scikit-image is loaded by the functions that use it: most runs change no colours.

Reference: Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer" (2017).
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "MAPS",
    "MATCHES",
    "RESTORES",
    "ROOM",
    "carry_on",
    "denoise",
    "luminance",
    "match",
    "match_luminance",
    "restore",
]

_RIDGE = 1e-5
"""Added to the variances of both pictures: a style of a single colour has no inverse without it."""

_FLAT = 1e-3
"""The least deviation of a style's luminance that is stretched: a quarter of a step of 8 bits."""

_STRIP = 1 << 20
"""Pixels that are converted at a time."""

_SIDE = 1024
"""The longest side of the parts that are denoised at a time."""

ROOM = 128 << 20
"""Bytes that no function here needs beside the pictures that it is given and returns.

Of 3, 8 and 12 megapixels denoising took up to 89 MiB more, lab 69, histograms 63.
"""

_LEVELS = 16 * 65_535
"""Steps from 0 to 1 in which histograms are taken: all values of 8 and of 16 bits are among them.

Against histograms of all values as they are, ten pairs of resized pictures moved by up to 4.5e-4 in the
root mean square, a pixel's channel in 900 by over half a step of 8 bits: what was a millionth apart.
"""

_STEPS = 50
"""Steps of Chambolle's iteration, always all of them: a pixel sees no further than so many others.

scikit-image's own rule also stops where the energy turns. On 64x48 px with noise of deviation 0.1 it
stopped after 9 to 23 steps, and where a tileable picture was rolled, at another: pixels moved by 0.05.
After 50 they were within 0.02 of the minimum, at weight 0.1.
"""

_LEAST_ALPHA = 1 / 510
"""Half a level of 8 bits: what has less is transparent."""

_LUMA = (0.299, 0.587, 0.114)
"""The luminance of red, green and blue (ITU-R BT.601)."""

_TINTED = 0.99999
"""The share of the bluest b of a given L that is used: scikit-image warns of anything beyond it."""


def match(style: Tensor, content: Tensor, method: str, strength: float = 1.0) -> Tensor:
    """Return the style with its colours matched to the content's, ``[3, H, W]`` of the style, in 0..1.

    The linear methods give every pixel x' = A (x - mu_s) + mu_c, so that the style takes on the
    content's mean mu_c and covariance Sigma_c; they differ in A (`MAPS`). `histogram` gives every
    channel the content's distribution by itself; channels that vary together need not do so after it,
    and a style of one colour becomes the content's brightest. It counts values in steps of 1e-6, in
    which those of 8 and of 16 bits are exact. Whatever leaves 0..1 is clipped, which moves mean and
    covariance.

    Reference: Gatys et al. (2017), "Colour histogram matching".

    Raises:
        KeyError: ``method`` is not in `MATCHES`.
        ValueError: ``strength`` is not in 0..1.

    Example:
        >>> style, content = torch.rand(3, 20, 30), 0.4 + 0.2 * torch.rand(3, 40, 50)
        >>> matched = match(style, content, "monge")
        >>> torch.allclose(matched.mean((1, 2)), content.mean((1, 2)), atol=1e-4)
        True
    """
    find = MATCHES[method]
    _check_strength(strength)
    if strength == 0:
        return style
    return _blend(style, find(style, content).clamp_(0, 1), strength)


def _cholesky(style: Tensor, content: Tensor) -> Tensor:
    """Return A = L_c L_s^-1, where L L^T = Sigma: red depends on red alone, green on red and green."""
    lower, wanted = torch.linalg.cholesky(style), torch.linalg.cholesky(content)
    solved: Tensor = torch.linalg.solve_triangular(lower, wanted, upper=False, left=False)
    return solved


def _pca(style: Tensor, content: Tensor) -> Tensor:
    """Return A = Sigma_c^1/2 Sigma_s^-1/2: along the axes in which the colours vary."""
    return _power(content, 0.5) @ _power(style, -0.5)


def _monge(style: Tensor, content: Tensor) -> Tensor:
    """Return A = Sigma_s^-1/2 (Sigma_s^1/2 Sigma_c Sigma_s^1/2)^1/2 Sigma_s^-1/2, which is symmetric.

    Of all A that match the covariances it moves the colours least, in the mean of squares.

    Reference: Pitié and Kokaram, "The Linear Monge-Kantorovitch Linear Colour Mapping for Example-Based
    Colour Transfer" (2007).
    """
    root, inverse = _power(style, 0.5), _power(style, -0.5)
    return inverse @ _power(root @ content @ root, 0.5) @ inverse


def _power(covariance: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric, positive definite matrix, which is symmetric too."""
    values, axes = torch.linalg.eigh((covariance + covariance.T) / 2)
    # Rounding can take the least eigenvalue of a product to zero or below, where no power is finite.
    tiny = torch.finfo(values.dtype).tiny
    power: Tensor = (axes * values.clamp(min=tiny).pow(exponent)) @ axes.T
    return power


MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "monge": _monge,
    "pca": _pca,
    "cholesky": _cholesky,
}
"""The matrix A with A Sigma_s A^T = Sigma_c, of the style's and the content's covariances ``[3, 3]``."""


def _linear(find: Callable[[Tensor, Tensor], Tensor], style: Tensor, content: Tensor) -> Tensor:
    (mean, spread), (target, wanted) = _moments(style), _moments(content)
    ridge = _RIDGE * torch.eye(len(spread), dtype=torch.float64)
    matrix = find(spread + ridge, wanted + ridge)
    matched = torch.empty(style.shape)
    for part, into in zip(_strips(style), _strips(matched), strict=True):
        into.copy_((matrix @ (part.double() - mean) + target).reshape(into.shape))
    return matched


def _moments(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means ``[C, 1]`` and the covariances ``[C, C]`` of the channels, in float64."""
    channels, count = picture.shape[0], picture.shape[1:].numel()
    mean = torch.zeros(channels, 1, dtype=torch.float64)
    for part in _strips(picture):
        mean += part.double().sum(1, keepdim=True) / count
    spread = torch.zeros(channels, channels, dtype=torch.float64)
    for part in _strips(picture):
        away = part.double() - mean
        spread += away @ away.T / count
    return mean, spread


def _strips(picture: Tensor) -> tuple[Tensor, ...]:
    """Return a picture's pixels ``[C, up to _STRIP]``: views, if it is contiguous."""
    return torch.split(picture.flatten(1), _STRIP, dim=1)


def _histogram(style: Tensor, content: Tensor) -> Tensor:
    matched = torch.empty(style.shape)
    for channel, own, like in zip(matched, style, content, strict=True):
        into = _reached(_counts(like), _counts(own))
        for part, found in zip(_strips(own[None]), _strips(channel[None]), strict=True):
            found.copy_(into[_level(part)])
    return matched


def _level(values: Tensor) -> Tensor:
    """Return the nearest of the steps from 0 to 1, as an integer."""
    return (values * _LEVELS).round_().to(torch.int32)


def _counts(channel: Tensor) -> Tensor:
    """Return how many pixels of a channel ``[H, W]`` are at each level."""
    counts = torch.zeros(_LEVELS + 1, dtype=torch.int64)
    for part in _strips(channel[None]):
        counts += torch.bincount(_level(part[0]), minlength=_LEVELS + 1)
    return counts


def _reached(counts: Tensor, own: Tensor) -> Tensor:
    """Return for every level of ``own`` the value that as large a share of the others do not exceed."""
    found = torch.zeros(len(own))
    (levels, shares), (there, ours) = _shares(counts), _shares(own)
    values = np.interp(ours.numpy(), shares.numpy(), levels.numpy() / _LEVELS)
    found[there] = torch.from_numpy(values).float()
    return found


def _shares(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the levels that occur, and the share of the pixels up to each of them."""
    (levels,) = counts.nonzero(as_tuple=True)
    return levels, counts[levels].cumsum(0).double() / counts.sum()


MATCHES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{name: partial(_linear, find) for name, find in MAPS.items()},
    "histogram": _histogram,
}
"""The style ``[3, H, W]`` matched to the content, not clipped yet."""


def restore(picture: Tensor, content: Tensor, how: str, strength: float = 1.0) -> Tensor:
    """Return a picture ``[3, H, W]`` in the colours of the content, which has its size; in 0..1.

    `lab` takes L* of the picture, a* and b* of the content (CIELAB, D65); `luminance` Y of the picture,
    I and Q of the content (Y'IQ), which is y_p + (c - y_c) for y = 0.299 R + 0.587 G + 0.114 B. Both
    clip what a screen cannot show, and where they do, L* or Y and the colours move a little.

    Reference: Gatys et al. (2017), "Luminance-only transfer".

    Raises:
        KeyError: ``how`` is not in `RESTORES`.
        ValueError: ``strength`` is not in 0..1, or content and picture differ in size.

    Example:
        >>> picture, content = torch.rand(3, 20, 30), torch.full((3, 20, 30), 0.5)
        >>> grey = restore(picture, content, "luminance")
        >>> torch.allclose(grey, luminance(picture), atol=1e-6)
        True
    """
    convert = RESTORES[how]
    _check_strength(strength)
    if picture.shape != content.shape:
        raise ValueError(
            f"the content is {content.shape[2]}x{content.shape[1]} px, the picture "
            f"{picture.shape[2]}x{picture.shape[1]} px; bring the content to the picture's size"
        )
    if strength == 0:
        return picture
    restored = torch.empty(picture.shape)
    # Whole rows: each is converted by itself, so that no strip's length shows in a single bit.
    rows = max(1, _STRIP // picture.shape[2])
    strips = (torch.split(whole, rows, dim=1) for whole in (picture, content, restored))
    for part, colours, into in zip(*strips, strict=True):
        into.copy_(convert(part, colours))
    return _blend(picture, restored, strength)


def _lab(picture: Tensor, content: Tensor) -> Tensor:
    from skimage.color import lab2rgb, rgb2lab

    colours = rgb2lab(_channels_last(content))
    colours[..., 0] = light = rgb2lab(_channels_last(picture))[..., 0]
    # A bright blue in the dark is no colour: its Z is negative. scikit-image makes it 0, and warns.
    colours[..., 2] = np.minimum(colours[..., 2], (_TINTED * 200 / 116) * (light + 16))
    return _tensor(np.moveaxis(lab2rgb(colours), -1, 0))


def _luminance(picture: Tensor, content: Tensor) -> Tensor:
    return (content - _luma(content)).add_(_luma(picture)).clamp_(0, 1)


RESTORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lab": _lab, "luminance": _luminance}
"""A picture's lightness with the content's colours, pixel by pixel, in 0..1."""


def luminance(picture: Tensor) -> Tensor:
    """Return the luminance Y = 0.299 R + 0.587 G + 0.114 B in all three channels, ``[3, H, W]``.

    Reference: ITU-R BT.601, of the sRGB values as they are (Y' of Y'IQ).

    Example:
        >>> luminance(torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)).flatten()
        tensor([0.2990, 0.2990, 0.2990])
    """
    found = torch.empty(picture.shape)
    for part, into in zip(_strips(picture), _strips(found), strict=True):
        into.copy_(_luma(part).clamp_(0, 1))
    return found


def _luma(picture: Tensor) -> Tensor:
    red, green, blue = _LUMA
    return picture[:1] * red + picture[1:2] * green + picture[2:] * blue


def match_luminance(style_luminance: Tensor, content_luminance: Tensor) -> Tensor:
    """Return L' = (sigma_c / sigma_s) (L - mu_s) + mu_c, ``[3, H, W]`` of the style, in 0..1.

    Both are what `luminance` gives; mu and sigma are their means and standard deviations. A sigma_s
    under 0.001 counts as 0.001: a flat style takes on the content's mean and stays flat.

    Reference: Gatys et al. (2017), "Luminance-only transfer".

    Example:
        >>> flat, content = torch.full((3, 4, 5), 0.9), torch.full((3, 6, 7), 0.25)
        >>> match_luminance(flat, content).unique()
        tensor([0.2500])
    """
    mean, variance = _moments(style_luminance[:1])
    target, wanted = _moments(content_luminance[:1])
    scale = wanted.sqrt().item() / max(variance.sqrt().item(), _FLAT)
    return (style_luminance - mean.item()).mul_(scale).add_(target.item()).clamp_(0, 1)


def carry_on(premultiplied: Tensor, alpha: Tensor) -> Tensor:
    """Return colours ``[3, H, W]`` that go on where a picture is transparent, by pull and push.

    ``premultiplied`` are colours times ``alpha`` ``[1, H, W]``, both in 0..1. Where there is an alpha
    the colour is c = (c alpha) / alpha; where there is none, that of the picture of half the size, whose
    colours are means weighted by alpha (Gortler et al. 1996, The Lumigraph). What is transparent
    everywhere is white.

    Example:
        >>> alpha = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]])
        >>> carry_on(0.25 * alpha.expand(3, 1, 4), alpha)[0].tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    seen = alpha > _LEAST_ALPHA
    colours = (premultiplied / alpha.clamp_min(_LEAST_ALPHA)).clamp_(0, 1)
    if seen.all():
        return colours
    size = alpha.shape[1:]
    if max(size) == 1:
        return torch.ones_like(colours)
    both = torch.cat([premultiplied, alpha]) * seen
    half = functional.avg_pool2d(both[None], 2, ceil_mode=True)[0]
    half = half / half[3:].amax().clamp_min(_LEAST_ALPHA)  # a share that is small is still a share
    below = functional.interpolate(
        carry_on(half[:3], half[3:])[None], size=size, mode="bilinear", align_corners=False
    )[0]
    return torch.where(seen, colours, below)


def denoise(picture: Tensor, weight: float, wrap: bool = False) -> Tensor:
    """Return a picture ``[3, H, W]`` with less total variation, in 0..1; at weight 0 the picture itself.

    Finds u that minimises sum_p |grad u_p| + 1/(2 weight) sum_p (u_p - x_p)^2, channel by channel: the
    larger ``weight``, the smoother. Differences across edges survive, and so does the mean colour.

    It does not know noise from a painter's hairs: what is fine and faint goes first, whatever it is,
    slopes turn into steps, and small shapes lose contrast. With ``wrap``, opposite sides meet: the seams
    of a tileable picture stay closed, and wherever it begins it comes out the same.

    A large picture is denoised in parts. Of 50 steps, each of which looks one pixel further, 50 pixels
    around a part are enough for it to come out as in the whole, to the last bit.

    Reference: Chambolle, "An Algorithm for Total Variation Minimization and Applications" (2004).

    Raises:
        ValueError: ``weight`` is negative.

    Example:
        >>> noisy = 0.5 + 0.1 * torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> bool(denoise(noisy, 0.1).std() < 0.5 * noisy.std())
        True
    """
    if not weight >= 0:
        raise ValueError(f"a denoising weight of {weight}; give 0 or more")
    if weight == 0:
        return picture
    from skimage.restoration import denoise_tv_chambolle

    find: Callable[..., npt.NDArray[np.float32]] = denoise_tv_chambolle
    smooth = torch.empty(picture.shape)
    for rows, columns in product(*(_parts(length, wrap) for length in picture.shape[1:])):
        window = picture[:, rows.seen][:, :, columns.seen].numpy()
        found = _tensor(find(window, weight, eps=0, max_num_iter=_STEPS, channel_axis=0))
        smooth[:, rows.own, columns.own] = found[:, rows.inner, columns.inner].clamp_(0, 1)
    return smooth


class _Part(NamedTuple):
    """A part of a side: its own pixels, those it is computed from, and the own ones among these."""

    own: slice
    seen: Tensor
    inner: slice


def _parts(length: int, wrap: bool) -> Iterator[_Part]:
    for own in torch.arange(length).tensor_split(-(-length // _SIDE)):
        start, stop = int(own[0]), int(own[-1]) + 1
        first, last = start - _STEPS, stop + _STEPS
        if not wrap:
            first, last = max(0, first), min(length, last)
        seen = torch.arange(first, last) % length
        yield _Part(slice(start, stop), seen, slice(start - first, stop - first))


def _channels_last(picture: Tensor) -> npt.NDArray[np.float32]:
    return picture.permute(1, 2, 0).contiguous().numpy()


def _tensor(array: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _blend(picture: Tensor, changed: Tensor, strength: float) -> Tensor:
    """Return the changed picture, blended with the untouched one in place."""
    return changed if strength == 1 else torch.lerp(picture, changed, strength, out=changed)


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise ValueError(f"a strength of {strength}; give a number from 0 to 1")
