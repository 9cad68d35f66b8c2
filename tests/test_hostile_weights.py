"""Files made to harm whoever reads weights, styles or states: nothing is run, all are refused."""

import base64
import builtins
import contextlib
import functools
import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy
import pytest
import torch

from impasto import checkpoint, resume, styles, weights
from impasto.__main__ import main
from impasto.errors import InputError, RunError
from impasto.layers import LAYERS

SUFFIXES = (
    ".pth",
    ".pt",
    ".pt2",
    ".ckpt",
    ".bin",
    ".safetensors",
    ".h5",
    ".hdf5",
    ".keras",
    ".npz",
    ".npy",
    ".pkl",
    ".caffemodel",
    ".onnx",
    ".pb",
    ".gguf",
    ".t7",
    ".zip",
    ".tar",
    ".png",
)
MOST = 1 << 30
"""Bytes that reading one of these files may take."""
SECONDS = 10


class Hung(BaseException):
    """Reading took too long."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Stop what takes too long, and refuse what takes too much memory."""

    def stop(*_: object) -> None:
        raise Hung

    limits = resource.getrlimit(resource.RLIMIT_AS)
    sizes = Path("/proc/self/statm")
    if sizes.exists():
        now = int(sizes.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MOST, limits[1]))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


# --- programs in pickles --------------------------------------------------------------------------


class Call:
    """A call that a pickle makes while it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


class Rebuilt:
    """A program in the state of an object rather than in how it is made."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, (), None, None, iter([("features.0.weight", self.inner)]))


def programs(trace: Path) -> dict[str, Any]:
    """Return objects whose pickles make the file ``trace``."""
    python = f"open({str(trace)!r}, 'w').close()"
    inner = trace.with_name("inner.pth")
    inner.write_bytes(pickle.dumps(Call(Path.touch, trace)))
    return {
        "system": Call(os.system, f"touch '{trace}'"),
        "exec": Call(builtins.exec, python),
        "eval": Call(builtins.eval, python),
        "process": Call(subprocess.call, ["touch", str(trace)]),
        "path": Call(Path.touch, trace),
        "load": Call(functools.partial(torch.load, weights_only=False), str(inner)),
        "pickle": Call(pickle.loads, pickle.dumps(Call(Path.touch, trace))),
        "hidden": Rebuilt(Call(Path.touch, trace)),
    }


def in_zip(program: Any, **more: bytes) -> bytes:
    """Return a torch archive made by hand."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(program, 2))
        archive.writestr("archive/version", "3\n")
        for name, data in more.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", data)
    return found.getvalue()


def in_tar(program: Any) -> bytes:
    """Return a file as the first versions of torch wrote it."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(program, 2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return found.getvalue()


def by_torch(program: Any, zipped: bool) -> bytes:
    found = io.BytesIO()
    torch.save(
        {"features.0.weight": torch.ones(2), "more": program},
        found,
        _use_new_zipfile_serialization=zipped,
    )
    return found.getvalue()


def by_numpy(program: Any, zipped: bool) -> bytes:
    found = io.BytesIO()
    array = numpy.array([program, program], dtype=object)
    if zipped:
        numpy.savez(found, array)
    else:
        numpy.save(found, array)
    return found.getvalue()


def in_keras(program: Any) -> bytes:
    found = io.BytesIO()
    with h5py.File(found, "w") as file:
        coded = base64.b64encode(pickle.dumps(program)).decode()
        layer = {
            "class_name": "Lambda",
            "config": {"function": {"class_name": "__lambda__", "code": coded}},
        }
        file.attrs["model_config"] = json.dumps({"config": {"layers": [layer]}})
        file["block1_conv1/kernel:0"] = numpy.frombuffer(pickle.dumps(program), numpy.uint8)
    return found.getvalue()


def in_metadata(program: Any) -> bytes:
    coded = base64.b64encode(pickle.dumps(program)).decode()
    return safetensors({"__metadata__": {"format": "pt", "pickle": coded}})


