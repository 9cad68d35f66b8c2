"""The losses: equations 1 to 5 of the report, other style and content losses, total variation.

Letters as in the report: F are the picture's features, P the content's, both ``[N, h, w]`` with N
channels at M = h w positions; G and A are the Gram matrices ``[N, N]`` of the picture and of the style.
Divided by M, G = F F^T / M; mu = F 1 / M is the mean, Sigma = G - mu mu^T the covariance, sigma^2 its
diagonal; an index s means the style's.
Distances between summaries are taken in float64: they are small differences of large sums.

A loss of summaries is a row in `STYLE_LOSSES`: a statistic, and the distance of two of them.

Reference: Gatys et al., "Image Style Transfer Using Convolutional Neural Networks" (2016).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from impasto.recipe import Recipe
from impasto.summaries import COLUMNS, FOURIER, GRAM, MEAN, MOMENTS, PATCHES, SAMPLES, SQUARES, Statistic

__all__ = [
    "SELF_SIMILARITY",
    "STYLE_LOSSES",
    "SummaryLoss",
    "barycenter",
    "batch_norm_loss",
    "content_loss",
    "covariance_loss",
    "each",
    "exact",
    "gram_distance",
    "gram_mean_std_loss",
    "mean_loss",
    "nearest_losses",
    "nearest_patch_loss",
    "paired_gaussian_loss",
    "polynomial_loss",
    "self_similarity_loss",
    "sliced_loss",
    "squared_distance",
    "strip_variation",
    "style_layer_loss",
    "style_loss",
    "total_loss",
    "total_variation",
    "wasserstein",
]

_FOOT = 1 / 255
"""Below such a difference of pixels, L1 total variation is round."""

_BLOCK = 128
"""So many positions at least are paired with each other."""

_DIRECTIONS = 128
"""Directions of the sliced distance; its error falls with their root."""

_COMPARED = 1024
"""The most positions that are compared with each other."""


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Return the content loss, 1/2 sum_ij (F_ij - P_ij)^2 (equation 1); a scalar.

    Example:
        >>> content_loss(torch.tensor([[[3.0]]]), torch.tensor([[[1.0]]])).item()
        2.0
    """
    return squared_distance(features, target) / 2


def squared_distance(features: Tensor, target: Tensor) -> Tensor:
    """Return ||F - P||^2, summed in float32 at least; a scalar."""
    # bf16 has 8 bits: the difference of two close features must not be rounded to them again.
    wide = torch.promote_types(features.dtype, torch.float32)
    return (features.to(wide) - target.to(wide)).square().sum()


def gram_distance(gram: Tensor, target: Tensor) -> Tensor:
    """Return the squared Frobenius distance ||G - A||^2 in float64; a scalar."""
    return (exact(gram) - exact(target)).square().sum()


def style_layer_loss(gram: Tensor, target: Tensor, positions: int = 1) -> Tensor:
    """Return a layer's style loss E_l = 1/(4 N^2 M^2) sum_ij (G_ij - A_ij)^2 (equation 3); a scalar.

    The report prints it without the square. Pass Gram matrices divided by their own M, and leave
    ``positions`` at 1, where style and content have different sizes: identical when they agree.

    Example:
        >>> eye = torch.eye(2)
        >>> style_layer_loss(3 * eye, eye, positions=2).item()  # (4 + 4) / (4 * 4 * 4)
        0.125
    """
    channels = gram.shape[0]
    return gram_distance(gram, target) / (4 * channels**2 * positions**2)


