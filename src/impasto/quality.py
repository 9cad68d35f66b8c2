"""Measures of one picture that its own optimisation did not descend: they grade another's homework.

Pictures are ``[3, H, W]``, float32, sRGB in 0..1. A content has the picture's size, a style the
picture's long side: the caller brings them there. Pixels are compared on the CPU. What the network sees
is taken at layers that the recipe does not name, under another pooling than the recipe's, always in
float32: an optimiser that found a way to please some layers has not found one to please these.

A measure is a row in `MEASURES`; docs/measures.md says what each cannot see. Luminance is ITU-R BT.601.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from impasto import tiles
from impasto.color import luminance
from impasto.layers import deepest
from impasto.losses import STYLE_LOSSES, SummaryLoss, self_similarity_loss, squared_distance
from impasto.objective import Looks, positions, see, summarise
from impasto.recipe import Recipe
from impasto.summaries import GRAM, MOMENTS, SAMPLES, Statistic
from impasto.tiles import WHOLE, Cut, Tile
from impasto.vgg import VGG19
from impasto.weights import Weights

__all__ = [
    "MEASURES",
    "Measure",
    "Scene",
    "Seen",
    "checkerboard",
    "color",
    "content_error",
    "edge_ssim",
    "frame",
    "held_out",
    "look",
    "measure_all",
    "noise",
    "saturated",
    "self_similarity",
    "ssim",
    "style_error",
]

CONTENT_LAYERS = ("block3_conv3", "block4_conv4")
STYLE_LAYERS = ("block1_conv2", "block2_conv2", "block3_conv2", "block4_conv3")
"""The layers that are looked at, but for those that the recipe names."""

_FLAT = 1e-4
"""No error is taken relative to less than this share of white noise's energy, as in `objective`."""

_ROUNDING = (0.299**2 + 0.587**2 + 0.114**2) / 12 / 255**2
"""The variance that rounding to 8 bits gives the luminance: so much noise counts as none."""

_COLORS = 1 << 15
"""Pixels whose colours stand for all."""

_BASES = 16
"""Orthonormal bases of Lab that colours are projected on: three directions each."""

_WINDOW = 32
"""The side of the windows whose spectra are averaged, or 16 in a smaller picture."""

_EDGE = 4
"""Pixels from the border that count as frame, and as many inside of it to compare with."""

Summaries = Mapping[str, Tensor]
"""What is known of a layer, by the statistic's name."""


# --- pixels -------------------------------------------------------------------------------------


def ssim(picture: Tensor, content: Tensor) -> float:
    """Return the mean structural similarity (SSIM) of the luminances, in -1..1; 1 for the content.

    (2 mu_x mu_y + C1)(2 s_xy + C2) / ((mu_x^2 + mu_y^2 + C1)(s_x^2 + s_y^2 + C2)) in Gaussian windows of
    11x11 px with deviation 1.5, C1 = 0.01^2, C2 = 0.03^2; windows that would leave the picture do not
    count.

    Reference: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (2004); computed by scikit-image.

    Raises:
        ValueError: the sizes differ, or a side is under 11 px.

    Example:
        >>> content = torch.rand(3, 20, 30)
        >>> round(ssim(content, content), 5), ssim(1 - content, content) < 0
        (1.0, True)
    """
    return _similarity(_luma(picture), _luma(content))


def edge_ssim(picture: Tensor, content: Tensor) -> float:
    """Return the SSIM of the edges: of the luminances' Sobel gradient magnitude; as `ssim`, in -1..1.

    The same outlines in other colours and shades leave it high, where `ssim` falls.

    Raises:
        ValueError: as `ssim`.

    Example:
        >>> content = torch.rand(3, 20, 30)
        >>> round(edge_ssim(1 - content, content), 5)
        1.0
    """
    from skimage.filters import sobel

    one, other = (
        torch.from_numpy(sobel(_luma(x).numpy()))  # type: ignore[no-untyped-call]
        for x in (picture, content)
    )
    return _similarity(one, other)


