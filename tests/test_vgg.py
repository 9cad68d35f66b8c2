"""The network equals a naive one, for every pooling, padding, size, preprocessing and precision."""

import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import impasto
import reference
from impasto import devices, tiles
from impasto.layers import LAYERS, stride
from impasto.vgg import PADDINGS, POOLINGS, VGG19, l2_pool
from impasto.weights import CAFFE, TORCHVISION, Preprocessing, Weights

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(33, 35), (32, 47), (50, 34)]
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)
every_padding = pytest.mark.parametrize("padding", PADDINGS)


def random_picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, height, width, generator=generator, dtype=torch.float64)


def same(found: dict[str, Tensor], expected: dict[str, np.ndarray], tolerance: float = 1e-10) -> None:
    for name, features in found.items():
        assert features.shape == expected[name].shape
        error = np.abs(features.detach().double().numpy() - expected[name]).max()
        scale = np.abs(expected[name]).max()
        assert scale > 0, f"{name} is silent: nothing is compared"
        assert error <= tolerance * scale, f"{name} is off by {error / scale:.2g}"


VECTOR_MATH = (
    "acos asin atan cos cosh erf erfc erfinv exp expm1 lgamma log log10 log1p log2 "
    "sin sinh sqrt tan tanh"
)
"""What torch may have Intel's MKL compute."""


def test_elementary_functions_are_settled_by_one_thread_before_a_network_is_there(
    tiny_weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.dtype, int]] = []

    def function(numbers: Tensor) -> None:
        asked.append((numbers.dtype, numbers.numel()))

    monkeypatch.setattr(devices, "VECTOR_MATH", (function,))
    # Not yet asked, here; and none of it is remembered later.
    monkeypatch.setattr(
        devices, "settle_vector_math", functools.cache(devices.settle_vector_math.__wrapped__)
    )
    for _ in range(2):
        VGG19(tiny_weights, device="meta")
    assert asked == [(torch.float32, 1), (torch.float64, 1)]


