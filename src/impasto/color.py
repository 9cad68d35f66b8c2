"""Colours: a style's matched to the content's, the content's put back, and noise taken out. Pure.

Pictures are ``[3, H, W]``, float32, sRGB in 0..1, on the CPU, and so is what comes back. A ``strength``
of 0..1 blends linearly between the picture untouched, which at 0 comes back bit for bit, and the whole
effect. Means and covariances are taken in float64, over strips: no large picture is held in float64.

scikit-image is loaded by the functions that use it: most runs change no colours.

Reference: Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer" (2017).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "MAPS",
    "MATCHES",
    "RESTORES",
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

_MARGIN = 16
"""Pixels of the far side that a tileable picture is given before it is denoised."""

_STEPS = 50
"""Steps of Chambolle's iteration, always all of them.

scikit-image's own rule also stops where the energy turns. On 64x48 px with noise of deviation 0.1 it
stopped after 9 to 23 steps, and where a tileable picture was rolled, at another: pixels moved by 0.05.
After 50 they were within 0.02 of the minimum, at weight 0.1.
"""

_LUMA = (0.299, 0.587, 0.114)
"""The luminance of red, green and blue (ITU-R BT.601)."""

_TINTED = 0.99999
"""The share of the bluest b of a given L that is used: scikit-image warns of anything beyond it."""


def match(style: Tensor, content: Tensor, method: str, strength: float = 1.0) -> Tensor:
    """Return the style with its colours matched to the content's, ``[3, H, W]`` of the style, in 0..1.

    The linear methods give every pixel x' = A (x - mu_s) + mu_c, so that the style takes on the
    content's mean mu_c and covariance Sigma_c; they differ in A (`MAPS`). `histogram` gives every
    channel the content's distribution by itself; channels that vary together need not do so after it,
    and a style of one colour becomes the content's brightest. Whatever leaves 0..1 is clipped, which
    moves mean and covariance.

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
    from skimage.exposure import match_histograms

    return _tensor(match_histograms(style.numpy(), content.numpy(), channel_axis=0))


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
    return _luma(picture).clamp_(0, 1).expand(3, -1, -1).contiguous()


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


def denoise(picture: Tensor, weight: float, wrap: bool = False) -> Tensor:
    """Return a picture ``[3, H, W]`` with less total variation, in 0..1; at weight 0 the picture itself.

    Finds u that minimises sum_p |grad u_p| + 1/(2 weight) sum_p (u_p - x_p)^2, channel by channel: the
    larger ``weight``, the smoother. Differences across edges survive, and so does the mean colour.

    It does not know noise from a painter's hairs: what is fine and faint goes first, whatever it is,
    slopes turn into steps, and small shapes lose contrast. With ``wrap``, a picture whose opposite sides
    meet is given 16 pixels of the far side all around, and cropped again, so that its seams stay closed:
    wherever it begins it comes out the same, to 1e-4 for weights up to 0.3.

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

    _, height, width = picture.shape
    down, across = (min(_MARGIN, height), min(_MARGIN, width)) if wrap else (0, 0)
    if wrap:
        picture = functional.pad(picture[None], (across, across, down, down), mode="circular")[0]
    find: Callable[..., npt.NDArray[np.float32]] = denoise_tv_chambolle
    smooth = _tensor(find(picture.numpy(), weight, eps=0, max_num_iter=_STEPS, channel_axis=0))
    return smooth[:, down : down + height, across : across + width].contiguous().clamp_(0, 1)


def _channels_last(picture: Tensor) -> npt.NDArray[np.float32]:
    return picture.permute(1, 2, 0).contiguous().numpy()


def _tensor(array: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _blend(picture: Tensor, changed: Tensor, strength: float) -> Tensor:
    return changed if strength == 1 else picture.lerp(changed, strength).contiguous()


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise ValueError(f"a strength of {strength}; give a number from 0 to 1")