CONTAINERS: dict[str, Callable[[Any], bytes]] = {
    **{f"protocol {number}": (lambda p, n=number: pickle.dumps(p, n)) for number in (0, 1, 2, 3, 4, 5)},
    "torch": lambda p: by_torch(p, True),
    "torch, legacy": lambda p: by_torch(p, False),
    "torch, by hand": in_zip,
    "torch script": lambda p: in_zip(
        p, **{"constants.pkl": pickle.dumps(p, 2), "code__a.py": b"import os\n"}
    ),
    "torch, tar": in_tar,
    "numpy": lambda p: by_numpy(p, False),
    "numpy, zip": lambda p: by_numpy(p, True),
    "gzip": lambda p: gzip.compress(pickle.dumps(p)),
    "keras": in_keras,
    "safetensors": in_metadata,
    "after safetensors": lambda p: safetensors({}) + pickle.dumps(p),
}

# --- lies ------------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file of a header, which is JSON or as it is, and the length it claims."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


FIRST = "block1_conv1"
NUMBERS = 64 * 3 * 3 * 3
KERNEL = tensor([64, 3, 3, 3], 0, 4 * NUMBERS)
VALID = {"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}
OURS = {"__metadata__": {"impasto-vgg19": json.dumps(VALID)}}
WEIGHT, BIAS = f"{FIRST}.weight", f"{FIRST}.bias"


def kernel(number: float, dtype: str = "<f4") -> bytes:
    return numpy.full(NUMBERS, number, dtype).tobytes()


def twice() -> bytes:
    """Return a header that says one name twice."""
    one = json.dumps(KERNEL)
    return f'{{"{WEIGHT}": {one}, "{WEIGHT}": {json.dumps(tensor([1], 0, 4))}}}'.encode()


def archive(pickled: bytes, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", compression) as file:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **records}.items():
            file.writestr(f"archive/{name}", data)
    return found.getvalue()


def storage(numel: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """Return the pickle of a state dict with one tensor, whatever it claims."""

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if value is KERNEL else None

    found = io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, KERNEL, offset, shape, stride, False, {})
    Pickler(found, 2).dump({"features.0.weight": call})
    return found.getvalue()


def doubled(depth: int) -> bytes:
    """Return the pickle of a dict whose key is a tuple of twice the same tuple, so many times over."""
    levels = (b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(depth))
    return b"\x80\x02)q\x00" + b"".join(levels) + b"}h%cK\x01s." % depth


def legacy(pickled: bytes) -> bytes:
    """Return a torch file that is no archive."""
    magic = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(each, 2) for each in magic) + pickled + pickle.dumps([], 2)


def bomb() -> bytes:
    """Return an archive of some megabytes that unpacks to over a gibibyte."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("archive/data.pkl", storage(5 << 26, (5 << 26,), (1,)))
        file.writestr("archive/version", "3\n")
        with file.open("archive/data/0", "w", force_zip64=True) as record:
            for _ in range(80):
                record.write(bytes(1 << 24))
    return found.getvalue()


def keras(fill: Callable[[Any], object]) -> bytes:
    found = io.BytesIO()
    with h5py.File(found, "w") as file:
        fill(file)
    return found.getvalue()


def huge_keras() -> bytes:
    """Return a few kilobytes that claim a kernel of a terabyte."""
    size = (1 << 10, 1 << 10, 1 << 10, 1 << 8)
    chunks = (1, 1, 1 << 10, 1 << 8)
    return keras(lambda file: file.create_dataset(f"{FIRST}/kernel:0", size, "f4", chunks=chunks))


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


def state(**changes: Any) -> bytes:
    """Return a torch file of VGG-19's names and shapes with something wrong in it."""
    values: dict[str, Any] = {}
    for name, module in weights._modules().items():
        layer = LAYERS[name]
        values[f"{module}.weight"] = torch.ones(1).expand(layer.channels, layer.inputs, 3, 3)
        values[f"{module}.bias"] = torch.ones(1).expand(layer.channels)
    found = io.BytesIO()
    torch.save(
        values | {f"features.{key.replace('_', '.')}": each for key, each in changes.items()}, found
    )
    return found.getvalue()


LIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x80",
    "a page": lambda: b"<!DOCTYPE html><html>Not found</html>",
    "a pointer of Git LFS": lambda: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "zeros": lambda: bytes(1 << 20),
    # safetensors
    "header beyond the file": lambda: safetensors({"a": KERNEL}, length=1 << 20),
    "header of 2^63": lambda: safetensors({"a": KERNEL}, length=1 << 63),
    "header of 2^64 - 1": lambda: safetensors({"a": KERNEL}, length=(1 << 64) - 1),
    "header of nothing": lambda: safetensors(b""),
    "header cut short": lambda: safetensors(b'{"a": {"dtype": "F32"'),
    "header of a list": lambda: safetensors(b"[1, 2, 3]"),
    "header not UTF-8": lambda: safetensors(b'{"\xff\xfe": {}}'),
    "header of 100000 brackets": lambda: safetensors(nested(100_000)),
    "header with NaN": lambda: safetensors(
        b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}'
    ),
    "header of many names": lambda: safetensors(
        {f"a{number}": tensor([0], 0, 0) for number in range(200_000)}
    ),
    "no layers": lambda: safetensors(OURS),
    "preprocessing of code": lambda: safetensors(
        {"__metadata__": {"impasto-vgg19": "__import__('os')"}}
    ),
    "preprocessing deep": lambda: safetensors(
        {"__metadata__": {"impasto-vgg19": "[" * 100_000 + "]" * 100_000}}
    ),
    "offsets beyond the file": lambda: safetensors(
        {**OURS, WEIGHT: tensor([64, 3, 3, 3], 0, 4 * NUMBERS)}
    ),
    "offsets that overlap": lambda: safetensors(
        {**OURS, WEIGHT: KERNEL, BIAS: tensor([64], 0, 256)}, kernel(1)
    ),
    "offsets turned round": lambda: safetensors({**OURS, WEIGHT: tensor([1], 4, 0)}, bytes(4)),
    "offsets negative": lambda: safetensors({**OURS, WEIGHT: tensor([1], -4, 0)}, bytes(4)),
    "offsets over 2^64": lambda: safetensors({**OURS, WEIGHT: tensor([1], 0, 1 << 65)}, bytes(4)),
    "a hole": lambda: safetensors({**OURS, WEIGHT: tensor([1], 8, 12)}, bytes(12)),
    "more than the header says": lambda: safetensors({**OURS, WEIGHT: KERNEL}, kernel(1) + b"more"),
    "another type than its bytes": lambda: safetensors(
        {**OURS, WEIGHT: tensor([64, 3, 3, 3], 0, 4 * NUMBERS, "F64")}, kernel(1)
    ),
    "a type that is none": lambda: safetensors(
        {**OURS, WEIGHT: {**KERNEL, "dtype": "PICKLE"}}, kernel(1)
    ),
    "whole numbers": lambda: safetensors({**OURS, WEIGHT: {**KERNEL, "dtype": "I32"}}, kernel(1)),
    "shape of 10^12": lambda: safetensors({**OURS, WEIGHT: tensor([10**6, 10**6], 0, 4)}, bytes(4)),
    "shape that overflows": lambda: safetensors({**OURS, WEIGHT: tensor([1 << 62, 4], 0, 0)}),
    "shape negative": lambda: safetensors(
        {**OURS, WEIGHT: tensor([-64, -3, 3, 3], 0, 4 * NUMBERS)}, kernel(1)
    ),
    "one name twice": lambda: safetensors(twice(), kernel(1)),
    "NaN": lambda: safetensors({**OURS, WEIGHT: KERNEL}, kernel(numpy.nan)),
    "infinity": lambda: safetensors({**OURS, WEIGHT: KERNEL}, kernel(-numpy.inf)),
    # torch
    "torch: storage of 10^12": lambda: archive(storage(10**12, (10**12,), (1,)), {"data/0": bytes(4)}),
    "torch: beyond its storage": lambda: archive(
        storage(1, (64, 3, 3, 3), (27, 9, 3, 1)), {"data/0": bytes(4)}
    ),
    "torch: stride negative": lambda: archive(
        storage(1, (64, 3, 3, 3), (-1, 0, 0, 0)), {"data/0": bytes(4)}
    ),
    "torch: offset of 2^62": lambda: archive(storage(1, (1,), (1,), 1 << 62), {"data/0": bytes(4)}),
    "torch: offset negative": lambda: archive(storage(1, (1,), (1,), -8), {"data/0": bytes(4)}),
    "torch: one number 10^12 times": lambda: archive(
        storage(1, (10**6, 10**6), (0, 0)), {"data/0": bytes(4)}
    ),
    "torch: no such record": lambda: archive(storage(1, (1,), (1,)), {}),
    "torch: a bomb": bomb,
    "torch: ten gigabytes of zeros": lambda: in_zip(Call(bytearray, 10**10)),
    "torch: names out of the folder": lambda: archive(
        pickle.dumps({}, 2), {"../../trace": b"", "/trace": b""}
    ),
    "torch: tuples of the same tuples": lambda: archive(doubled(60), {}),
    "torch: a call of the same tuples": lambda: archive(doubled(60)[:-6] + b"h\x3c)R.", {}),
    "torch: tuples, legacy": lambda: legacy(doubled(60)),
    "torch: a million empty lists": lambda: archive(b"\x80\x02" + b"]" * 10**6 + b".", {}),
    "torch: deep": lambda: archive(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", {}),
    "torch: NaN": lambda: state(**{"0_bias": torch.full((64,), torch.nan)}),
    "torch: infinity": lambda: state(
        **{"34_weight": torch.full((1,), torch.inf).expand(512, 512, 3, 3)}
    ),
    "torch: no memory behind it": lambda: state(**{"0_bias": torch.ones(64, device="meta")}),
    "torch: sparse": lambda: state(**{"0_bias": torch.ones(64).to_sparse()}),
    "torch: complex": lambda: state(**{"0_bias": torch.ones(64, dtype=torch.complex64)}),
    "torch: another network": lambda: state(**{"0_weight": torch.ones(64, 3, 7, 7)}),
    "torch: cut short": lambda: state()[:-300],
    "torch: cut in half": lambda: (lambda data: data[: len(data) // 2])(state()),
    "torch: only its end": lambda: state()[-400:],
    # Keras
    "keras: a terabyte": huge_keras,
    "keras: cut short": lambda: huge_keras()[:900],
    "keras: a soft link to itself": lambda: keras(
        lambda file: file.__setitem__(FIRST, h5py.SoftLink(f"/{FIRST}"))
    ),
    "keras: words": lambda: keras(lambda file: file.__setitem__(f"{FIRST}/kernel:0", "touch trace")),
}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


PLACES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,  # noqa: ARG005
    "a folder": Path.mkdir,
    "a pipe": fifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a file of the system": lambda path: path.symlink_to("/proc/self/maps"),
    "a terabyte of nothing": endless,
}
"""What is no file to be read, whatever its name says."""


# --- the law ---------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Path], object]] = {"weights": weights.load, "style": styles.load}


def refused(read: Callable[[Path], object], path: Path) -> str:
    """Read a hostile file; return what is wrong with how it was refused, or nothing."""
    try:
        with bounded():
            read(path)
    except (InputError, RunError) as error:
        return "" if str(error) and "\n" not in str(error) else f"said {error!r}"
    except Hung:
        return "hung"
    except BaseException as error:  # whatever else is what this is about
        return f"{type(error).__name__}: {error}"
    return "was read"


def kept(folder: Path, data: bytes) -> str:
    """Give the bytes to a run as its state, in place of tensors and of a manifest."""
    content = {
        "schema": checkpoint.SCHEMA,
        "number": 1,
        "tensors": hashlib.sha256(data).hexdigest(),
        "state": {"dict": [["picture", {"tensor": 0}]]},
        "about": {},
    }
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(data)
    (folder / "a.json").write_bytes(checkpoint._sealed(content))
    (folder / "b.json").write_bytes(data)
    try:
        with bounded():
            return "" if checkpoint.load(folder) is None else "was read"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)