def style_loss(layers: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the style loss sum_l w_l E_l (equation 4); a scalar.

    Example:
        >>> style_loss({"a": torch.tensor(2.0), "b": torch.tensor(4.0)}, {"a": 0.5, "b": 0.25}).item()
        2.0
    """
    return torch.stack([weights[name] * loss for name, loss in layers.items()]).sum()


def total_loss(content: Tensor, style: Tensor, alpha: float, beta: float) -> Tensor:
    """Return alpha L_content + beta L_style (equation 5); a scalar.

    Example:
        >>> total_loss(torch.tensor(2.0), torch.tensor(3.0), alpha=0.5, beta=2.0).item()
        7.0
    """
    return alpha * content + beta * style


def total_variation(picture: Tensor, norm: str = "l2", wrap: bool = False) -> Tensor:
    """Return the mean difference of neighbouring pixels, across plus down; a scalar.

    sum over the C channels and both directions of mean (x_p - x_q)^2, for pixels in 0..1: a mean per
    pixel, so that a weight means the same at every size. ``l1`` takes |x_p - x_q|, with a round foot:
    sqrt(d^2 + e^2) - e with e = 1/255. With ``wrap``, the far sides are neighbours.

    Reference: Mahendran and Vedaldi, "Understanding Deep Image Representations by Inverting Them"
    (2015), with exponents 2 and 1.

    Example:
        >>> total_variation(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])).item()
        1.0
    """
    size = picture.shape[1], picture.shape[2]
    below = picture[:, :1] if wrap else picture[:, :0]
    return strip_variation(torch.cat([picture, below], dim=1), size[0], size, norm, wrap)


def strip_variation(
    strip: Tensor, rows: int, size: tuple[int, int], norm: str = "l2", wrap: bool = False
) -> Tensor:
    """Return what ``rows`` rows of a picture of ``size`` add to its `total_variation`.

    ``strip`` has these rows and the one below them, if there is one.
    """

    def total(steps: Tensor) -> Tensor:
        if norm == "l2":
            return exact(steps.square().sum())
        return exact(((steps.square() + _FOOT**2).sqrt() - _FOOT).sum())

    height, width = size
    beside = strip[:, :rows]
    right = beside.roll(-1, 2) if wrap else beside[:, :, 1:]
    across = total(right - beside[:, :, : right.shape[2]])
    down = total(strip[:, 1:] - strip[:, :-1])
    edge = 0 if wrap else 1
    return across / (height * (width - edge)) + down / ((height - edge) * width)


def exact(summary: Tensor) -> Tensor:
    """Return a small tensor in float64, on the CPU where the device has none (Apple's MPS)."""
    if summary.device.type == "mps":
        summary = summary.cpu()
    return summary.double()


# --- distances between summaries ----------------------------------------------------------------


def covariance_loss(moments: Tensor, target: Tensor) -> Tensor:
    """Return 1/(4 N^2) ||Sigma - Sigma_s||^2, of moments ``[N, N + 1]``; a scalar.

    A Gram matrix without the mean: blind to how strong a feature is everywhere.

    Reference: Sun and Saenko, "Deep CORAL" (2016).

    Example:
        >>> covariance_loss(torch.tensor([[5.0, 1.0]]), torch.tensor([[4.0, 2.0]])).item()
        4.0
    """
    channels = moments.shape[0]
    return (_covariance(moments) - _covariance(target)).square().sum() / (4 * channels**2)


def mean_loss(mean: Tensor, target: Tensor) -> Tensor:
    """Return ||mu - mu_s||^2: the squared maximum mean discrepancy (MMD) with the linear kernel x^T y.

    Reference: Li et al., "Demystifying Neural Style Transfer" (2017), as all MMD here; without their
    normalisers 1 / Z_l.

    Example:
        >>> mean_loss(torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [1.0]])).item()
        4.0
    """
    return squared_distance(exact(mean), exact(target))


class _Polynomial(NamedTuple):
    moments: Tensor
    constant: float


def _polynomial_target(moments: Tensor, recipe: Recipe) -> _Polynomial:
    energy = exact(moments)[:, :-1].trace().item()
    return _Polynomial(moments, recipe.mmd_constant * energy)


def polynomial_loss(moments: Tensor, target: Tensor, constant: float) -> Tensor:
    """Return the squared MMD with the kernel (x^T y + c)^2, of moments ``[N, N + 1]``; a scalar.

    ||G - A||^2 + 2 c ||mu - mu_s||^2, with matrices divided by M: c^2 cancels, and the M x M matrix of
    kernels is never made. With c = 0 it is 4 N^2 times equation 3.

    Example:
        >>> polynomial_loss(torch.tensor([[5.0, 1.0]]), torch.tensor([[4.0, 3.0]]), 0.5).item()
        5.0
    """
    found, other = exact(moments), exact(target)
    difference = (found - other).square()
    return difference[:, :-1].sum() + 2 * constant * difference[:, -1].sum()


def batch_norm_loss(squares: Tensor, target: Tensor) -> Tensor:
    """Return 1/N sum_i [(mu - mu_s)^2 + (sigma - sigma_s)^2], of squares ``[N, 2]``; a scalar.

    1e-5 of the target's mean variance is added under the roots: a silent channel's has no slope.

    Reference: Li et al., "Demystifying Neural Style Transfer" (2017), section 4.2.

    Example:
        >>> silent, loud = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 2.0]])
        >>> round(batch_norm_loss(silent, loud).item(), 2)  # mean and deviation are 1
        1.99
    """
    (mean, variance), (other, others) = _mean_and_variance(squares), _mean_and_variance(target)
    floor = 1e-5 * others.mean() + 1e-30
    deviations = (variance + floor).sqrt() - (others + floor).sqrt()
    return ((mean - other).square() + deviations.square()).mean()


def gram_mean_std_loss(moments: Tensor, target: Tensor) -> Tensor:
    """Return equation 3 and, beside it, means and standard deviations, of moments ``[N, N + 1]``.

    1/(4 N^2) ||G - A||^2 + tr(A)/(4 N^2) sum_i [(mu - mu_s)^2 + (sigma - sigma_s)^2]. A Gram matrix
    alone leaves open whether a feature is strong or varies; this does not.

    Departure from the reference: its weights of 1e4 belong to one network's scale; the style's mean
    energy tr(A) / N takes their place and makes both parts alike.

    Reference: Galerne et al., "Scaling Painting Style Transfer" (2024).

    Example:
        >>> one = torch.tensor([[2.0, 1.0]])
        >>> gram_mean_std_loss(one, one).item()
        0.0
    """
    channels = moments.shape[0]
    energy = exact(target)[:, :-1].trace() / channels
    parts = batch_norm_loss(_squares(moments), _squares(target))
    return style_layer_loss(moments[:, :-1], target[:, :-1]) + energy / 4 * parts


class _Gaussian(NamedTuple):
    mean: Tensor
    root: Tensor
    trace: Tensor
    floor: Tensor


def _gaussian(moments: Tensor, _: Recipe | None = None) -> _Gaussian:
    covariance = _covariance(moments)
    floor = 1e-4 * covariance.trace() / len(covariance) + 1e-30
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    covariance = covariance + floor * eye
    return _Gaussian(exact(moments)[:, -1], _root(covariance), covariance.trace(), floor)


def wasserstein(moments: Tensor, target: _Gaussian | Tensor) -> Tensor:
    """Return the squared 2-Wasserstein distance of Gaussians, by N; of moments ``[N, N + 1]``; a scalar.

    1/N (||mu - mu_s||^2 + tr(Sigma + Sigma_s - 2 (Sigma_s^1/2 Sigma Sigma_s^1/2)^1/2)). The trace of
    the last root is the sum of the roots of the eigenvalues, whose gradient 1/2 B (B Sigma B)^-1/2 B,
    B = Sigma_s^1/2, is taken exactly. 1e-4 of the mean variance of Sigma_s is added to both
    diagonals, so that covariances of lower rank (deep layers of small pictures) have a gradient too.

    Reference: Olkin and Pukelsheim, "The distance between two random vectors with given dispersion
    matrices" (1982).

    Example:
        >>> narrow, wide = torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 1.0]])
        >>> round(wasserstein(narrow, wide).item(), 3)  # means 0 and 1, deviations 1 and 2
        2.0
    """
    aim = target if isinstance(target, _Gaussian) else _gaussian(target)
    covariance = _covariance(moments)
    covariance = covariance + aim.floor * torch.eye(
        len(covariance), dtype=covariance.dtype, device=covariance.device
    )
    shared = _TraceOfRoot.apply(aim.root @ covariance @ aim.root, aim.floor**2)  # type: ignore[no-untyped-call]
    spread = covariance.trace() + aim.trace - 2 * shared
    shift = (exact(moments)[:, -1] - aim.mean).square().sum()
    found: Tensor = (shift + spread.clamp_min(0)) / len(covariance)
    return found


def barycenter(moments: Sequence[Tensor], shares: Sequence[float], iterations: int = 50) -> Tensor:
    """Return the moments of the Wasserstein barycentre of Gaussians, for shares that sum to 1.

    The mean is the mixture's; the covariance is the fixed point of
    S <- S^-1/2 (sum_k b_k (S^1/2 S_k S^1/2)^1/2)^2 S^-1/2. Between two styles it is a style of its own
    kind, where mixed moments hold both side by side.

    Reference: Alvarez-Esteban et al., "A fixed-point approach to barycenters in Wasserstein space"
    (2016).

    Example:
        >>> one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[9.0, 0.0]])
        >>> round(barycenter([one, other], [0.5, 0.5])[0, 0].item(), 4)  # deviations 1 and 3: 2
        4.0
    """

    def blend(matrices: list[Tensor]) -> Tensor:
        return torch.stack([share * one for one, share in zip(matrices, shares, strict=True)]).sum(0)

    center = blend([exact(one)[:, -1] for one in moments])
    covariances = [_covariance(one) for one in moments]
    eye = torch.eye(len(center), dtype=torch.float64, device=center.device)
    floor = 1e-8 * max(one.trace().item() for one in covariances) + 1e-30
    covariances = [one + floor * eye for one in covariances]
    found = blend(covariances)
    for _ in range(iterations):
        root, inverse = _root(found), _root(found, inverse=True)
        inner = blend([_root(root @ one @ root) for one in covariances])
        before, found = found, inverse @ (inner @ inner) @ inverse
        if (found - before).norm() <= 1e-10 * before.norm():
            break
    return torch.cat([found - floor * eye + torch.outer(center, center), center[:, None]], dim=1)


class _Sorted(NamedTuple):
    directions: Tensor
    values: Tensor


def _sliced_target(samples: Tensor, _: Recipe | None = None) -> _Sorted:
    channels = len(samples)
    generator = torch.Generator().manual_seed(channels)
    drawn = torch.randn(min(channels, _DIRECTIONS), channels, generator=generator, dtype=torch.float64)
    directions = functional.normalize(drawn, dim=1).to(samples.device)
    return _Sorted(directions, (directions @ exact(samples)).sort(dim=1).values)


def _axes_target(samples: Tensor, _: Recipe | None = None) -> _Sorted:
    axes = torch.eye(len(samples), dtype=torch.float64, device=samples.device)
    return _Sorted(axes, exact(samples).sort(dim=1).values)


def sliced_loss(samples: Tensor, target: _Sorted | Tensor) -> Tensor:
    """Return the sliced 2-Wasserstein distance, squared, of samples ``[N, n]``; a scalar.

    The mean over directions v and ranks i of (sort(v^T F)_i - sort(v^T S)_i)^2: up to 128 unit vectors,
    the same in every evaluation, so that there is one objective to descend. Lists of other lengths are
    compared at the same shares of their length.

    Defined over n positions, not over all: see `summaries.points`.

    Reference: Heitz et al., "A Sliced Wasserstein Loss for Neural Texture Synthesis" (2021), which
    draws N new directions each time.

    Example:
        >>> sliced_loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 1.0]])).item()
        0.5
    """
    aim = target if isinstance(target, _Sorted) else _sliced_target(target)
    found = (aim.directions @ exact(samples)).sort(dim=1).values
    return (found - _resampled(aim.values, found.shape[1])).square().mean()


def _resampled(values: Tensor, count: int) -> Tensor:
    """Return sorted rows of another length: their values at the same shares of it, linearly between."""
    have = values.shape[1]
    if have == count:
        return values
    places = ((torch.arange(count, device=values.device) + 0.5) * have / count - 0.5).clamp(0, have - 1)
    below = places.floor().long()
    part = (places - below).to(values.dtype)
    return values[:, below] * (1 - part) + values[:, (below + 1).clamp(max=have - 1)] * part


class _Paired(NamedTuple):
    samples: Tensor
    spread: float


def _paired_target(samples: Tensor, _: Recipe | None = None) -> _Paired:
    found = exact(samples)
    return _Paired(found, max(1e-30, found.var(dim=1, correction=0).sum().item()))


def paired_gaussian_loss(samples: Tensor, target: _Paired | Tensor) -> Tensor:
    """Return an unbiased estimate of the squared MMD with a Gaussian kernel, of samples ``[N, n]``.

    The mean of h = k(f, f') + k(s, s') - k(f, s') - k(f', s) over pairs of positions, and
    k(x, y) = exp(-||x - y||^2 / (2 spread)), the style's variance for spread. Linear in n; right in the
    mean over pairs, and so sometimes negative.

    Departure from the reference, where a position is in one pair: here it pairs with all others of a
    block of 128 or more. The fewer pairs, the more is won by painting noise that suits just them.

    Reference: Li et al., "Demystifying Neural Style Transfer" (2017), equation 9; in blocks,
    Zaremba et al., "B-tests: Low Variance Kernel Two-Sample Tests" (2013).

    Example:
        >>> near, far = torch.rand(2, 50), 100 + torch.rand(2, 50)
        >>> 0.5 < paired_gaussian_loss(far, near).item() < 2  # nothing in common
        True
    """
    aim = target if isinstance(target, _Paired) else _paired_target(target)
    found, other = exact(samples), aim.samples
    count = min(found.shape[1], other.shape[1])
    blocks = max(1, count // _BLOCK)
    size = count // blocks
    order = torch.Generator().manual_seed(0)

    def dealt(x: Tensor) -> Tensor:
        # In reading order, neighbours would be alike.
        places = torch.randperm(x.shape[1], generator=order)[: blocks * size].to(x.device)
        return x[:, places].T.reshape(blocks, size, -1)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        here, there = (one.square().sum(2) for one in (x, y))
        squares = here[:, :, None] + there[:, None] - 2 * x @ y.mT
        return (squares.clamp_min(0) / (-2 * aim.spread)).exp()  # rounded, they may be below 0

    f, s = dealt(found), dealt(other)
    h = kernel(f, f) + kernel(s, s) - 2 * kernel(f, s)  # in the sum over both orders of a pair
    if size == 1:  # a single position pairs with itself
        return h.mean()
    return (h.sum() - h.diagonal(dim1=1, dim2=2).sum()) / (blocks * size * (size - 1))


class _Neighbours(NamedTuple):
    samples: Tensor
    directions: Tensor


def _neighbours(samples: Tensor, _: Recipe | None = None) -> _Neighbours:
    return _Neighbours(exact(samples), _directions(samples))


def _directions(samples: Tensor) -> Tensor:
    """Return samples ``[N, n]`` less their mean, of length 1; in float32, which suffices to choose."""
    found = exact(samples)
    return _unit(found - found.mean(dim=1, keepdim=True), _energy(samples)).float()


@torch.no_grad()
def _nearest(samples: Sequence[Tensor], aims: Sequence[_Neighbours]) -> Tensor:
    """Return the number of each sample's neighbour, for samples and style by layer."""
    chosen = []
    # In four parts: the matrix of all cosines is large.
    for parts in zip(*(_directions(one).chunk(4, dim=1) for one in samples), strict=True):
        cosines = [part.T @ aim.directions for part, aim in zip(parts, aims, strict=True)]
        chosen.append(torch.stack(cosines).sum(0).argmax(dim=1))
    return torch.cat(chosen)


def nearest_losses(
    columns: Mapping[str, Tensor], targets: Mapping[str, _Neighbours | Tensor]
) -> dict[str, Tensor]:
    """Return by layer the mean squared distance to the nearest column of the style, by N; scalars.

    1/(N n) sum_i ||f_i - s_NN(i)||^2. A column (hypercolumn) is what all layers see at one place,
    ``[N, n]`` each. Its nearest has the largest cosine on average over the layers, both less their own
    picture's mean: a bright photograph is not painted with the brightest strokes alone. It is chosen
    anew in every evaluation, and then taken as fixed.

    Defined over n positions: see `summaries.points`.

    Departures from the reference: columns are not resized, each layer gives the cells of a place
    (`summaries.columns`); and its distance 1 - cos(f, s) leaves open how strong a feature is, which
    became noise and hard contrast.

    Reference: Kolkin et al., "Neural Neighbor Style Transfer" (2022).

    Example:
        >>> columns = {"one": torch.rand(4, 6), "two": torch.rand(3, 6)}
        >>> [loss.item() for loss in nearest_losses(columns, columns).values()]
        [0.0, 0.0]
    """
    aims = {
        name: target if isinstance(target, _Neighbours) else _neighbours(target)
        for name, target in targets.items()
    }
    chosen = _nearest([columns[name] for name in aims], list(aims.values()))
    return {
        name: (exact(columns[name]) - aim.samples[:, chosen]).square().mean()
        for name, aim in aims.items()
    }


def nearest_patch_loss(patches: Tensor, target: _Neighbours | Tensor) -> Tensor:
    """Return the mean squared distance to the nearest 3x3 patch of the style, by 9 N; a scalar.

    1/(9 N n) sum_i ||Psi_i(F) - Psi_NN(i)(S)||^2, of patches ``[9 N, n]``. The nearest has the largest
    normalised cross-correlation; it is chosen anew in every evaluation, and then taken as fixed.

    Defined over n positions: see `summaries.points`.

    Departure from the reference: correlated are patches less their own picture's mean patch, as for
    `nearest_losses`; and all style layers count, the reference takes block3_conv1 and block4_conv1.

    Reference: Li and Wand, "Combining Markov Random Fields and Convolutional Neural Networks for Image
    Synthesis" (2016).

    Example:
        >>> patches = torch.tensor([[0.0, 1.0, 5.0], [3.0, 1.0, 2.0]])
        >>> nearest_patch_loss(patches + 1, patches).item()
        1.0
    """
    return nearest_losses({"": patches}, {"": target})[""]


def self_similarity_loss(samples: Tensor, target: Tensor) -> Tensor:
    """Return how the positions' likeness to each other differs from the content's; a scalar.

    mean_ij |D_ij / sum_i D_ij - P_ij / sum_i P_ij| n, with the cosine distances D and P among n samples
    ``[N, n]`` of picture and content, here up to 1024. What the content looks like is free; what belongs
    together stays together.

    Reference: Kolkin et al., "Style Transfer by Relaxed Optimal Transport and Self-Similarity" (2019).

    Example:
        >>> samples = torch.rand(3, 8)
        >>> self_similarity_loss(2 * samples, samples).item() < 1e-4
        True
    """
    step = -(-samples.shape[1] // _COMPARED)
    energy = _energy(target)
    found, other = (_unlikeness(_unit(exact(x)[:, ::step], energy)) for x in (samples, target))
    return (found - other).abs().sum() / found.shape[1]


def _unlikeness(unit: Tensor) -> Tensor:
    distances = (1 - unit.T @ unit).clamp_min(0)
    return distances / distances.sum(dim=0).clamp_min(1e-12)


def _energy(samples: Tensor) -> Tensor:
    """Return the mean squared length of samples ``[N, n]``."""
    return exact(samples).square().sum(dim=0).mean()


def _unit(vectors: Tensor, energy: Tensor) -> Tensor:
    """Return vectors ``[N, n]`` of length 1; next to silent ones have no direction, and stay short."""
    return vectors / (vectors.square().sum(dim=0) + 1e-6 * energy + 1e-30).sqrt()


def _covariance(moments: Tensor) -> Tensor:
    found = exact(moments)
    return found[:, :-1] - torch.outer(found[:, -1], found[:, -1])


def _squares(moments: Tensor) -> Tensor:
    return torch.stack([moments[:, -1], moments[:, :-1].diagonal()], dim=1)


def _mean_and_variance(squares: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = exact(squares).unbind(1)
    return mean, (square - mean.square()).clamp_min(0)


def _root(matrix: Tensor, inverse: bool = False) -> Tensor:
    """Return the root of a symmetric matrix without negative eigenvalues, or that root's inverse."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    roots = values.clamp_min(1e-300).sqrt()
    found: Tensor = vectors @ ((1 / roots if inverse else roots)[:, None] * vectors.T)
    return found


class _TraceOfRoot(torch.autograd.Function):
    """The trace of a symmetric matrix' root; eigenvalues below a floor have the floor's gradient."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, floor: Tensor) -> Tensor:  # noqa: ANN401
        values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        roots = values.clamp_min(0).sqrt()
        ctx.save_for_backward(vectors, values.clamp_min(floor.item()).sqrt())
        total: Tensor = roots.sum()
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        vectors, roots = ctx.saved_tensors
        return gradient / 2 * (vectors @ (vectors.T / roots[:, None])), None


# --- the table ----------------------------------------------------------------------------------


Distances = Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict[str, Tensor]]


def _aim(summary: Tensor, _: Recipe) -> Any:  # noqa: ANN401
    return summary


def each(distance: Callable[[Tensor, Any], Tensor]) -> Distances:
    """Return distances by layer from one that compares a single layer's summaries."""

    def distances(summaries: Mapping[str, Tensor], targets: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: distance(summaries[name], target) for name, target in targets.items()}

    return distances


class SummaryLoss(NamedTuple):
    """A loss of what is summed over positions: a row of `STYLE_LOSSES`.

    ``aim`` makes of a style's summary and the recipe what ``distances`` compares with, once.
    ``degree``: features twice as large make the loss 4 ** degree times as large, 0 not at all.
    Balanced, a distance is relative to that of silent features; one that is ``from_content``, to the
    content picture's: silence has no nearest neighbour. ``balance`` then makes it as strong as Gram
    matrices at the same alpha and beta, measured.
    """

    statistic: Statistic
    distances: Distances
    aim: Callable[[Tensor, Recipe], Any] = _aim
    degree: int = 1
    from_content: bool = False
    balance: float = 1.0
    unbiased: bool = False
    """An estimate that is right on average: it may be negative, and not 0 at its target."""


STYLE_LOSSES: dict[str, SummaryLoss] = {
    "gram": SummaryLoss(GRAM, each(style_layer_loss), degree=2),
    "covariance": SummaryLoss(MOMENTS, each(covariance_loss), degree=2, balance=0.5),
    "mmd-linear": SummaryLoss(MEAN, each(mean_loss), balance=3),
    "mmd-poly": SummaryLoss(
        MOMENTS,
        each(lambda found, aim: polynomial_loss(found, *aim)),
        _polynomial_target,
        degree=2,
        balance=2.2,
    ),
    "mmd-gaussian": SummaryLoss(FOURIER, each(mean_loss), degree=0, balance=5),
    "mmd-gaussian-paired": SummaryLoss(
        SAMPLES, each(paired_gaussian_loss), _paired_target, degree=0, unbiased=True, balance=4
    ),
    "bn": SummaryLoss(SQUARES, each(batch_norm_loss), balance=2.7),
    "gram-mean-std": SummaryLoss(MOMENTS, each(gram_mean_std_loss), degree=2, balance=2.2),
    "wasserstein": SummaryLoss(MOMENTS, each(wasserstein), _gaussian),
    "sliced": SummaryLoss(SAMPLES, each(sliced_loss), _sliced_target, balance=4),
    "histogram": SummaryLoss(SAMPLES, each(sliced_loss), _axes_target, balance=2),
    "nearest": SummaryLoss(COLUMNS, nearest_losses, _neighbours, from_content=True, balance=1.6),
    "nearest-patches": SummaryLoss(
        PATCHES, each(nearest_patch_loss), _neighbours, from_content=True, balance=0.9
    ),
}
"""The style losses by name; `catalog.STYLE_LOSSES` has a line of help for each."""

SELF_SIMILARITY = SummaryLoss(SAMPLES, each(self_similarity_loss), degree=0)
"""The content loss of that name."""
