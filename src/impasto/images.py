"""Pictures on disk and in memory.

In memory a picture is ``[3, H, W]``, float32, sRGB in 0..1, everywhere in this project. The functions
here are the only ones that read a user's picture or mask, or write one.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy
import numpy.typing as npt
import tifffile
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk
from torch import Tensor

from impasto import child, color, decode, masks, profiles
from impasto.decode import NO_METADATA, READABLE, Metadata, Refused, Source, Strip
from impasto.errors import InputError
from impasto.files import atomic_write
from impasto.memory import spoken
from impasto.schedule import check_sides, fitted, resize, shrink

__all__ = [
    "NO_METADATA",
    "READABLE",
    "WRITABLE",
    "Metadata",
    "Photograph",
    "check_size",
    "check_suffix",
    "long_side",
    "read",
    "read_grey",
    "read_photograph",
    "read_regions",
    "read_xmp",
    "to_8_bit",
    "trusted",
    "write",
]

WRITABLE: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": ("WEBP", {"quality": 95}),
    ".tif": ("TIFF", {"compression": "tiff_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_deflate"}),
}
"""The formats that are written, by suffix."""

LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
"""The longest side, where a format has one."""

_STRIP = 1 << 20
"""Pixels that are converted at a time."""

_PNG_HEADER = 33
"""The bytes of a PNG before the first chunk that may follow its header."""

_XMP_IN_PNG = "XML:com.adobe.xmp"
_XMP_IN_TIFF = 700

_TURNS: dict[int, Callable[[Tensor], Tensor]] = {
    2: lambda x: x.flip(2),
    3: lambda x: x.flip(1, 2),
    4: lambda x: x.flip(1),
    5: lambda x: x.transpose(1, 2),
    6: lambda x: x.transpose(1, 2).flip(2),
    7: lambda x: x.transpose(1, 2).flip(1, 2),
    8: lambda x: x.transpose(1, 2).flip(1),
}
"""What turns ``[3, H, W]`` upright, by EXIF orientation."""

_TRUSTED = ContextVar("trusted", default=False)

_LYING = (5, 6, 7, 8)
"""The orientations that exchange width and height."""


class Photograph(NamedTuple):
    """A picture ``[3, H, W]`` as `read` gives it, what its file says, and its alpha ``[1, H, W]``."""

    picture: Tensor
    metadata: Metadata = NO_METADATA
    alpha: Tensor | None = None


def read(
    path: Path | str,
    longest: int | None = None,
    smallest: int = 1,
    memory: int | None = None,
    transparency: str = "keep",
) -> Tensor:
    """Return a picture file as ``[3, H, W]`` float32 sRGB in 0..1, turned as its EXIF orientation says.

    Of a file with several frames the first is read. PNG and TIFF of 16 bits or floats keep their depth;
    a colour profile is applied, unless it is damaged. Colours go on below transparent parts
    (`color.carry_on`), or these are laid over white or black, as ``transparency`` says.

    A picture with a side over ``longest`` is shrunk on the way, so that it is never in memory as
    floats.

    Raises:
        InputError: no such file, not a picture, damaged, a side under ``smallest`` or otherwise of a
            size that cannot be used, or decoding would take more than ``memory`` bytes.
    """
    return read_photograph(path, longest, smallest, memory, transparency).picture


def read_photograph(
    path: Path | str,
    longest: int | None = None,
    smallest: int = 1,
    memory: int | None = None,
    transparency: str = "keep",
) -> Photograph:
    """Return a picture as `read` does, with what is kept of its file in what is made of it.

    Raises:
        InputError: as `read`.
    """
    with _opened(Path(path), smallest, memory) as source:
        picture = _upright(_tensor(source, longest), source.orientation())
        metadata = source.metadata()
    colours, alpha = picture[:3], picture[3:]
    if not len(alpha):
        return Photograph(picture.clamp_(0, 1), metadata)
    if transparency == "keep":
        colours, alpha = color.carry_on(colours, alpha), alpha.clamp(0, 1)
        return Photograph(colours, metadata, alpha if (alpha < 1).any() else None)
    return Photograph((colours + (1 - alpha) * (transparency == "white")).clamp_(0, 1), metadata)


def long_side(path: Path | str, smallest: int = 1) -> int:
    """Return the long side of a picture file in pixels, without decoding it.

    Raises:
        InputError: as `read`.
    """
    with _opened(Path(path), smallest) as source:
        return max(source.size)


def read_xmp(path: Path | str) -> bytes:
    """Return the XMP packet of a picture file, empty if there is none, without decoding the pixels.

    Raises:
        InputError: as `read`.
    """
    with _opened(Path(path)) as source:
        return source.xmp()


def read_regions(
    path: Path | str, size: tuple[int, int] | None = None, memory: int | None = None
) -> Tensor:
    """Return the regions ``[R, H, W]`` of a mask file: by palette index, else by colour (`masks.hard`).

    ``size`` is that of the mask's picture, as large as there is use for. A larger mask is shrunk to it
    on the way (`masks.fit`): a weight is then the share of the pixels that belong to the region.

    Raises:
        InputError: as `read`, it has too many colours, or another aspect than ``size``.
    """
    path = Path(path)
    with _opened(path, memory=memory) as source:
        strips = masks.in_strips(lambda: _values(source), str(path))
        return _fitted(strips, source, size, path)


def read_grey(
    path: Path | str, size: tuple[int, int] | None = None, memory: int | None = None
) -> Tensor:
    """Return the weights ``[1, H, W]`` of a grey mask file (`masks.soft`); else as `read_regions`.

    Raises:
        InputError: as `read`, or it has another aspect than ``size``.
    """
    path = Path(path)
    with _opened(path, memory=memory) as source:
        return _fitted((masks.soft([strip]) for strip in _over_white(source)), source, size, path)


def _fitted(
    strips: Iterator[Tensor], source: Source, size: tuple[int, int] | None, path: Path
) -> Tensor:
    """Return the regions of a mask that comes in strips, upright and no larger than ``size``."""
    height, width = source.size
    orientation = source.orientation()
    if size:
        size = size[::-1] if orientation in _LYING else size
        masks.check_aspect((height, width), size, str(path))
    if size is None or height * width < size[0] * size[1]:
        size = height, width
    return _upright(masks.shrink(strips, height, size), orientation)


def _tensor(source: Source, longest: int | None) -> Tensor:
    """Return the pixels as `_floats` gives them, shrunk if a side is over ``longest``."""
    height, width = source.size
    if longest and longest < max(width, height):
        return shrink(map(_floats, source.strips()), height, fitted(height, width, longest))
    picture, top = torch.empty(0, height, width), 0
    for strip in map(_floats, source.strips()):
        if not top:
            picture = torch.empty(len(strip), height, width)
        picture[:, top : top + strip.shape[1]] = strip
        top += strip.shape[1]
    return picture


def _floats(strip: Strip) -> Tensor:
    """Return rows as ``[3, rows, W]`` in 0..1, or times alpha, with it: ``[4, rows, W]``."""
    colours = torch.from_numpy(profiles.to_floats(strip.colours)).permute(2, 0, 1).expand(3, -1, -1)
    if strip.alpha is None:
        return colours
    alpha = torch.from_numpy(profiles.to_floats(strip.alpha))
    return torch.cat([colours * alpha, alpha[None]])


def _over_white(source: Source) -> Iterator[Tensor]:
    """Yield the pixels as ``[3, rows, W]`` in 0..1, over white."""
    for strip in map(_floats, source.strips()):
        yield strip if len(strip) == 3 else strip[:3] + (1 - strip[3:])


def _values(source: Source) -> Iterator[Tensor]:
    """Yield what tells a mask's regions apart: palette indices ``[rows, W]``, or colours over white."""
    return map(torch.from_numpy, source.indices()) if source.indexed else _over_white(source)