def _similarity(one: Tensor, other: Tensor) -> float:
    from skimage.metrics import structural_similarity

    found = structural_similarity(  # type: ignore[no-untyped-call]
        one.numpy(),
        other.numpy(),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(found)


def color(picture: Tensor, styles: Sequence[Tensor], shares: Sequence[float]) -> float:
    """Return the sliced 2-Wasserstein distance of the pixels' colours to the styles', in CIE Lab.

    sqrt(3 mean_v mean_i (sort(v^T x)_i - sort(v^T s)_i)^2) over unit vectors v and 32768 pixels drawn at
    random, always the same ones; of several styles in their shares. 0 for the style itself; in units
    of Lab (CIE76 Delta E): a shift of all colours by d gives d.

    Reference: Rabin et al., "Wasserstein Barycenter and Its Application to Texture Mixing" (2011).

    Example:
        >>> black, white = torch.zeros(3, 20, 30), torch.ones(3, 16, 16)
        >>> round(color(black, [white], [1.0]), 1)  # L from 0 to 100
        100.0
    """
    edges = [round(_COLORS * sum(shares[:count])) for count in range(len(shares))]
    parts = [
        _lab(style, start, stop)
        for style, start, stop in zip(styles, edges, [*edges[1:], _COLORS], strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(_BASES, 3, 3, generator=generator, dtype=torch.float64)
    directions = torch.linalg.qr(drawn).Q.reshape(-1, 3)
    found, aim = (
        (directions @ x).sort(dim=1).values for x in (_lab(picture, 0, _COLORS), torch.cat(parts, dim=1))
    )
    return float((3 * (found - aim).square().mean()).sqrt())


def _lab(picture: Tensor, start: int, stop: int) -> Tensor:
    """Return the Lab colours of some of the pixels that are drawn, ``[3, stop - start]``."""
    from skimage.color import rgb2lab

    pixels = picture.flatten(1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(pixels.shape[1], (_COLORS,), generator=generator)[start:stop]
    return torch.from_numpy(rgb2lab(pixels[:, drawn].double().T.numpy())).T


def noise(picture: Tensor, others: Sequence[Tensor], shares: Sequence[float]) -> float:
    """Return the high-frequency energy of the luminance over that of other pictures; 0 or more.

    mean (N * Y)^2 over the shares' mean of the same, with the mask N = [1 -2 1]^T [1 -2 1]: what is left
    of a picture after everything linear along rows or columns. 1 for the other picture itself; below
    1 the picture is smoother. As much as rounding to 8 bits makes is added to both.

    Reference: Immerkær, "Fast Noise Variance Estimation" (1996).

    Example:
        >>> ramp = torch.linspace(0, 1, 40).expand(3, 30, 40)
        >>> noise(ramp, [ramp], [1.0]), noise(ramp + 0.1 * torch.randn(3, 30, 40), [ramp], [1.0]) > 100
        (1.0, True)
    """
    energies = [share * _roughness(other) for other, share in zip(others, shares, strict=True)]
    return _roughness(picture) / sum(energies)


def _roughness(picture: Tensor) -> float:
    steps = _luma(picture)
    for _ in range(2):
        steps = (steps[2:] - 2 * steps[1:-1] + steps[:-2]).T
    return steps.square().mean(dtype=torch.float64).item() + 36 * _ROUNDING  # 36 is the sum of N^2


def checkerboard(picture: Tensor) -> float:
    """Return how far the spectrum stands out at the pooling's period of 2 pixels; 0 or more.

    The energy of the luminance at the three frequencies of period 2, (0, 1/2), (1/2, 0) and (1/2, 1/2)
    cycles per pixel, over the mean energy of their neighbours two bins away: spectra of Hann windows of
    32x32 px (16x16 in a smaller picture), half overlapping, averaged. About 1 or less without a
    pattern; white noise has 1. As much as rounding to 8 bits makes is added to both.

    Reference: Odena et al., "Deconvolution and Checkerboard Artifacts" (2016), for what is looked for;
    Welch, "The Use of Fast Fourier Transform for the Estimation of Power Spectra" (1967), for how.

    Raises:
        ValueError: a side is under 16 px.

    Example:
        >>> grey, board = torch.full((3, 40, 40), 0.5), torch.zeros(3, 40, 40)
        >>> board[:, ::2, ::2] = board[:, 1::2, 1::2] = 0.1
        >>> checkerboard(grey), checkerboard(grey + board) > 100
        (1.0, True)
    """
    luma = _luma(picture)
    side = _WINDOW if min(luma.shape) >= _WINDOW else _WINDOW // 2
    if min(luma.shape) < side:
        raise ValueError(f"a side of {min(luma.shape)} px; give at least {side}")
    hann = torch.hann_window(side, dtype=torch.float64)
    hann = hann[:, None] * hann
    power, count = torch.zeros(side, side, dtype=torch.float64), 0
    for top in range(0, luma.shape[0] - side + 1, side // 2):
        windows = luma[top : top + side].unfold(1, side, side // 2).transpose(0, 1).double()
        windows = (windows - windows.mean((1, 2), keepdim=True)) * hann
        power += torch.fft.fft2(windows).abs().square().sum(0)
        count += len(windows)
    power = power / count + hann.square().sum() * _ROUNDING
    half, steps = side // 2, (-2, 0, 2)
    at, beside = 0.0, 0.0
    for row, column in ((0, half), (half, 0), (half, half)):
        around = [
            power[(row + down) % side, (column + across) % side].item()
            for down in steps
            for across in steps
        ]
        at += around.pop(4)
        beside += sum(around) / len(around)
    return at / beside


def saturated(picture: Tensor) -> float:
    """Return the share of pixels with a channel at its end, within half a step of 8 bits; in 0..1.

    Example:
        >>> saturated(torch.tensor([[[0.0, 0.5]], [[0.5, 0.5]], [[0.2, 0.9]]]))
        0.5
    """
    step = 0.5 / 255
    ends = (picture <= step) | (picture >= 1 - step)
    return float(ends.any(dim=0).double().mean())


def frame(picture: Tensor) -> float:
    """Return how the outermost 4 pixels differ from the 4 inside of them; 0 or more.

    sqrt(mean [(mu_o - mu_i)^2 + (sigma_o - sigma_i)^2] / mean sigma_i^2), means over the four sides and
    three channels, with the mean mu and the deviation sigma of the outer and the inner strip of a
    side: 1 is a difference as large as the picture varies there. A step of 8 bits, squared, is added
    to the denominator.

    Raises:
        ValueError: a side is under 8 px.

    Example:
        >>> picture = torch.rand(3, 40, 40)
        >>> dark = picture.clone()
        >>> dark[:, :4] = dark[:, -4:] = 0
        >>> frame(dark) > 1 > frame(picture)
        True
    """
    if min(picture.shape[1:]) < 2 * _EDGE:
        raise ValueError(f"a side of {min(picture.shape[1:])} px; give at least {2 * _EDGE}")
    differences, variances = [], []
    for rows in (picture, picture.flip(1), picture.transpose(1, 2), picture.transpose(1, 2).flip(1)):
        outer, inner = (
            torch.var_mean(rows[:, start : start + _EDGE].double(), dim=(1, 2), correction=0)
            for start in (0, _EDGE)
        )
        differences.append((outer[1] - inner[1]).square() + (outer[0].sqrt() - inner[0].sqrt()).square())
        variances.append(inner[0])
    found = torch.stack(differences).mean() / (torch.stack(variances).mean() + 1 / 255**2)
    return float(found.sqrt())


def _luma(picture: Tensor) -> Tensor:
    return luminance(picture)[0]


# --- features -----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """What the network sees at the layers held out, by layer; empty without such a picture.

    ``errors``: ||F - P||^2, and the energy ||P||^2 that it is relative to. ``alike``: samples of the
    picture and of the content. ``style``: summaries of the picture, of the mixed styles, and of white
    noise.
    """

    errors: Mapping[str, tuple[float, float]]
    alike: Mapping[str, tuple[Tensor, Tensor]]
    style: Mapping[str, tuple[Summaries, Summaries, Summaries]]


def held_out(recipe: Recipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the content and the style layers that are looked at: none that the recipe names.

    Example:
        >>> held_out(Recipe(style_layers=("conv1_1", "conv1_2", "conv3_2", "conv4_3")))
        (('block3_conv3', 'block4_conv4'), ('block2_conv2',))
    """
    used = {*recipe.content_layers, *recipe.style_layers}
    content, style = (
        tuple(name for name in layers if name not in used) for layers in (CONTENT_LAYERS, STYLE_LAYERS)
    )
    return content, style


def content_error(errors: Mapping[str, tuple[float, float]]) -> float:
    """Return the mean over layers of ||F - P||^2 / ||P||^2; 0 for the content, 1 for silent features.

    ``errors`` are the two by layer: the balanced content loss, at layers held out.

    Example:
        >>> content_error({"block3_conv3": (1.0, 4.0), "block4_conv4": (3.0, 4.0)})
        0.5
    """
    return sum(distance / energy for distance, energy in errors.values()) / len(errors)


def self_similarity(samples: Mapping[str, tuple[Tensor, Tensor]]) -> float:
    """Return the mean over layers of `losses.self_similarity_loss`; in 0..2, 0 for the content.

    ``samples`` are the picture's and the content's by layer, ``[N, n]`` at the same places.

    Reference: Kolkin et al., "Style Transfer by Relaxed Optimal Transport and Self-Similarity" (2019).

    Example:
        >>> found = torch.rand(4, 9)
        >>> self_similarity({"block3_conv3": (found, found)})
        0.0
    """
    losses = [self_similarity_loss(*pair).item() for pair in samples.values()]
    return sum(losses) / len(losses)


def style_error(row: SummaryLoss, layers: Mapping[str, tuple[Summaries, Summaries, Summaries]]) -> float:
    """Return the mean over layers of a style loss relative to silence: d(G, A) / d(0, A); 0 or more.

    0 for the style itself, 1 for features that are silent. ``layers`` are as in `Seen`. A style that
    leaves a layer silent counts with a small share of what white noise gives.

    Example:
        >>> one, two = ({"gram": factor * torch.eye(3)} for factor in (1, 2))
        >>> style_error(STYLE_LOSSES["gram"], {"block1_conv2": (two, one, one)})
        1.0
    """
    name, recipe = row.statistic.name, Recipe()

    def distance(found: Tensor, target: Tensor) -> float:
        return row.distances({name: found}, {name: row.aim(target, recipe)})[name].item()

    def relative(found: Tensor, target: Tensor, noise: Tensor) -> float:
        silent, loud = (distance(torch.zeros_like(x), x) for x in (target, noise))
        return distance(found, target) / max(silent, _FLAT ** max(1, row.degree) * loud)

    errors = [relative(*(summaries[name] for summaries in three)) for three in layers.values()]
    return sum(errors) / len(errors)


@torch.no_grad()
def look(
    recipe: Recipe,
    weights: Weights,
    picture: Tensor,
    content: Tensor | None,
    styles: Sequence[Tensor],
    cut: Cut = WHOLE,
) -> Seen:
    """Return what the network sees at the layers that a recipe does not name, on the picture's device.

    Pooling is by maximum where the recipe's is by average, else by average; padding is the recipe's.
    Several styles are mixed by their weights. Features are summed tile by tile and not kept.

    Raises:
        InputError: style weights are of another number than the styles, or circular padding cannot
            be cut at this size.
    """
    of_content, of_style = held_out(recipe)
    of_content, of_style = of_content if content is not None else (), of_style if styles else ()
    if not (of_content or of_style):
        return Seen({}, {}, {})
    pooling = "max" if recipe.pooling == "average" else "average"
    last = deepest((*of_content, *of_style))
    network = VGG19(weights, pooling, recipe.border, device=picture.device, last=last)
    generator = torch.Generator().manual_seed(0)
    hiss = torch.rand(3, 64, 64, generator=generator).to(network.device)

    errors: dict[str, tuple[float, float]] = {}
    alike: dict[str, tuple[Tensor, Tensor]] = {}
    if content is not None and of_content:
        errors = _errors(network, picture, content, of_content, hiss, cut)
        seen = [_summaries(network, one, of_content, (SAMPLES,), cut) for one in (picture, content)]
        alike = {name: (seen[0][name]["samples"], seen[1][name]["samples"]) for name in of_content}

    style: dict[str, tuple[Summaries, Summaries, Summaries]] = {}
    if of_style:
        kinds, shares = (GRAM, MOMENTS, SAMPLES), recipe.weight_of_styles(len(styles))
        found, noise, *several = (
            _summaries(network, one, of_style, kinds, cut) for one in (picture, hiss, *styles)
        )
        for name in of_style:
            aims = {
                one.name: one.mix([each[name][one.name] for each in several], shares) for one in kinds
            }
            style[name] = found[name], aims, noise[name]
    return Seen(errors, alike, style)


def _summaries(
    network: VGG19, picture: Tensor, layers: tuple[str, ...], kinds: tuple[Statistic, ...], cut: Cut
) -> dict[str, dict[str, Tensor]]:
    """Return a picture's summaries by layer and name."""
    wanted = Looks((), dict.fromkeys(layers, kinds))
    found: dict[str, dict[str, Tensor]] = {name: {} for name in layers}
    for key, summary in summarise(network, picture, wanted, _cut(network, picture, layers, cut)).items():
        found[key.layer][key.statistic] = summary
    return found


def _errors(
    network: VGG19, picture: Tensor, content: Tensor, layers: tuple[str, ...], hiss: Tensor, cut: Cut
) -> dict[str, tuple[float, float]]:
    """Return ||F - P||^2 by layer, and ||P||^2 or a small share of what white noise has of it."""

    def energy(features: Tensor) -> float:
        return squared_distance(features, torch.zeros_like(features)).item()

    wanted = Looks(layers)
    distances, energies = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    for tile in _cut(network, picture, layers, cut):
        found, aims = (see(network, one, tile, wanted).features for one in (picture, content))
        for name in layers:
            distances[name] += squared_distance(found[name], aims[name]).item()
            energies[name] += energy(aims[name])
    (tile,) = _cut(network, hiss, layers, WHOLE)
    for name, loud in see(network, hiss, tile, wanted).features.items():
        floor = _FLAT * energy(loud) / positions(hiss, name) * positions(picture, name)
        energies[name] = max(energies[name], floor)
    return {name: (distances[name], energies[name]) for name in layers}


def _cut(network: VGG19, picture: Tensor, layers: tuple[str, ...], cut: Cut) -> list[Tile]:
    return tiles.cut((picture.shape[1], picture.shape[2]), layers, cut.tile, network.padding)


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What measures look at: a picture, what it was made from, and what the network sees of them.

    Pictures are on the CPU; ``shares`` are the styles' and sum to 1.
    """

    picture: Tensor
    content: Tensor | None
    styles: tuple[Tensor, ...]
    shares: tuple[float, ...]
    seen: Seen


class Measure(NamedTuple):
    """A row of `MEASURES`: how it is taken, one line of help, its range, which way is better.

    ``take`` gives None where what it compares with is missing.
    """

    take: Callable[[Scene], float | None]
    help: str
    low: float
    high: float
    better: Literal["higher", "lower"]


def _to_content(measure: Callable[[Tensor, Tensor], float]) -> Callable[[Scene], float | None]:
    def take(scene: Scene) -> float | None:
        return None if scene.content is None else measure(scene.picture, scene.content)

    return take


def _to_styles(
    measure: Callable[[Tensor, Sequence[Tensor], Sequence[float]], float],
) -> Callable[[Scene], float | None]:
    return lambda scene: measure(scene.picture, scene.styles, scene.shares) if scene.styles else None


def _by(name: str) -> Callable[[Scene], float | None]:
    row = STYLE_LOSSES[name]
    return lambda scene: style_error(row, scene.seen.style) if scene.seen.style else None


MEASURES: dict[str, Measure] = {
    "ssim": Measure(_to_content(ssim), "structural similarity to the content", -1, 1, "higher"),
    "edge_ssim": Measure(_to_content(edge_ssim), "the same of the edges", -1, 1, "higher"),
    "content_error": Measure(
        lambda scene: content_error(scene.seen.errors) if scene.seen.errors else None,
        "relative feature error, layers held out",
        0,
        math.inf,
        "lower",
    ),
    "self_similarity": Measure(
        lambda scene: self_similarity(scene.seen.alike) if scene.seen.alike else None,
        "what belongs together in the content, layers held out",
        0,
        2,
        "lower",
    ),
    "style_gram": Measure(_by("gram"), "relative Gram error, layers held out", 0, math.inf, "lower"),
    "style_wasserstein": Measure(
        _by("wasserstein"), "relative 2-Wasserstein distance, layers held out", 0, math.inf, "lower"
    ),
    "style_sliced": Measure(
        _by("sliced"), "relative sliced distance, layers held out", 0, math.inf, "lower"
    ),
    "color": Measure(
        _to_styles(color), "sliced distance to the style's colours, in Lab", 0, math.inf, "lower"
    ),
    "noise_content": Measure(
        _to_content(lambda picture, content: noise(picture, [content], [1.0])),
        "high-frequency energy over the content's",
        0,
        math.inf,
        "lower",
    ),
    "noise_style": Measure(
        _to_styles(noise), "high-frequency energy over the style's", 0, math.inf, "lower"
    ),
    "checkerboard": Measure(
        lambda scene: checkerboard(scene.picture),
        "energy at period 2 over that beside it",
        0,
        math.inf,
        "lower",
    ),
    "saturated": Measure(
        lambda scene: saturated(scene.picture),
        "share of pixels with a channel at its end",
        0,
        1,
        "lower",
    ),
    "frame": Measure(
        lambda scene: frame(scene.picture),
        "how the border differs from what is inside",
        0,
        math.inf,
        "lower",
    ),
}
"""The measures by name."""


def measure_all(
    recipe: Recipe,
    weights: Weights,
    picture: Tensor,
    content: Tensor | None = None,
    styles: Sequence[Tensor] = (),
    cut: Cut = WHOLE,
) -> dict[str, float]:
    """Return every measure that these pictures allow, by name, in the order of `MEASURES`.

    All pictures are on one device; the network works there, in pieces as ``cut`` says. What compares
    with a content or a style is missing without one, and what looks at layers where the recipe leaves
    none to hold out.

    Raises:
        InputError: as `look`.
        ValueError: content and picture differ in size, or a side is under 16 px.
    """
    if content is not None and content.shape != picture.shape:
        raise ValueError(f"a content {tuple(content.shape)} for a picture {tuple(picture.shape)}")
    seen = look(recipe, weights, picture, content, styles, cut)
    scene = Scene(
        picture.cpu(),
        None if content is None else content.cpu(),
        tuple(style.cpu() for style in styles),
        recipe.weight_of_styles(len(styles)) if styles else (),
        seen,
    )
    taken = {name: row.take(scene) for name, row in MEASURES.items()}
    return {name: value for name, value in taken.items() if value is not None}