def test_all_elementary_functions_that_are_used_are_settled() -> None:
    call = re.compile(rf"(?<!math)(?<!np)\.({VECTOR_MATH.replace(' ', '|')})_?\(")
    used = {"sqrt"}  # by torch's optimisers
    for path in Path(impasto.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        used |= set(call.findall(text)) if "torch" in text else set()
    assert used == {function.__name__ for function in devices.VECTOR_MATH}


@every_pooling
@every_padding
@pytest.mark.parametrize("size", SIZES)
def test_all_sixteen_layers_equal_the_naive_network(
    tiny_weights: Weights, pooling: str, padding: str, size: tuple[int, int]
) -> None:
    picture = random_picture(*size)
    network = VGG19(tiny_weights, pooling, padding, torch.float64)
    found = network(picture, LAYERS)
    assert list(found) == list(LAYERS)
    same(found, reference.network(picture.numpy(), tiny_weights, pooling, padding))


@every_pooling
@pytest.mark.parametrize("padding", [padding for padding in PADDINGS if padding != "reflect"])
def test_the_smallest_picture_equals_the_naive_network(
    tiny_weights: Weights, pooling: str, padding: str
) -> None:
    picture = random_picture(16, 17)
    found = VGG19(tiny_weights, pooling, padding, torch.float64)(picture, LAYERS)
    same(found, reference.network(picture.numpy(), tiny_weights, pooling, padding))


@pytest.mark.parametrize(
    "preprocessing",
    [CAFFE, TORCHVISION, Preprocessing(2.0, (0.1, -0.2, 0.3), (0.5, 1.0, 4.0))],
    ids=["caffe", "torchvision", "other"],
)
def test_preprocessing_happens_inside_the_network(
    tiny_weights: Weights, preprocessing: Preprocessing
) -> None:
    picture = random_picture(16, 16)
    weights = replace(tiny_weights, preprocessing=preprocessing)
    found = VGG19(weights, precision=torch.float64)(picture, LAYERS)
    same(found, reference.network(picture.numpy(), weights))

    prepared = torch.stack(
        [
            (picture[colour] * preprocessing.scale - preprocessing.mean[colour])
            / preprocessing.std[colour]
            for colour in range(3)
        ]
    )
    bare = replace(tiny_weights, preprocessing=Preprocessing(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    for name, features in VGG19(bare, precision=torch.float64)(prepared, LAYERS).items():
        torch.testing.assert_close(found[name], features, rtol=1e-10, atol=1e-10)


@every_pooling
@every_padding
def test_layers_do_not_depend_on_which_others_are_asked_for(
    tiny_weights: Weights, pooling: str, padding: str
) -> None:
    network = VGG19(tiny_weights, pooling, padding, torch.float64)
    picture = random_picture(33, 40)
    together = network(picture, LAYERS)
    for name in ("block1_conv1", "block1_conv2", "block3_conv4", "block5_conv1"):
        (alone,) = network(picture, [name]).values()
        assert torch.equal(alone, together[name])


def test_the_network_runs_no_deeper_than_it_must(tiny_weights: Weights) -> None:
    network = VGG19(tiny_weights, precision=torch.float64)
    # Two pixels are too few for any layer beyond the first pooling's.
    found = network(random_picture(2, 2), ["block2_conv1", "block1_conv2"])
    assert [tuple(features.shape[1:]) for features in found.values()] == [(2, 2), (1, 1)]


@every_pooling
@every_padding
def test_a_picture_keeps_its_bits_and_gets_a_finite_gradient(
    tiny_weights: Weights, pooling: str, padding: str
) -> None:
    for flat in (None, 0.0, 0.5, 1.0):
        picture = random_picture(33, 34) if flat is None else torch.full((3, 33, 34), flat).double()
        before = picture.clone()
        picture.requires_grad_()
        found = VGG19(tiny_weights, pooling, padding, torch.float64)(picture, LAYERS)
        sum(features.square().sum() for features in found.values()).backward()
        assert torch.equal(picture.detach(), before)
        assert picture.grad is not None
        assert picture.grad.isfinite().all()
        assert picture.grad.abs().sum() > 0


@every_pooling
def test_where_every_feature_is_zero_the_gradient_is_finite(tiny_weights: Weights, pooling: str) -> None:
    silent = replace(
        tiny_weights, biases={name: bias - 1e6 for name, bias in tiny_weights.biases.items()}
    )
    picture = random_picture(16, 16).requires_grad_()
    found = VGG19(silent, pooling, precision=torch.float64)(picture, LAYERS)
    total = torch.stack([features.sum() for features in found.values()]).sum()
    (gradient,) = torch.autograd.grad(total, picture)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_l2_pooling_at_zero_has_the_gradient_zero(dtype: torch.dtype) -> None:
    features = torch.zeros(1, 1, 2, 4, dtype=dtype)
    features[..., 3] = 2.0
    features.requires_grad_()
    l2_pool(features).float().sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert features.grad[..., :2].abs().max() == 0
    # d sqrt(mean x^2) / dx = x / (4 root), and the root is sqrt(2).
    assert features.grad[0, 0, 0, 3].item() == pytest.approx(2 / (4 * 2**0.5), rel=1e-2)


@every_pooling
def test_a_pooling_passes_gradcheck(pooling: str) -> None:
    features = random_picture(6, 7)[None].requires_grad_()
    assert torch.autograd.gradcheck(POOLINGS[pooling], features)


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 3)])
def test_average_pooling_has_torchs_gradient_in_the_layout_of_the_features(
    size: tuple[int, int],
) -> None:
    features = torch.rand(1, 3, *size, dtype=torch.float64)
    cotangent = torch.rand(1, 3, size[0] // 2, size[1] // 2, dtype=torch.float64)
    for layout in (torch.contiguous_format, torch.channels_last):
        at = features.contiguous(memory_format=layout).requires_grad_()
        for given in (cotangent, cotangent.contiguous(memory_format=torch.channels_last)):
            (expected,) = torch.autograd.grad(torch.nn.functional.avg_pool2d(at, 2), at, given)
            (found,) = torch.autograd.grad(POOLINGS["average"](at), at, given)
            assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    "wanted",
    [
        ("block2_conv1",),
        ("block1_conv1", "block2_conv2", "block3_conv1"),
        ("block1_conv2", "block2_conv1"),
    ],
)
@pytest.mark.parametrize("tile", [None, (16, 16)])
@every_padding
def test_pooling_and_relu_go_back_together_as_one_after_the_other(
    tiny_weights: Weights, padding: str, tile: tuple[int, int] | None, wanted: tuple[str, ...]
) -> None:
    picture = random_picture(35, 38).float()
    network = VGG19(tiny_weights, "average", padding, torch.bfloat16)
    assert network._may_join
    # Made for a layer more, a tile goes on with less than it has of that one.
    made_for = (*wanted, "block1_conv2")
    pieces = tiles.cut((35, 38), made_for, None if padding == "circular" else tile, padding)
    for piece in (pieces[0], pieces[-1]):
        gradients = []
        for joint in (True, False):
            with pytest.MonkeyPatch.context() as there:
                there.setattr(network, "_may_join", joint)
                window = tiles.gather(picture, piece).requires_grad_()
                seen = network(window, wanted, piece)
            total = sum((features.float() ** 2).sum() for features in seen.values())
            gradients += torch.autograd.grad(total, window)
        assert gradients[0].abs().max() > 0
        assert torch.equal(*gradients)