def _upright(picture: Tensor, orientation: int) -> Tensor:
    """Return ``[C, H, W]`` turned as its file says."""
    turn = _TURNS.get(orientation)
    return turn(picture).contiguous() if turn else picture


@contextmanager
def trusted(trust: bool = True) -> Iterator[None]:
    """Decode what is read in here in this process, for files that nobody has tampered with.

    Elsewhere a process of small means does it (`child`), which costs some milliseconds a file. Other
    threads are not concerned.

    Example:
        >>> with trusted():
        ...     read("nowhere.png")
        Traceback (most recent call last):
        impasto.errors.InputError: nowhere.png does not exist; give a picture file
    """
    before = _TRUSTED.set(trust)
    try:
        yield
    finally:
        _TRUSTED.reset(before)


@contextmanager
def _opened(path: Path, smallest: int = 1, memory: int | None = None) -> Iterator[Source]:
    """Open a picture file, not decoded yet; say in one line what is wrong with it, then or later."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give a picture file")
        if not path.exists():
            raise InputError(f"{path} does not exist; give a picture file")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; give a picture file")
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    try:
        open_picture = decode.opened if _TRUSTED.get() else child.opened
        with file, open_picture(file) as source:
            _check(source, path, smallest, memory)
            yield source
    except Refused as refused:
        raise InputError(f"{path} {refused}") from None
    except MemoryError:
        raise InputError(f"{path} cannot be read: decoding takes more memory than there is") from None


def _check(source: Source, path: Path, smallest: int, memory: int | None) -> None:
    height, width = source.size
    most = decode.MOST_PIXELS
    if width * height > most:
        raise InputError(
            f"{path} has {width}x{height} pixels, over {most // 10**6} megapixels; shrink it"
        )
    check_sides(height, width, str(path), smallest)
    needed = source.bytes_per_pixel * width * height
    if memory is not None and needed > memory:
        raise InputError(
            f"{path} has {width}x{height} pixels, which take {spoken(needed)} to read: "
            "more than --memory leaves; shrink it, or allow more"
        )


def to_8_bit(picture: Tensor) -> Tensor:
    """Return a picture as its 8-bit file will have it, ``[H, W, 3]`` uint8.

    Example:
        >>> to_8_bit(torch.full((3, 1, 1), 0.5)).flatten().tolist()
        [128, 128, 128]
    """
    return torch.from_numpy(_levels(picture, 8))


def _levels(
    picture: Tensor, bit_depth: int, profile: bytes | None = None, alpha: Tensor | None = None
) -> npt.NDArray[Any]:
    """Return a picture ``[3, H, W]``, and its alpha, as levels ``[H, W, C]`` of 8 or 16 bits."""
    _, height, width = picture.shape
    channels = 3 if alpha is None else 4
    levels = numpy.empty((height, width, channels), numpy.uint8 if bit_depth == 8 else numpy.uint16)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):  # in strips: in float64 a whole one may be larger than all else
        strip = picture[:, top : top + rows].detach().cpu().double().clamp(0, 1).permute(1, 2, 0).numpy()
        if profile is not None:
            converted = profiles.from_srgb(strip.astype(numpy.float32), profile)
            if converted is None:
                raise InputError("the profile to write in is none that colours can be written in")
            strip = converted.astype(numpy.float64)
        levels[top : top + rows, :, :3] = numpy.rint(strip * (2**bit_depth - 1))
        if alpha is not None:
            strip = alpha[0, top : top + rows].detach().cpu().double().clamp(0, 1).numpy()
            levels[top : top + rows, :, 3] = numpy.rint(strip * (2**bit_depth - 1))
    return levels


def check_suffix(path: Path, bit_depth: int = 8) -> None:
    """Refuse a name whose suffix is no format that can be written, at that depth.

    Raises:
        InputError: the suffix is unknown, or its format has 8 bits alone.
    """
    if path.suffix.lower() not in WRITABLE:
        known = " ".join(WRITABLE)
        raise InputError(f"cannot write {path.name!r}: its suffix must be one of {known}")
    if bit_depth == 16 and WRITABLE[path.suffix.lower()][0] not in DEEP:
        raise InputError(f"{path.name} would have 8 bits; for --bit-depth 16 write .png or .tif")


def write(
    picture: Tensor,
    path: Path | str,
    bit_depth: int = 8,
    metadata: Metadata = NO_METADATA,
    alpha: Tensor | None = None,
    xmp: bytes = b"",
) -> None:
    """Write a picture ``[3, H, W]`` in 0..1 as a file of 8 or 16 bits a colour, whole or not at all.

    It is sRGB, or in the colours of the metadata's RGB profile; the profile is in the file. An
    ``alpha`` ``[1, H, W]`` is brought to the picture's size; a JPEG, which has none, is over white.
    An ``xmp`` packet stands in the file as it is.

    Raises:
        InputError: the suffix is no known format or has no such depth, the profile is not one to write
            in, or the folder cannot be written to.
    """
    path = Path(path)
    check_suffix(path, bit_depth)
    kind, options = WRITABLE[path.suffix.lower()]
    if alpha is not None:
        alpha = resize(alpha, (picture.shape[1], picture.shape[2])).to(picture)
        if kind == "JPEG":
            picture, alpha = 1 + (picture - 1) * alpha, None
    levels = _levels(picture, bit_depth, metadata.profile, alpha)
    metadata = metadata._replace(profile=metadata.profile or profiles.srgb())
    if kind == "TIFF" and bit_depth == 16:  # tifffile writes no folders of exposure and place
        metadata = metadata.texts()
    elif kind == "TIFF" and metadata != metadata.texts():  # nor does libtiff, which Pillow compresses by
        options = {**options, "compression": "raw"}
    try:
        with atomic_write(path) as file:
            if bit_depth == 16:
                DEEP[kind](file, levels, metadata, xmp)
            else:
                options = {**options, **_said(metadata, xmp, kind)}
                # Given a file, Pillow writes to its descriptor, and not all of its encoders look whether
                # that went well: on a full disk a part of a JPEG would pass for the whole.
                encoded = io.BytesIO()
                Image.fromarray(levels).save(encoded, kind, icc_profile=metadata.profile, **options)
                file.write(encoded.getbuffer())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _said(metadata: Metadata, xmp: bytes, kind: str) -> dict[str, Any]:
    """Return Pillow's options that write what is said of a picture of 8 bits."""
    said: dict[str, Any] = {"dpi": metadata.dpi, "exif": metadata.exif}
    if xmp and kind == "PNG":
        said["pnginfo"] = PngInfo()
        said["pnginfo"].add_itxt(_XMP_IN_PNG, xmp.decode())
    elif kind == "TIFF":
        exif = decode.parsed(metadata.exif)
        exif.update({tag: exif.get_ifd(tag) for tag in decode.FOLDERS if tag in exif})
        if xmp:
            exif[_XMP_IN_TIFF] = xmp
        said["exif"] = exif
    else:
        said["xmp"] = xmp
    return {key: value for key, value in said.items() if value}


