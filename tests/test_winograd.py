"""The fast convolution agrees with the plain one, forward and backward, and is never trusted blindly."""

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from impasto import plan, winograd
from impasto.recipe import Recipe
from impasto.vgg import PADDINGS, VGG19
from impasto.weights import Weights

HAS_WINOGRAD = winograd.available()


@pytest.fixture(autouse=True)
def fresh_probe() -> Iterator[None]:
    probe = winograd.available
    probe.cache_clear()
    yield
    probe.cache_clear()


def random_kernel(outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(outputs * inputs)
    kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    return kernel, torch.randn(outputs, generator=generator)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (16, 16), (33, 41), (64, 7)])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 3), (64, 64), (16, 8)])
def test_it_agrees_with_the_direct_convolution(
    outputs: int, inputs: int, height: int, width: int
) -> None:
    if not HAS_WINOGRAD:
        return  # then no plan ever asks for it, which the last two tests hold
    kernel, bias = random_kernel(outputs, inputs)
    features = torch.rand(1, inputs, height, width).requires_grad_()
    direct = functional.conv2d(features, kernel, bias)
    assert winograd.available()
    fast = winograd.convolve(features.detach(), kernel, bias)
    torch.testing.assert_close(fast, direct, rtol=1e-3, atol=1e-3)

    cotangent = torch.rand_like(direct)
    (expected,) = torch.autograd.grad(direct, features, cotangent)
    found = winograd.pull(cotangent, winograd.turned(kernel))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize(("height", "width"), [(8, 20), (33, 41), (64, 7)])
def test_strips_of_rows_have_the_bits_of_the_whole(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not winograd.available():
        return
    kernel, bias = random_kernel(64, 32)
    features, gradient = torch.rand(1, 32, height, width), torch.rand(1, 64, height, width)

    def both() -> list[torch.Tensor]:
        back = winograd.pull(gradient, winograd.turned(kernel))
        return [winograd.convolve(features, kernel, bias), back]

    whole = both()
    monkeypatch.setattr(winograd, "_rows", lambda *_: 6)
    assert all(map(torch.equal, both(), whole))


def test_what_nnpack_works_in_hardly_grows_with_a_picture() -> None:
    assert winograd.workspace(64, 64, 4096, 4096) < 1.1 * winograd._STRIP
    assert winograd.workspace(512, 512, 512, 512) < 6 * 256 * 512 * 512


@pytest.mark.parametrize("side", [2, 6])
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_network_sees_the_same_by_either_way(
    padding: str, side: int, tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not winograd.available():
        return
    monkeypatch.setattr(winograd, "blocks", lambda *_: side)
    picture = torch.rand(3, 37, 52, generator=torch.Generator().manual_seed(1)).requires_grad_()
    layers = ("block1_conv1", "block3_conv2", "block5_conv1")
    direct = VGG19(tiny_weights, padding=padding)(picture, layers)
    fast = VGG19(tiny_weights, padding=padding, by_winograd=True)(picture, layers)
    for name in layers:
        torch.testing.assert_close(fast[name], direct[name], rtol=2e-3, atol=2e-3)

    gradients = []
    for features in (direct, fast):
        total = sum((found.square().sum() for found in features.values()), torch.zeros(()))
        gradients += torch.autograd.grad(total, picture)
    expected, found = gradients
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * expected.abs().max().item())


def test_small_layers_and_narrow_ones_are_left_to_the_direct_way() -> None:
    assert winograd.blocks(64, 64, 192, 256) == 6
    assert winograd.blocks(512, 512, 48, 64) == 6
    assert winograd.blocks(512, 512, 12, 16) == 0
    assert winograd.blocks(64, 4, 192, 256) == 0
    assert winograd.blocks(64, 64, 24, 32) == 0


def test_deep_layers_of_small_pictures_have_their_kernels_transformed_once() -> None:
    assert winograd.blocks(256, 512, 26, 34) == 2
    assert winograd.blocks(512, 256, 26, 34) == 2
    assert winograd.blocks(256, 256, 26, 34) == 0


@pytest.mark.parametrize(("height", "width"), [(3, 3), (4, 9), (16, 16), (33, 41), (64, 7)])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 3), (16, 64), (8, 8)])
def test_blocks_of_two_agree_with_the_direct_convolution(
    outputs: int, inputs: int, height: int, width: int
) -> None:
    kernel, bias = (one.double() for one in random_kernel(outputs, inputs))
    features = torch.rand(1, inputs, height, width, dtype=torch.float64).requires_grad_()
    direct = functional.conv2d(features, kernel, bias)
    fast = winograd.convolve_small(features.detach(), winograd.transformed(kernel), bias)
    torch.testing.assert_close(fast, direct)

    cotangent = torch.rand_like(direct)
    (expected,) = torch.autograd.grad(direct, features, cotangent)
    torch.testing.assert_close(winograd.pull_small(cotangent, winograd.transformed(kernel)), expected)


def test_a_turned_kernel_is_transformed_to_the_same_numbers() -> None:
    kernel, _ = random_kernel(8, 4)
    seen = winograd.transformed(kernel)[winograd._TURNED].transpose(1, 2)
    torch.testing.assert_close(winograd.transformed(winograd.turned(kernel)), seen)


def test_a_kernel_is_prepared_for_the_size_it_is_used_at(
    tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not winograd.available():
        return
    network = VGG19(tiny_weights, by_winograd=True)
    picture = torch.rand(3, 37, 52, generator=torch.Generator().manual_seed(1))
    seen = []
    for side in (6, 2, 6):
        monkeypatch.setattr(winograd, "blocks", lambda *_, side=side: side)
        seen.append(network(picture, ["block3_conv1"])["block3_conv1"])
        for name, (prepared_for, kernel) in network._prepared.items():
            assert prepared_for == side
            outputs, inputs = tiny_weights.kernels[name].shape[:2]
            assert kernel.nbytes == winograd.prepared_bytes(side, outputs, inputs)
    assert len(network._prepared) == 5
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(
    "broken",
    [
        lambda features, kernel, *_: features.new_zeros(1, kernel.shape[0], 18, 16),
        lambda *_: (_ for _ in ()).throw(RuntimeError("NNPACK failed")),
        lambda features, kernel, bias, padding: functional.conv2d(
            features, kernel, bias, padding=max(padding)
        )[:, :, : features.shape[2] + 2 * padding[0] - 2],
    ],
    ids=["wrong", "failing", "wrong in strips"],
)
def test_an_operation_that_is_wrong_or_fails_is_not_used(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "_nnpack_spatial_convolution", broken)
    monkeypatch.setattr("impasto.devices._cpu_flags", set)
    assert not winograd.available()
    assert not plan.make(Recipe(device="cpu"), (64, 64), None).by_winograd


def test_a_torch_without_the_operation_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_nnpack_available")
    assert not winograd.available()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_a_precision_asked_for_by_name_is_computed_directly(precision: str) -> None:
    chosen = plan.make(Recipe(device="cpu", precision=precision), (64, 64), None)
    assert not chosen.by_winograd
    assert chosen.arithmetic == precision


def test_automatic_precision_takes_winograd_only_without_bf16_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(winograd, "available", lambda: True)
    for flags, expected in ((set(), "float32 by Winograd"), ({"avx512_bf16"}, "bfloat16")):
        monkeypatch.setattr("impasto.devices._cpu_flags", lambda flags=flags: flags)
        assert plan.make(Recipe(device="cpu"), (64, 64), None).arithmetic == expected
