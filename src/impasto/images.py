"""Pictures on disk and in memory.

In memory a picture is ``[3, H, W]``, float32, sRGB in 0..1, everywhere in this project. The functions
here are the only ones that read a user's picture or mask, or write one.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import DecompressionBombError
from torch import Tensor

from impasto import masks
from impasto.errors import InputError
from impasto.files import atomic_write
from impasto.memory import spoken
from impasto.schedule import check_sides, fitted, shrink

__all__ = [
    "READABLE",
    "WRITABLE",
    "check_size",
    "check_suffix",
    "read",
    "read_grey",
    "read_regions",
    "to_8_bit",
    "write",
]

READABLE = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP")
"""The formats that are read; a file's first bytes decide, not its name."""

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

MOST_PIXELS = 150_000_000

_STRIP = 1 << 20
"""Pixels that are converted at a time."""

_DECODED = 6
"""Bytes that Pillow holds for a pixel: four, and more while it decodes."""

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


def read(
    path: Path | str, longest: int | None = None, smallest: int = 1, memory: int | None = None
) -> Tensor:
    """Return a picture file as ``[3, H, W]`` float32 in 0..1, turned as its EXIF orientation says.

    Of a file with several frames the first is read. Transparent parts are laid over white; 16-bit
    greys keep their depth, other pictures are read at 8 bits. Colour profiles are not applied: the
    numbers are taken for sRGB.

    A picture with a side over ``longest`` is shrunk on the way, so that it is never in memory as
    floats.

    Raises:
        InputError: no such file, not a picture, damaged, a side under ``smallest`` or otherwise of a
            size that cannot be used, or decoding would take more than ``memory`` bytes.
    """
    path = Path(path)
    with _opened(path, smallest, memory) as image:
        image.load()
        picture = _tensor(image, longest)
        turn = _turn(image)
    return turn(picture).contiguous() if turn else picture


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
    with _opened(path, memory=memory) as image:
        strips = _indices if image.mode == "P" else _strips
        return _fitted(masks.in_strips(lambda: strips(image), str(path)), image, size, path)


def read_grey(
    path: Path | str, size: tuple[int, int] | None = None, memory: int | None = None
) -> Tensor:
    """Return the weights ``[1, H, W]`` of a grey mask file (`masks.soft`); else as `read_regions`.

    Raises:
        InputError: as `read`, or it has another aspect than ``size``.
    """
    path = Path(path)
    with _opened(path, memory=memory) as image:
        return _fitted((masks.soft([strip]) for strip in _strips(image)), image, size, path)


def _fitted(
    strips: Iterator[Tensor], image: Image.Image, size: tuple[int, int] | None, path: Path
) -> Tensor:
    """Return the regions of a mask that comes in strips, upright and no larger than ``size``."""
    width, height = image.size
    turn = _turn(image)
    lies = turn is not None and tuple(turn(torch.empty(1, 1, 2)).shape) == (1, 2, 1)
    if size:
        size = size[::-1] if lies else size
        masks.check_aspect((height, width), size, str(path))
    if size is None or height * width < size[0] * size[1]:
        size = height, width
    regions = masks.shrink(strips, height, size)
    return turn(regions).contiguous() if turn else regions