def _write_deep_png(
    file: BinaryIO, levels: npt.NDArray[numpy.uint16], metadata: Metadata, xmp: bytes
) -> None:
    encoded = imagecodecs.png_encode(levels)
    file.write(encoded[:_PNG_HEADER])
    assert metadata.profile is not None
    putchunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.profile))
    if metadata.dpi:
        across, down = (round(dots / 0.0254) for dots in metadata.dpi)
        putchunk(file, b"pHYs", struct.pack(">IIB", across, down, 1))
    if metadata.exif:
        putchunk(file, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    if xmp:  # neither compressed nor in a language
        putchunk(file, b"iTXt", _XMP_IN_PNG.encode() + bytes(5) + xmp)
    file.write(encoded[_PNG_HEADER:])


def _write_deep_tiff(
    file: BinaryIO, levels: npt.NDArray[numpy.uint16], metadata: Metadata, xmp: bytes
) -> None:
    exif = decode.parsed(metadata.exif)
    encoded = io.BytesIO()  # tifffile wants a file with a name, or one in memory
    tifffile.imwrite(
        encoded,
        levels,
        byteorder="<",
        photometric="rgb",
        extrasamples=["unassalpha"] * (levels.shape[2] - 3),
        compression="zlib",
        predictor=True,
        iccprofile=metadata.profile,
        resolution=metadata.dpi,
        resolutionunit="inch" if metadata.dpi else None,
        software=False,
        metadata=None,
        extratags=[
            *((tag, "s", 0, text, True) for tag, text in exif.items() if isinstance(text, str) and text),
            *([(_XMP_IN_TIFF, "B", len(xmp), xmp, True)] if xmp else []),
        ],
    )
    file.write(encoded.getvalue())


DEEP = {"PNG": _write_deep_png, "TIFF": _write_deep_tiff}
"""What writes 16 bits a colour, for the formats that hold them."""


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse a picture that its file format cannot hold.

    Raises:
        InputError: a side is longer than the format allows.
    """
    kind, _ = WRITABLE[path.suffix.lower()]
    most = LONGEST_SIDE.get(kind, max(height, width))
    if max(height, width) > most:
        raise InputError(
            f"{width}x{height} px: a {kind} picture has at most {most} px a side; write .png"
        )
