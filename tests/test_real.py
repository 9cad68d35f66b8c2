"""What only the real network can tell, with the embedded weights."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto import images, samples, schedule, transfer
from impasto.__main__ import main
from impasto.events import Step
from impasto.layers import LAYERS
from impasto.layers import REPORT_STYLE as REPORT_LAYERS
from impasto.objective import Objective
from impasto.recipe import Recipe
from impasto.tiles import WHOLE, Cut
from impasto.transfer import Pictures
from impasto.vgg import VGG19
from impasto.weights import load

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> VGG19:
    return VGG19(load())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a photograph and a painting, 64 px wide."""
    folder = tmp_path_factory.mktemp("pictures")
    photo, painting = folder / "photo.png", folder / "painting.png"
    samples.photo("chelsea").resize((64, 43), Image.Resampling.LANCZOS).save(photo)
    samples.painting("swirl", 64).save(painting)
    return photo, painting


def photograph(inputs: tuple[Path, Path]) -> Tensor:
    return images.read(inputs[0])


def test_a_small_transfer_lowers_the_loss_of_the_saved_picture_threefold(
    tmp_path: Path, inputs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content, style = map(str, inputs)
    totals: list[float] = []
    for iterations in (0, 25):
        out = str(tmp_path / f"{iterations}.png")
        words = ["--size", "64", "--iterations", str(iterations), "-o", out]
        assert main(["transfer", content, style, *words]) == 0
        capsys.readouterr()
        assert main(["measure", out, "--content", content, "--style", style, "--json"]) == 0
        totals.append(json.loads(capsys.readouterr().out)["total"])
    start, end = totals
    assert end < start / 3


@pytest.mark.parametrize("preset", ["report", "gatys"])
def test_the_reports_recipes_descend(inputs: tuple[Path, Path], preset: str) -> None:
    recipe = Recipe.from_preset(preset, size=48, iterations=6, precision="float32")
    content, style = map(images.read, inputs)
    pictures = Pictures(content, (style,))
    events = transfer.run(recipe, pictures, transfer.plan_for(recipe, pictures))
    totals = [event.losses.total for event in events if isinstance(event, Step)]
    assert all(after < before for before, after in pairwise(totals))
    assert totals[-1] < 0.8 * totals[0]


@torch.no_grad()
def test_features_are_alive_sparse_and_finite_in_every_layer(
    network: VGG19, inputs: tuple[Path, Path]
) -> None:
    for name, features in network(photograph(inputs), LAYERS).items():
        assert features.isfinite().all(), name
        assert features.min() == 0 < features.max(), name
        alive = (features > 0).float().mean().item()
        assert 0.02 < alive < 0.98, name
        assert (features.flatten(1).amax(1) > 0).float().mean() > 0.2, name


@torch.no_grad()
def test_the_order_of_colours_matters(network: VGG19, inputs: tuple[Path, Path]) -> None:
    photo = photograph(inputs)
    right, flipped = network(photo, REPORT_LAYERS), network(photo.flip(0), REPORT_LAYERS)
    for name in REPORT_LAYERS:
        difference = (right[name] - flipped[name]).norm() / right[name].norm()
        assert difference > 0.05, name


@torch.no_grad()
def test_the_network_sees_edges_more_than_brightness(network: VGG19, inputs: tuple[Path, Path]) -> None:
    photo = photograph(inputs)
    (there,) = network(photo, ["block3_conv1"]).values()
    (darker,) = network((photo - 0.05).clamp(0, 1), ["block3_conv1"]).values()
    (moved,) = network(photo.roll(4, dims=2), ["block3_conv1"]).values()
    assert (darker - there).norm() < 0.5 * (moved - there).norm()


@torch.no_grad()
def test_bfloat16_sees_nearly_what_float32_sees(network: VGG19, inputs: tuple[Path, Path]) -> None:
    photo = photograph(inputs)
    coarse = VGG19(load(), precision=torch.bfloat16)(photo, LAYERS)
    for name, features in network(photo, LAYERS).items():
        assert (coarse[name].float() - features).norm() < 0.05 * features.norm(), name


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect", "circular"])
def test_tiles_are_exact_with_the_real_network(inputs: tuple[Path, Path], padding: str) -> None:
    network = VGG19(load(), padding=padding, precision=torch.float64, last="block5_conv1")
    size = (96, 128) if padding == "circular" else (101, 119)
    content, style = (schedule.resize(images.read(path).double(), size) for path in inputs)
    recipe = Recipe(padding=padding)  # type: ignore[arg-type]
    whole, tiled = (
        Objective(recipe, network, content, [style], cut)(style) for cut in (WHOLE, Cut((48, 64)))
    )
    error = (tiled.gradient - whole.gradient).norm() / whole.gradient.norm()
    assert error < 1e-12
    assert tiled.losses.total == pytest.approx(whole.losses.total, rel=1e-12)