@contextmanager
def _opened(path: Path, smallest: int = 1, memory: int | None = None) -> Iterator[Image.Image]:
    """Open a picture file, not decoded yet; say in one line what is wrong with it, then or later."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give a picture file")
        if not path.exists():
            raise InputError(f"{path} does not exist; give a picture file")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; give a picture file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata does not concern the pixels
            with Image.open(path, formats=READABLE) as image:
                _check(image, path, smallest, memory)
                yield image
    except InputError:
        raise
    except DecompressionBombError:  # Pillow's own limit stands before ours
        raise InputError(f"{path} has over {MOST_PIXELS // 10**6} megapixels; shrink it") from None
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path} is not a picture; readable are {', '.join(READABLE)}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not the decoder's
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read, it seems damaged: {what}") from None


def _check(image: Image.Image, path: Path, smallest: int, memory: int | None) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path} has {width}x{height} pixels, over {MOST_PIXELS // 10**6} megapixels; shrink it"
        )
    check_sides(height, width, str(path), smallest)
    needed = _DECODED * width * height
    if memory is not None and needed > memory:
        raise InputError(
            f"{path} has {width}x{height} pixels, which take {spoken(needed)} to read: "
            "more than --memory leaves; shrink it, or allow more"
        )


def _tensor(image: Image.Image, longest: int | None) -> Tensor:
    """Return the pixels as ``[3, H, W]``, shrunk if a side is over ``longest``."""
    width, height = image.size
    if longest and longest < max(width, height):
        return shrink(_strips(image), height, fitted(height, width, longest))
    picture = torch.empty(3, height, width)
    top = 0
    for strip in _strips(image):
        picture[:, top : top + strip.shape[1]] = strip
        top += strip.shape[1]
    return picture


def _turn(image: Image.Image) -> Callable[[Tensor], Tensor] | None:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _strips(image: Image.Image) -> Iterator[Tensor]:
    """Yield the pixels from top to bottom, some rows at a time, as ``[3, rows, W]`` in 0..1."""
    for part in _parts(image):
        strip = torch.from_numpy(_to_rgb(part)).permute(2, 0, 1)
        yield strip.float().div_(255) if strip.dtype == torch.uint8 else strip


def _indices(image: Image.Image) -> Iterator[Tensor]:
    """Yield the palette indices from top to bottom, some rows at a time, as ``[rows, W]``."""
    for part in _parts(image):
        yield torch.from_numpy(numpy.array(part))


def _parts(image: Image.Image) -> Iterator[Image.Image]:
    width, height = image.size
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(height, top + rows)))


def _to_rgb(image: Image.Image) -> "npt.NDArray[numpy.float32 | numpy.uint8]":
    """Return ``[H, W, 3]``, as floats in 0..1 or as bytes, of an image in any of Pillow's modes."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        # Pillow's own conversion of deep greys turns every value over 255 white.
        grey = numpy.asarray(image, dtype=numpy.float32)
        if not numpy.isfinite(grey).all():
            raise ValueError("it has pixels that are NaN or infinite")
        if image.mode != "F":
            grey = grey / numpy.float32(65535)
        return numpy.repeat(grey.clip(0, 1)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return numpy.array(image.convert("RGB"))


def to_8_bit(picture: Tensor) -> Tensor:
    """Return a picture as its 8-bit file will have it, ``[H, W, 3]`` uint8.

    Example:
        >>> to_8_bit(torch.full((3, 1, 1), 0.5)).flatten().tolist()
        [128, 128, 128]
    """
    _, height, width = picture.shape
    levels = torch.empty(height, width, 3, dtype=torch.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):  # in strips: in float64 a whole one may be larger than all else
        strip = picture[:, top : top + rows].detach().cpu().double().clamp(0, 1)
        levels[top : top + rows] = strip.mul_(255).round_().permute(1, 2, 0)
    return levels


def check_suffix(path: Path) -> None:
    """Refuse a name whose suffix is no format that can be written.

    Raises:
        InputError: the suffix is unknown.
    """
    if path.suffix.lower() not in WRITABLE:
        known = " ".join(WRITABLE)
        raise InputError(f"cannot write {path.name!r}: its suffix must be one of {known}")


def write(picture: Tensor, path: Path | str) -> None:
    """Write a picture ``[3, H, W]`` in 0..1 as an 8-bit file, whole or not at all.

    Raises:
        InputError: the suffix is no known format, or the folder cannot be written to.
    """
    path = Path(path)
    check_suffix(path)
    kind, options = WRITABLE[path.suffix.lower()]
    image = Image.fromarray(to_8_bit(picture).numpy())
    try:
        with atomic_write(path) as file:
            image.save(file, kind, **options)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


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
