"""What tests share: a tiny VGG-19 with the real layer names, and pictures."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from browsers import MISSING
from impasto.layers import LAYERS
from impasto.weights import CAFFE, Weights

WIDTHS = {1: 4, 2: 5, 3: 6, 4: 7, 5: 8}
"""Channels per block of the tiny network: all different, so that none is taken for another."""

LEFT_OUT = ["test_page.py"] if MISSING else []

collect_ignore = ["tiny.py", *LEFT_OUT]
"""The program `tiny.py` is no test: to import it puts the tiny network into this process."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that are left out where there is no browser."""
    for name in LEFT_OUT:
        text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        tests = ", ".join(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
        terminalreporter.write_line(f"left out without {MISSING}: {name}: {tests}")


def make_tiny_weights(seed: int = 0) -> Weights:
    """Return random weights of VGG-19's shape with few channels, in float64."""
    generator = torch.Generator().manual_seed(seed)
    kernels: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    inputs = 3
    for layer in LAYERS.values():
        outputs = WIDTHS[layer.block]
        shape = (outputs, inputs, 3, 3)
        # He's scale keeps features of one size through all sixteen layers; the first sees 0..255.
        scale = (2 / (9 * inputs)) ** 0.5 / (60 if inputs == 3 else 1)
        kernels[layer.name] = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        biases[layer.name] = 0.1 * torch.rand(outputs, generator=generator, dtype=torch.float64)
        inputs = outputs
    return Weights("tiny", "0" * 64, True, CAFFE, kernels, biases)


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts() -> None:
    """Let Ctrl-C be heard where the tests were started in a shell's background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let no test find what another one, or the user, has kept of a run."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_weights() -> Weights:
    return make_tiny_weights()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread: for tensors this small, handing work to a second takes far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch, tiny_weights: Weights) -> Weights:
    """Let every run in this test use the tiny weights instead of the embedded ones."""
    monkeypatch.setattr("impasto.weights.load", lambda *_: tiny_weights)
    return tiny_weights


@pytest.fixture
def picture_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small picture with some structure, and gives its path."""

    def write(name: str, width: int = 40, height: int = 32, seed: int = 0) -> Path:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(1, 3, 4, 5, generator=generator)
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
        path = tmp_path / name
        array = (fine[0].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(array).save(path)
        return path

    return write
