"""VGG-19's convolution layers: names, widths, strides. No torch.

A layer is called by its Keras name, ``block4_conv2``, and means the features *after* the ReLU, as in
the report. The paper's names, ``conv4_2`` and ``relu4_2``, are accepted and mean the same.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from impasto.errors import InputError, near

__all__ = ["LAYERS", "REPORT_CONTENT", "REPORT_STYLE", "Layer", "canonical", "deepest", "stride"]


class Layer(NamedTuple):
    """One 3x3 convolution: its name and the channels it reads and writes."""

    name: str
    inputs: int
    channels: int

    @property
    def block(self) -> int:
        """The block it stands in, 1 to 5; a pooling lies between two blocks."""
        return int(self.name[5])


_WIDTHS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def _table() -> dict[str, Layer]:
    layers, inputs = {}, 3
    for block, (channels, count) in enumerate(_WIDTHS, start=1):
        for index in range(1, count + 1):
            name = f"block{block}_conv{index}"
            layers[name] = Layer(name, inputs, channels)
            inputs = channels
    return layers


LAYERS: dict[str, Layer] = _table()
"""The sixteen convolution layers by name, in network order."""

REPORT_CONTENT = ("block4_conv2",)
REPORT_STYLE = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")
"""The report's content layer and its style layers."""


def canonical(name: str) -> str:
    """Return a layer's Keras name from any of its names.

    Raises:
        InputError: no layer of VGG-19 has this name.

    Example:
        >>> canonical("conv4_2"), canonical("relu4_2"), canonical("block4_conv2")
        ('block4_conv2', 'block4_conv2', 'block4_conv2')
    """
    word = name.strip().lower()
    paper = re.fullmatch(r"(?:conv|relu)(\d)_(\d)", word)
    found = f"block{paper[1]}_conv{paper[2]}" if paper else word
    if found not in LAYERS:
        raise InputError(
            f"unknown layer {name!r}; VGG-19 has block1_conv1 ... block5_conv4 "
            f"(or conv1_1, relu1_1 ... conv5_4){near(found, LAYERS)}"
        )
    return found


def deepest(names: Iterable[str]) -> str:
    """Return the one of ``names`` that lies deepest in the network."""
    order = list(LAYERS)
    return max(names, key=order.index)


def stride(name: str) -> int:
    """Return how many pixels lie between neighbouring features of a layer.

    Example:
        >>> stride("block1_conv1"), stride("block5_conv1")
        (1, 16)
    """
    return 1 << (LAYERS[name].block - 1)
