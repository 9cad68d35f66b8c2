"""The losses: equations 1 to 5 of the report, total variation, and their balanced forms.

Letters as in the report: F are the picture's features, P the content's, both ``[N, h, w]`` with N
channels at M = h w positions; G and A are the Gram matrices ``[N, N]`` of the picture and of the style.
Distances between Gram matrices are taken in float64: they are small differences of large sums.

Reference: Gatys et al., "Image Style Transfer Using Convolutional Neural Networks" (2016).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = [
    "content_loss",
    "exact",
    "gram_distance",
    "mean_steps",
    "squared_distance",
    "squared_steps",
    "style_layer_loss",
    "style_loss",
    "total_loss",
    "total_variation",
]


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


def total_variation(picture: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring pixels, across plus down; a scalar.

    sum over the C channels and both directions of mean (x_p - x_q)^2, for pixels in 0..1: a mean per
    pixel, so that a weight means the same at every size.

    Reference: Mahendran and Vedaldi, "Understanding Deep Image Representations by Inverting Them"
    (2015), with exponent 2.

    Example:
        >>> total_variation(torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])).item()
        1.0
    """
    return mean_steps(*squared_steps(picture), (picture.shape[1], picture.shape[2]))


def squared_steps(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of (x_p - x_q)^2 over pixels beside and below each other; two scalars."""
    across = (picture[:, :, 1:] - picture[:, :, :-1]).square().sum()
    down = (picture[:, 1:, :] - picture[:, :-1, :]).square().sum()
    return across, down


def mean_steps(across: Tensor, down: Tensor, size: tuple[int, int]) -> Tensor:
    """Return total variation from `squared_steps`, of a picture of ``size`` or summed over its parts."""
    height, width = size
    return exact(across) / (height * (width - 1)) + exact(down) / ((height - 1) * width)


def exact(summary: Tensor) -> Tensor:
    """Return a small tensor in float64, on the CPU where the device has none (Apple's MPS)."""
    if summary.device.type == "mps":
        summary = summary.cpu()
    return summary.double()