def test_a_program_would_run_if_it_were_let(tmp_path: Path) -> None:
    """Else all that follows proves nothing."""
    for name, program in programs(tmp_path / "trace").items():
        with contextlib.suppress(RuntimeError):  # a program may run, and what it gives be no good
            pickle.loads(pickle.dumps(program))
        assert (tmp_path / "trace").exists(), name
        (tmp_path / "trace").unlink()


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_program_is_run_whatever_the_file_is_called(tmp_path: Path, container: str) -> None:
    for number, (name, program) in enumerate(programs(tmp_path / "trace").items()):
        data = CONTAINERS[container](program)
        for suffix in SUFFIXES if number == 0 else SUFFIXES[:1]:
            path = tmp_path / f"hostile{suffix}"
            path.write_bytes(data)
            for reader, read in READERS.items():
                assert refused(read, path) == "", (reader, name, suffix)
            path.unlink()
        assert kept(tmp_path / "state", data) == "", name
        assert not (tmp_path / "trace").exists(), name


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_in_one_line(tmp_path: Path, lie: str) -> None:
    data = LIES[lie]()
    for suffix in (".pth", ".safetensors", ".h5"):
        path = tmp_path / f"hostile{suffix}"
        path.write_bytes(data)
        for reader, read in READERS.items():
            assert refused(read, path) == "", reader
    assert kept(tmp_path / "state", data) == ""
    assert {path.stem for path in tmp_path.iterdir()} == {"hostile"}


