"""Pictures on disk and in memory.

In memory a picture is ``[3, H, W]``, float32, sRGB in 0..1, everywhere in this project. The functions
here are the only ones that read a user's picture or mask, or write one.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy
import numpy.typing as npt
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.Image import DecompressionBombError
from torch import Tensor

from impasto import masks, profiles
from impasto.errors import InputError
from impasto.files import atomic_write
from impasto.memory import spoken
from impasto.profiles import Pixels
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

_GREYS = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of over 8 bits: all are grey."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE = 258

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


class Metadata(NamedTuple):
    """What a file says of its picture besides pixels: ICC profile, EXIF, dots per inch."""

    profile: bytes | None = None
    exif: bytes = b""
    dpi: tuple[float, float] | None = None


def read(
    path: Path | str, longest: int | None = None, smallest: int = 1, memory: int | None = None
) -> Tensor:
    """Return a picture file as ``[3, H, W]`` float32 sRGB in 0..1, turned as its EXIF orientation says.

    Of a file with several frames the first is read. PNG and TIFF of 16 bits or floats keep their depth;
    a colour profile is applied, unless it is damaged. Transparent parts are laid over white.

    A picture with a side over ``longest`` is shrunk on the way, so that it is never in memory as
    floats.

    Raises:
        InputError: no such file, not a picture, damaged, a side under ``smallest`` or otherwise of a
            size that cannot be used, or decoding would take more than ``memory`` bytes.
    """
    with _opened(Path(path), smallest, memory) as source:
        return source.upright(_tensor(source, longest))


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
        strips = source.indices or source.strips
        return _fitted(masks.in_strips(strips, str(path)), source, size, path)


def read_grey(
    path: Path | str, size: tuple[int, int] | None = None, memory: int | None = None
) -> Tensor:
    """Return the weights ``[1, H, W]`` of a grey mask file (`masks.soft`); else as `read_regions`.

    Raises:
        InputError: as `read`, or it has another aspect than ``size``.
    """
    path = Path(path)
    with _opened(path, memory=memory) as source:
        return _fitted((masks.soft([strip]) for strip in source.strips()), source, size, path)


def _fitted(
    strips: Iterator[Tensor], source: "_Source", size: tuple[int, int] | None, path: Path
) -> Tensor:
    """Return the regions of a mask that comes in strips, upright and no larger than ``size``."""
    height, width = source.size
    lies = tuple(source.upright(torch.empty(1, 1, 2)).shape) == (1, 2, 1)
    if size:
        size = size[::-1] if lies else size
        masks.check_aspect((height, width), size, str(path))
    if size is None or height * width < size[0] * size[1]:
        size = height, width
    return source.upright(masks.shrink(strips, height, size))


def _tensor(source: "_Source", longest: int | None) -> Tensor:
    """Return the pixels as ``[3, H, W]``, shrunk if a side is over ``longest``."""
    height, width = source.size
    if longest and longest < max(width, height):
        return shrink(source.strips(), height, fitted(height, width, longest))
    picture = torch.empty(3, height, width)
    top = 0
    for strip in source.strips():
        picture[:, top : top + strip.shape[1]] = strip
        top += strip.shape[1]
    return picture


@contextmanager
def _opened(path: Path, smallest: int = 1, memory: int | None = None) -> Iterator["_Source"]:
    """Open a picture file, not decoded yet; say in one line what is wrong with it, then or later."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; give a picture file")
        if not path.exists():
            raise InputError(f"{path} does not exist; give a picture file")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; give a picture file")
        with warnings.catch_warnings(), ExitStack() as stack:
            warnings.simplefilter("ignore")  # damaged metadata does not concern the pixels
            source = _source(path, stack)
            _check(source, path, smallest, memory)
            yield source
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


def _check(source: "_Source", path: Path, smallest: int, memory: int | None) -> None:
    height, width = source.size
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path} has {width}x{height} pixels, over {MOST_PIXELS // 10**6} megapixels; shrink it"
        )
    check_sides(height, width, str(path), smallest)
    needed = source.bytes_per_pixel * width * height
    if memory is not None and needed > memory:
        raise InputError(
            f"{path} has {width}x{height} pixels, which take {spoken(needed)} to read: "
            "more than --memory leaves; shrink it, or allow more"
        )


