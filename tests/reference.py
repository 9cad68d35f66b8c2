"""The report's formulas as plain loops over numbers: slow, and obviously right. No torch."""

from collections.abc import Mapping, Sequence

import numpy as np

from impasto.layers import LAYERS
from impasto.weights import Weights

__all__ = [
    "content_loss",
    "gram",
    "network",
    "padded",
    "pooled",
    "report",
    "style_layer_loss",
    "total_variation",
]


def content_loss(features: np.ndarray, target: np.ndarray) -> float:
    """Equation 1."""
    total = 0.0
    for f, p in zip(features.ravel(), target.ravel(), strict=True):
        total += (f - p) ** 2
    return total / 2


def gram(features: np.ndarray) -> np.ndarray:
    """Equation 2, of features [N, h, w]."""
    channels, height, width = features.shape
    found = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for y in range(height):
                for x in range(width):
                    found[i, j] += features[i, y, x] * features[j, y, x]
    return found


def style_layer_loss(one: np.ndarray, other: np.ndarray, positions: int) -> float:
    """Equation 3, with its square, of two Gram matrices."""
    channels = len(one)
    total = 0.0
    for i in range(channels):
        for j in range(channels):
            total += (one[i, j] - other[i, j]) ** 2
    return total / (4 * channels**2 * positions**2)


def total_variation(picture: np.ndarray) -> float:
    """Sum over channels of the mean squared difference of neighbours, across and down."""
    total = 0.0
    for plane in picture:
        height, width = plane.shape
        across = [(plane[y, x + 1] - plane[y, x]) ** 2 for y in range(height) for x in range(width - 1)]
        down = [(plane[y + 1, x] - plane[y, x]) ** 2 for y in range(height - 1) for x in range(width)]
        total += sum(across) / len(across) + sum(down) / len(down)
    return total


def padded(plane: np.ndarray, y: int, x: int, padding: str) -> float:
    """Return a plane's value at any place, also one cell outside of it."""

    def inside(place: int, size: int) -> int:
        if padding == "circular":
            return place % size
        if padding == "replicate":
            return min(max(place, 0), size - 1)
        # Reflection does not repeat the border: cell -1 is cell 1.
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    height, width = plane.shape
    if padding == "zeros" and not (0 <= y < height and 0 <= x < width):
        return 0.0
    return float(plane[inside(y, height), inside(x, width)])


def convolved(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, padding: str) -> np.ndarray:
    """Return the 3x3 convolution and ReLU of x [C, h, w], position by position."""
    _, height, width = x.shape
    wide = np.array(
        [
            [[padded(plane, i, j, padding) for j in range(-1, width + 1)] for i in range(-1, height + 1)]
            for plane in x
        ]
    )
    found = np.zeros((len(kernel), height, width))
    for i in range(height):
        for j in range(width):
            window = wide[:, i : i + 3, j : j + 3]
            found[:, i, j] = np.maximum((kernel * window).sum(axis=(1, 2, 3)) + bias, 0)
    return found


def pooled(x: np.ndarray, pooling: str) -> np.ndarray:
    """Return every 2x2 cells of x [C, h, w] as one; an odd last row or column is dropped."""
    channels, height, width = x.shape
    found = np.zeros((channels, height // 2, width // 2))
    for c in range(channels):
        for i in range(height // 2):
            for j in range(width // 2):
                cells = [x[c, 2 * i + k, 2 * j + m] for k in (0, 1) for m in (0, 1)]
                if pooling == "average":
                    found[c, i, j] = sum(cells) / 4
                elif pooling == "max":
                    found[c, i, j] = max(cells)
                else:  # of silent cells the root is 1e-6: it has a gradient there
                    found[c, i, j] = max(sum(cell**2 for cell in cells) / 4, 1e-12) ** 0.5
    return found


def network(
    picture: np.ndarray, weights: Weights, pooling: str = "average", padding: str = "zeros"
) -> dict[str, np.ndarray]:
    """Return the features of all sixteen layers for a picture [3, H, W] in 0..1."""
    preprocessing = weights.preprocessing
    x = np.zeros(picture.shape)
    for colour in range(3):
        shifted = picture[colour] * preprocessing.scale - preprocessing.mean[colour]
        x[colour] = shifted / preprocessing.std[colour]
    found: dict[str, np.ndarray] = {}
    for name in LAYERS:
        if name.endswith("conv1") and name != "block1_conv1":
            x = pooled(x, pooling)
        x = convolved(x, weights.kernels[name].numpy(), weights.biases[name].numpy(), padding)
        found[name] = x
    return found


def report(
    picture: Mapping[str, np.ndarray],
    content: Mapping[str, np.ndarray],
    styles: Sequence[Mapping[str, np.ndarray]],
    content_layers: Sequence[str],
    layer_weights: Mapping[str, float],
    style_weights: Sequence[float],
    alpha: float,
    beta: float,
) -> tuple[float, float, float]:
    """Equations 1 to 5 on features by layer: the total, the content loss, the style loss.

    Several content layers are averaged, several styles' Gram matrices mixed, and each Gram matrix is
    divided by its own number of positions, as styles may have other sizes.
    """
    content_total = 0.0
    for name in content_layers:
        content_total += content_loss(picture[name], content[name]) / len(content_layers)
    style_total = 0.0
    for name, weight in layer_weights.items():
        target = sum(
            share * gram(style[name]) / style[name][0].size
            for share, style in zip(style_weights, styles, strict=True)
        )
        mean = gram(picture[name]) / picture[name][0].size
        style_total += weight * style_layer_loss(mean, np.asarray(target), 1)
    return alpha * content_total + beta * style_total, content_total, style_total