def test_an_archive_is_measured_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(archive(pickle.dumps({}, 2), {"zeros": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="an archive that torch does not write"):
        weights.load(path)


def test_a_pickle_that_shares_an_object_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    path.write_bytes(archive(doubled(4), {}))  # which would be read in no time
    with pytest.raises(InputError, match="may take for ever to read"):
        weights.load(path)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_refused(tmp_path: Path, place: str) -> None:
    path = tmp_path / "hostile.safetensors"
    PLACES[place](path)
    for reader, read in READERS.items():
        assert refused(read, path) == "", reader


@pytest.mark.parametrize(
    "content",
    [
        {"state": {"tensor": 5}},
        {"state": {"tensor": "0"}},
        {"state": {"tensor": None}},
        {"state": {"dict": [[["list"], 1]]}},
        {"state": {"dict": 5}},
        {"state": {"one": 1, "two": 2}},
        {"about": ["iteration"]},
        {"about": None},
        {"number": None},
        {"number": 1e999},
        {"number": "9" * 5000},
        {"schema": {}},
        {"tensors": 5},
    ],
    ids=str,
)
def test_a_manifest_that_lies_is_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = resume.folder_of("run")
    checkpoint.save(folder, {"picture": torch.ones(3)}, {"iteration": 3})
    whole = checkpoint._opened((folder / "a.json").read_bytes())
    (folder / "a.json").write_bytes(checkpoint._sealed({**whole, **content}))
    with bounded():
        assert main(["runs", "list"]) == 0
        assert checkpoint.load(folder) is None


def test_a_manifest_of_brackets_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = resume.folder_of("run")
    checkpoint.save(folder, {"picture": torch.ones(3)}, {"iteration": 3})
    text = b"[" * 100_000
    (folder / "a.json").write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
    assert main(["runs", "list"]) == 0
    assert checkpoint.load(folder) is None


@pytest.mark.parametrize("words", ["painting.png --weights hostile.pth", "hostile.safetensors"])
def test_the_command_says_it_in_one_line_and_writes_nothing(
    tmp_path: Path,
    picture_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    picture_file("photo.png"), picture_file("painting.png")
    for program in programs(tmp_path / "trace").values():
        for name in ("hostile.pth", "hostile.safetensors"):
            Path(name).write_bytes(pickle.dumps(program))
        asked = ["transfer", "photo.png", *words.split(), "-o", "out.png", "--size", "32"]
        assert main(asked) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("impasto: cannot read the ")
    assert not (tmp_path / "out.png").exists()
    assert not (tmp_path / "trace").exists()