@dataclass(frozen=True)
class _Source:
    """A picture file, opened: its header is read, its pixels are decoded when they are asked for.

    ``parts`` gives them from top to bottom, some rows at a time, as ``[rows, W, C]``: grey, RGB, or CMYK
    where that is the profile's, the first two with an alpha behind; ``indices`` those of a palette.
    """

    size: tuple[int, int]
    metadata: Metadata
    parts: Callable[[], Iterator[Pixels]]
    orientation: Callable[[], int] = lambda: 1
    indices: Callable[[], Iterator[Tensor]] | None = None
    bytes_per_pixel: int = _DECODED

    def strips(self) -> Iterator[Tensor]:
        """Yield the pixels as ``[3, rows, W]`` in 0..1, over white."""
        profile = self.metadata.profile
        for pixels in self.parts():
            channels = pixels.shape[2]
            inks = channels == 4 and profile is not None and profiles.space(profile) == "cmyk"
            bare = pixels if inks or channels in (1, 3) else pixels[:, :, :-1]
            rgb = None if profile is None else profiles.to_srgb(bare, profile)
            colours = torch.from_numpy(profiles.to_floats(bare) if rgb is None else rgb)
            strip = colours.permute(2, 0, 1).expand(3, -1, -1)
            if bare is not pixels:
                alpha = torch.from_numpy(profiles.to_floats(pixels[:, :, -1]))
                strip = strip * alpha + (1 - alpha)
            yield strip

    def upright(self, picture: Tensor) -> Tensor:
        """Return ``[C, H, W]`` turned as the file says."""
        turn = _TURNS.get(self.orientation())
        return turn(picture).contiguous() if turn else picture


def _source(path: Path, stack: ExitStack) -> _Source:
    """Return a file's source: Pillow knows the formats, but not all TIFFs, nor colours of 16 bits."""
    try:
        image = stack.enter_context(Image.open(path, formats=READABLE))
    except UnidentifiedImageError:
        with path.open("rb") as file:
            if file.read(4) not in _TIFF:
                raise
        return _deep_tiff(path, Metadata(), stack)
    metadata = Metadata(image.info.get("icc_profile"))
    if image.format == "TIFF" and image.mode not in _GREYS and max(_bits(image)) > 8:
        return _deep_tiff(path, metadata, stack)

    def orientation() -> int:
        image.load()  # a TIFF is turned by Pillow itself; a PNG may have it behind its pixels
        return image.getexif().get(ExifTags.Base.Orientation, 1)  # type: ignore[no-any-return]

    if image.format == "PNG" and any(str(tile.args).endswith(";16B") for tile in image.tile):
        deep = functools.cache(lambda: imagecodecs.png_decode(path.read_bytes()))
        grey, count = image.mode in _GREYS, len(image.getbands())
        return _Source(
            (image.height, image.width),
            _usable(metadata, 1 if grey else 3),
            lambda: _rows(deep()),
            orientation,
            bytes_per_pixel=_DECODED + 2 * count,
        )
    channels = {"1": 1, "L": 1, "LA": 1, "CMYK": 4, **dict.fromkeys(_GREYS, 1)}.get(image.mode, 3)
    metadata = _usable(metadata, channels)

    def parts() -> Iterator[Image.Image]:
        image.load()
        rows = max(1, _STRIP // image.width)
        for top in range(0, image.height, rows):
            yield image.crop((0, top, image.width, min(image.height, top + rows)))

    return _Source(
        (image.height, image.width),
        metadata,
        lambda: (_pixels(part, metadata.profile) for part in parts()),
        orientation,
        (lambda: (torch.from_numpy(numpy.array(part)) for part in parts()))
        if image.mode == "P"
        else None,
    )


def _bits(image: Image.Image) -> tuple[int, ...]:
    return image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined,no-any-return]