def test_l2_pooling_lies_between_average_and_maximum() -> None:
    features = random_picture(16, 16)[None]
    average, middle, largest = (POOLINGS[name](features) for name in ("average", "l2", "max"))
    assert (average < middle).all()
    assert (middle < largest).all()


@every_pooling
@every_padding
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_lower_precision_is_close_and_its_features_have_it(
    tiny_weights: Weights, pooling: str, padding: str, precision: torch.dtype, tolerance: float
) -> None:
    picture = random_picture(34, 33)
    exact = VGG19(tiny_weights, pooling, padding, torch.float64)(picture, LAYERS)
    found = VGG19(tiny_weights, pooling, padding, precision)(picture.float(), LAYERS)
    for name, features in found.items():
        assert features.dtype == precision
        assert (features.double() - exact[name]).norm() < tolerance * exact[name].norm()


def test_preprocessing_is_not_done_in_bf16(tiny_weights: Weights) -> None:
    # In bf16 the mean alone, 123.68, would be off by up to half a grey level, the same everywhere.
    zero = {name: torch.zeros_like(kernel) for name, kernel in tiny_weights.kernels.items()}
    zero["block1_conv1"][0, 0, 1, 1] = 1
    none = {name: torch.zeros_like(bias) for name, bias in tiny_weights.biases.items()}
    weights = replace(tiny_weights, kernels=zero, biases=none)
    grey = torch.full((3, 16, 16), 124.3 / 255)
    features = VGG19(weights, precision=torch.bfloat16)(grey, ["block1_conv1"])["block1_conv1"]
    assert features[0, 8, 8].item() == pytest.approx(124.3 - 123.68, rel=1e-2)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_stride_is_what_the_network_does(tiny_weights: Weights, name: str) -> None:
    (features,) = VGG19(tiny_weights, precision=torch.float64)(random_picture(37, 50), [name]).values()
    assert features.shape == (
        tiny_weights.kernels[name].shape[0],
        37 // stride(name),
        50 // stride(name),
    )


@every_pooling
def test_circular_padding_makes_shifts_and_tilings_commute_with_the_network(
    tiny_weights: Weights, pooling: str
) -> None:
    network = VGG19(tiny_weights, pooling, "circular", torch.float64)
    picture = random_picture(32, 48)
    found = network(picture, LAYERS)
    moved = network(picture.roll((16, 32), dims=(1, 2)), LAYERS)
    tiled = network(picture.tile(1, 2, 2), LAYERS)
    for name, features in found.items():
        steps = 16 // stride(name), 32 // stride(name)
        torch.testing.assert_close(moved[name], features.roll(steps, dims=(1, 2)), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(tiled[name], features.tile(1, 2, 2), rtol=1e-9, atol=1e-9)


@every_padding
def test_replicate_and_reflect_keep_a_flat_picture_flat_and_zeros_do_not(
    tiny_weights: Weights, padding: str
) -> None:
    found = VGG19(tiny_weights, "average", padding, torch.float64)(
        torch.full((3, 48, 48), 0.7).double(), LAYERS
    )
    spread = max(
        (features.amax((1, 2)) - features.amin((1, 2))).max().item() for features in found.values()
    )
    assert (spread > 1e-3) if padding == "zeros" else (spread < 1e-10)


def test_weights_take_no_gradient(tiny_weights: Weights) -> None:
    network = VGG19(tiny_weights, precision=torch.float64)
    assert not any(value.requires_grad for value in (*network.parameters(), *network.buffers()))
