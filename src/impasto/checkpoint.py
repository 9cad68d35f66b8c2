"""A run's state on the disk: two generations, of which one is whole at any instant.

A state is made of dicts, lists, tuples, numbers, words and tensors. Its tensors are a safetensors file,
everything else is a JSON manifest beside it that holds that file's hash, and its own. Nothing is ever
unpickled.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from impasto import files

__all__ = ["Checkpoint", "about", "load", "remove", "save"]

SCHEMA = 1
"""The form of what is written. Another one is refused, never guessed."""

_GENERATIONS = ("a", "b")
_CHUNK = 1 << 24
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The tensors that a state may hold, and safetensors' names for them."""


class Checkpoint(NamedTuple):
    """A state, what its writer wants to know of it later (JSON values), the hash of its tensors."""

    state: dict[str, Any]
    about: dict[str, Any]
    sha256: str


def save(folder: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    """Write a state in place of the older of the two generations in ``folder``.

    Tensors go to the disk one by one: no copy of the state is made.

    Raises:
        OSError: the folder cannot be written to, or the disk is full. The other generation stands.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> save(folder, {"best": torch.ones(2), "done": (1, None)}, {"iteration": 7})
        >>> load(folder)[:2]
        ({'best': tensor([1., 1.]), 'done': (1, None)}, {'iteration': 7})
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    number, name = 1, _GENERATIONS[0]
    standing = _manifests(folder)
    if standing:
        number, newest = standing[0][0] + 1, standing[0][1]
        name = next(one for one in _GENERATIONS if one != newest)
    manifest, tensors = _paths(folder, name)
    for stale in (manifest, tensors, *folder.glob("*.part")):  # parts of what a kill cut short
        stale.unlink(missing_ok=True)
    found: list[Tensor] = []
    shape = _described(state, found, {})
    with files.atomic_write(tensors) as file:
        digest = _write(file, found)
    content = {"schema": SCHEMA, "number": number, "tensors": digest, "state": shape, "about": about}
    with files.atomic_write(manifest) as file:
        file.write(_sealed(content))


def load(folder: Path, mend: bool = True) -> Checkpoint | None:
    """Return the newest state that is whole; None if there is none.

    To ``mend`` is to remove a manifest without its tensors; that is for whoever holds the run.
    """
    for _, name, content in _manifests(folder):
        manifest, tensors = _paths(folder, name)
        with contextlib.suppress(Exception):  # there is no telling what a damaged or foreign file raises
            if files.sha256(tensors) == content["tensors"]:
                state = _restored(content["state"], _read(tensors))
                return Checkpoint(state, content["about"], content["tensors"])
        if mend:
            with contextlib.suppress(OSError):  # or the next save would spare it, not the one before
                manifest.unlink()
    return None


def about(folder: Path) -> dict[str, Any] | None:
    """Return what the newest manifest says, without reading its tensors."""
    manifests = _manifests(folder)
    return manifests[0][2]["about"] if manifests else None


def remove(folder: Path) -> None:
    """Remove a run's folder with all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.json", folder / f"{name}.safetensors"


def _manifests(folder: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """Return number, name and content of the manifests that are whole, the newest first."""
    found = []
    for name in _GENERATIONS:
        with contextlib.suppress(Exception):  # as above
            content = _opened(_paths(folder, name)[0].read_bytes())
            found.append((int(content["number"]), name, content))
    return sorted(found, reverse=True, key=lambda one: one[0])


def _sealed(content: dict[str, Any]) -> bytes:
    """Return JSON in one line, with its SHA-256 in a line before it."""
    text = json.dumps(content).encode()
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def _opened(data: bytes) -> dict[str, Any]:
    seal, _, text = data.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != seal:
        raise ValueError("not whole")
    content: dict[str, Any] = json.loads(text)
    if content["schema"] != SCHEMA or not isinstance(content["about"], dict):
        raise ValueError("written by another version")
    return content


def _described(value: Any, tensors: list[Tensor], known: dict[int, int]) -> Any:  # noqa: ANN401
    """Return a value as JSON, its tensors by number; one that occurs twice has one number."""

    def inside(values: Any) -> list[Any]:  # noqa: ANN401
        return [_described(one, tensors, known) for one in values]

    match value:
        case Tensor():
            if id(value) not in known:
                known[id(value)] = len(tensors)
                tensors.append(value)
            return {"tensor": known[id(value)]}
        case dict():
            return {"dict": [inside(pair) for pair in value.items()]}
        case tuple():
            return {"tuple": inside(value)}
        case list():
            return {"list": inside(value)}
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"a state cannot hold a {type(value).__name__}")


def _restored(value: Any, tensors: list[Tensor]) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: _restored(one, tensors) for key, one in inner}
    values = [_restored(one, tensors) for one in inner]
    return tuple(values) if kind == "tuple" else values


def _write(file: BinaryIO, tensors: list[Tensor]) -> str:
    """Write tensors as safetensors, one after the other; return the SHA-256 of all bytes.

    The library's own writer makes a copy of everything first, which a run that fills its memory has
    no room for. The format is a JSON header after its length, then the tensors' bytes.
    """
    header, offset = {}, 0
    for number, tensor in enumerate(tensors):
        end = offset + tensor.numel() * tensor.itemsize
        header[str(number)] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()

    def put(part: bytes) -> None:
        digest.update(part)
        file.write(part)

    put(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        for part in _bytes(tensor):
            put(part)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Iterator[bytes]:
    flat = tensor.detach().contiguous().view(-1)
    step = max(1, _CHUNK // flat.itemsize)
    for start in range(0, flat.numel(), step):
        yield flat[start : start + step].cpu().view(torch.uint8).numpy().tobytes()


def _read(path: Path) -> list[Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return [file.get_tensor(str(number)) for number in range(len(list(file.keys())))]