def _usable(metadata: Metadata, channels: int) -> Metadata:
    """Return metadata without a profile that cannot be used: colours are then taken for sRGB."""
    pixel = numpy.zeros((1, 1, channels), numpy.uint8)
    profile = metadata.profile
    if profile is None or profiles.to_srgb(pixel, profile) is None:
        return metadata._replace(profile=None)
    return metadata


def _rows(pixels: Pixels) -> Iterator[Pixels]:
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    rows = max(1, _STRIP // pixels.shape[1])
    for top in range(0, len(pixels), rows):
        yield pixels[top : top + rows]


def _pixels(part: Image.Image, profile: bytes | None) -> Pixels:
    """Return rows of an image in any of Pillow's modes, as `_Source.parts` gives them."""
    if part.mode in _GREYS:
        # Pillow's own conversion of deep greys turns every value over 255 white.
        grey = numpy.asarray(part)[:, :, None]
        if part.mode == "F":
            return _bounded(grey)
        if part.mode == "I":
            return _bounded(grey / numpy.float32(65535))
        return grey.astype(numpy.uint16)
    if part.mode == "LAB":
        lab, srgb = (ImageCms.createProfile(name) for name in ("LAB", "sRGB"))
        part = ImageCms.profileToProfile(part, lab, srgb, outputMode="RGB") or part
    if part.mode in ("1", "L", "LA", "CMYK") and (part.mode != "CMYK" or profile is not None):
        pixels = numpy.array(part.convert("L") if part.mode == "1" else part)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        if not (part.has_transparency_data and part.mode == "L"):
            return pixels
    return numpy.array(part.convert("RGBA" if part.has_transparency_data else "RGB"))


def _bounded(pixels: npt.NDArray[Any]) -> npt.NDArray[numpy.float32]:
    """Return floats clipped to 0..1.

    Raises:
        ValueError: some are NaN or infinite.
    """
    if not numpy.isfinite(pixels).all():
        raise ValueError("it has pixels that are NaN or infinite")
    return pixels.clip(0, 1).astype(numpy.float32)


def _deep_tiff(path: Path, metadata: Metadata, stack: ExitStack) -> _Source:
    """Return the source of a TIFF whose colours have over 8 bits."""
    page = stack.enter_context(tifffile.TiffFile(path)).pages.first
    kinds = {0: 1, 1: 1, 2: 3, 5: 4}  # white is 0, black is 0, RGB, inks
    if page.photometric not in kinds or page.dtype is None or page.imagedepth != 1:
        raise InputError(f"{path} is a TIFF of a rare kind; save it as 16-bit RGB or as PNG")
    count = kinds[page.photometric]
    alpha = next(iter(page.extrasamples), 0)
    metadata = _usable(metadata._replace(profile=page.iccprofile), count)
    if count == 4 and metadata.profile is None:
        raise InputError(f"{path} has inks without a profile at 16 bits; save it as 16-bit RGB")

    @functools.cache
    def decoded() -> Pixels:
        pixels = page.asarray()
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = numpy.moveaxis(pixels, 0, 2)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        pixels = pixels[:, :, : count + (alpha in (1, 2) and count < 4)]
        if pixels.dtype.kind == "f":
            pixels = _bounded(pixels)
        elif pixels.dtype not in (numpy.uint8, numpy.uint16):
            pixels = _bounded(pixels / numpy.float64(numpy.iinfo(pixels.dtype).max))
        if page.photometric == 0:
            pixels = (1 if pixels.dtype.kind == "f" else numpy.iinfo(pixels.dtype).max) - pixels
        if alpha == 1 and pixels.shape[2] > count:  # colours are premultiplied by it
            pixels = profiles.to_floats(pixels)
            pixels[:, :, :-1] /= pixels[:, :, -1:].clip(1 / 65535)
            pixels = pixels.clip(0, 1)
        return pixels

    turned = page.tags.get(ExifTags.Base.Orientation)
    return _Source(
        (page.imagelength, page.imagewidth),
        metadata,
        lambda: _rows(decoded()),
        lambda: turned.value if turned else 1,
        bytes_per_pixel=_DECODED + 2 * page.samplesperpixel * page.dtype.itemsize,
    )


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
            image.save(file, kind, icc_profile=profiles.srgb(), **options)
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
