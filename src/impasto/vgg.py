"""VGG-19 by layer name: what the network sees in a picture.

Shapes: a picture is ``[3, H, W]``, sRGB in 0..1; the features of a layer are ``[C, h, w]``, after the
ReLU. Preprocessing belongs to the weights and happens in here, so that nobody can forget it.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from impasto import winograd
from impasto.layers import LAYERS, deepest
from impasto.weights import Weights

__all__ = ["PADDINGS", "POOLINGS", "VGG19", "l2_pool"]


def average_pool(features: Tensor) -> Tensor:
    """Return the mean of every 2x2 cells: the report's pooling."""
    return functional.avg_pool2d(features, 2)


def max_pool(features: Tensor) -> Tensor:
    """Return the largest of every 2x2 cells: the pooling VGG-19 was trained with."""
    return functional.max_pool2d(features, 2)


def l2_pool(features: Tensor) -> Tensor:
    """Return the root of the mean square of every 2x2 cells, between average and maximum.

    Below a root mean square of 1e-6 the gradient is zero, where the root's own would be infinite.

    Example:
        >>> round(l2_pool(torch.tensor([[[[3.0, 1.0], [1.0, 1.0]]]])).item() ** 2, 5)
        3.0
    """
    return functional.avg_pool2d(features.square(), 2).clamp_min(1e-12).sqrt()


POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": average_pool,
    "max": max_pool,
    "l2": l2_pool,
}
PADDINGS = ("zeros", "replicate", "reflect", "circular")


class VGG19(nn.Module):
    """VGG-19's convolutions up to any layer, with the pooling and padding one asks for.

    Reference: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
    Recognition" (2014); average pooling after Gatys et al. (2016).
    """

    def __init__(
        self,
        weights: Weights,
        pooling: str = "average",
        padding: str = "zeros",
        precision: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        by_winograd: bool = False,
    ) -> None:
        """Place the weights on ``device`` in ``precision``; they never need a gradient.

        ``by_winograd`` convolves by `winograd` wherever that pays: float32 on a CPU only.
        """
        super().__init__()
        self.pool = POOLINGS[pooling]
        self.padding = padding
        self.precision = precision
        self.by_winograd = by_winograd
        self.layout = torch.contiguous_format if by_winograd else torch.channels_last
        preprocessing = weights.preprocessing
        wide = torch.float64 if precision == torch.float64 else torch.float32

        def colours(values: tuple[float, float, float]) -> Tensor:
            return torch.tensor(values, dtype=wide, device=device).view(3, 1, 1)

        self.scale = preprocessing.scale
        self.mean, self.std = colours(preprocessing.mean), colours(preprocessing.std)
        for name, kernel in weights.kernels.items():
            kernel = kernel.to(device, precision, memory_format=self.layout)
            self.register_buffer(f"{name}_kernel", kernel)
            if by_winograd:
                self.register_buffer(f"{name}_turned", winograd.turned(kernel))
            self.register_buffer(f"{name}_bias", weights.biases[name].to(device, precision))

    def forward(self, picture: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the features ``[C, h, w]`` of each of ``layers`` for a picture ``[3, H, W]``.

        The network runs no deeper than the deepest of them.
        """
        wanted = set(layers)
        last = deepest(wanted)
        # Preprocessing is done in the picture's own precision; only features are ever bf16.
        x = ((picture * self.scale - self.mean) / self.std).unsqueeze(0)
        x = x.to(self.precision, memory_format=self.layout)
        found: dict[str, Tensor] = {}
        block = 1
        for layer in LAYERS.values():
            if layer.block > block:
                x, block = self.pool(x), layer.block
            x = self._convolve(layer.name, x).relu_()
            if layer.name in wanted:
                found[layer.name] = x.squeeze(0)
            if layer.name == last:
                break
        return found

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        kernel = self.get_buffer(f"{name}_kernel")
        bias = self.get_buffer(f"{name}_bias")
        padding = 1 if self.padding == "zeros" else 0
        height, width = x.shape[2:]
        if padding == 0:
            x = functional.pad(x, (1, 1, 1, 1), mode=self.padding)
        if self.by_winograd and winograd.pays(kernel.shape[0], height, width):
            return winograd.convolve(x, kernel, bias, self.get_buffer(f"{name}_turned"), padding)
        return functional.conv2d(x, kernel, bias, padding=padding)
