"""oneDNN's convolution with kernels laid out once agrees with torch's, and is never trusted blindly."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from impasto import onednn
from impasto.vgg import PADDINGS, VGG19
from impasto.weights import Weights

LAYERS = ("block1_conv1", "block2_conv2", "block5_conv1")
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
AVAILABLE = [precision for precision in TOLERANCES if onednn.available(precision)]


@pytest.fixture(autouse=True)
def fresh_probe() -> Iterator[None]:
    probe = onednn.available
    probe.cache_clear()
    yield
    probe.cache_clear()


def random(*shape: int, precision: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(precision)


@pytest.mark.parametrize("precision", AVAILABLE)
@pytest.mark.parametrize(("height", "width"), [(3, 3), (16, 16), (33, 41), (64, 7)])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 3), (16, 8), (64, 64)])
def test_it_agrees_with_the_plain_convolution(
    outputs: int, inputs: int, height: int, width: int, precision: torch.dtype
) -> None:
    kernel, bias = random(outputs, inputs, 3, 3, precision=precision), random(outputs)
    features = random(1, inputs, height, width, precision=precision)
    gradient = random(1, outputs, height - 2, width - 2, precision=precision)
    laid_out = onednn.laid_out(kernel)
    found = onednn.convolve(features, laid_out.forward, bias.to(precision))
    back = onednn.pull(gradient, laid_out.back)
    kernel, tolerance = kernel.double(), TOLERANCES[precision]
    exact = functional.conv2d(features.double(), kernel, bias.to(precision).double()).relu_()
    exactly_back = functional.conv_transpose2d(gradient.double(), kernel)
    for one, right in ((found, exact), (back, exactly_back)):
        torch.testing.assert_close(
            one.double(), right, rtol=0, atol=tolerance * right.abs().max().item()
        )


@pytest.mark.parametrize("precision", AVAILABLE)
def test_no_bit_depends_on_the_size_that_a_kernel_was_laid_out_for(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, bias = random(64, 32, 3, 3, precision=precision), random(64, precision=precision)
    seen = []
    for sides in ((64, 64), (5, 6), (300, 200)):
        monkeypatch.setattr(onednn, "_TYPICAL", sides)
        laid_out = onednn.laid_out(kernel)
        for height, width in ((90, 70), (5, 6)):
            features = random(1, 32, height, width, precision=precision)
            found = onednn.convolve(features, laid_out.forward, bias)
            seen.append((found, onednn.pull(found, laid_out.back)))
    assert all(all(map(torch.equal, *several)) for several in zip(seen[:2] * 2, seen[2:], strict=True))


@pytest.mark.parametrize("precision", AVAILABLE)
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_network_sees_the_same_with_it_and_without(
    padding: str, precision: torch.dtype, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = torch.rand(3, 37, 52, generator=torch.Generator().manual_seed(1)).requires_grad_()
    seen = []
    for there in (True, False):
        monkeypatch.setattr(onednn, "available", lambda _, there=there: there)
        features = VGG19(tiny_weights, padding=padding, precision=precision)(picture, LAYERS)
        total = sum((found.float().square().sum() for found in features.values()), torch.zeros(()))
        seen.append([*features.values(), *torch.autograd.grad(total, picture)])
    for found, expected in zip(*seen, strict=True):
        most = TOLERANCES[precision] * expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=most)


def test_a_network_has_its_kernels_twice_and_says_so(tiny_weights: Weights) -> None:
    if not AVAILABLE:
        return  # then no network ever asks for it, as the tests below hold
    kernels = sum(4 * kernel.numel() for kernel in tiny_weights.kernels.values())
    biases = sum(4 * bias.numel() for bias in tiny_weights.biases.values())
    assert VGG19(tiny_weights, device="meta").bytes == 2 * (kernels + biases)
    network = VGG19(tiny_weights)
    assert set(network._laid_out) == set(tiny_weights.kernels)
    assert all("bias" in name for name, _ in network.named_buffers())


def test_a_build_without_the_operations_does_without(
    tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("_OpNamespace has no attribute '_convolution_pointwise'")

    monkeypatch.setattr(onednn, "_convolve", missing)
    assert not onednn.available(torch.float32)
    network = VGG19(tiny_weights)
    assert not network.by_onednn
    assert network(torch.rand(3, 32, 32), LAYERS)


@pytest.mark.parametrize("precision", AVAILABLE)
@pytest.mark.parametrize("name", ["convolve", "pull"])
def test_a_wrong_result_is_not_trusted(
    name: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(onednn, name)
    monkeypatch.setattr(onednn, name, lambda *given: 1.1 * right(*given))
    assert not onednn.available(precision)


def test_no_other_precision_asks_for_it(tiny_weights: Weights) -> None:
    assert not onednn.available(torch.float64)
    assert not VGG19(tiny_weights, precision=torch.float64).by_onednn
    assert not VGG19(tiny_weights, by_winograd=True).by_onednn
