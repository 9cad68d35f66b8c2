"""Pictures on disk and in memory.

In memory a picture is ``[3, H, W]``, float32, sRGB in 0..1, everywhere in this project. The functions
here are the only ones that read a user's picture or mask, or write one.
"""

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy
import numpy.typing as npt
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.Image import DecompressionBombError
from PIL.PngImagePlugin import putchunk
from torch import Tensor

from impasto import color, masks, profiles
from impasto.errors import InputError
from impasto.files import atomic_write
from impasto.memory import spoken
from impasto.profiles import Pixels
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
_PNG_HEADER = 33
"""The bytes of a PNG before the first chunk that may follow its header."""

_KEPT = tuple(
    getattr(ExifTags.Base, name)
    for name in (
        "ImageDescription",
        "Make",
        "Model",
        "Software",
        "DateTime",
        "Artist",
        "HostComputer",
        "Copyright",
    )
)
_DROPPED = tuple(
    getattr(ExifTags.Base, name)
    for name in (
        "MakerNote",
        "ColorSpace",
        "ExifImageWidth",
        "ExifImageHeight",
        "ExifInteroperabilityOffset",
    )
)
"""What is true of the photograph's file alone, or nobody's to read, among what is said of exposure."""

_MOST_EXIF = 60_000
"""A JPEG holds 64 kB of it."""

_MOST_DOTS = 30_000


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
    """What a file says of its picture besides pixels: ICC profile, EXIF, dots per inch.

    Of the EXIF there are who, when, with what and where; nothing of orientation, thumbnail or size.
    """

    profile: bytes | None = None
    exif: bytes = b""
    dpi: tuple[float, float] | None = None

    def without_location(self) -> "Metadata":
        """Return the same without the place where the picture was taken."""
        return self._replace(exif=_exif(self._exif(), (ExifTags.IFD.Exif,)))

    def texts(self) -> "Metadata":
        """Return the same with the texts of the EXIF alone: who, when and with what."""
        return self._replace(exif=_exif(self._exif(), ()))

    def _exif(self) -> Image.Exif:
        exif = Image.Exif()
        exif.load(self.exif)
        return exif


NO_METADATA = Metadata()


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
        picture = source.upright(_tensor(source, longest))
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
        strips = source.indices or source.over_white
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
        return _fitted((masks.soft([strip]) for strip in source.over_white()), source, size, path)


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
    """Return the pixels as `_Source.strips` gives them, shrunk if a side is over ``longest``."""
    height, width = source.size
    if longest and longest < max(width, height):
        return shrink(source.strips(), height, fitted(height, width, longest))
    picture, top = torch.empty(0, height, width), 0
    for strip in source.strips():
        if not top:
            picture = torch.empty(len(strip), height, width)
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
    profile: bytes | None
    parts: Callable[[], Iterator[Pixels]]
    orientation: Callable[[], int] = lambda: 1
    indices: Callable[[], Iterator[Tensor]] | None = None
    bytes_per_pixel: int = _DECODED
    image: Image.Image | None = None

    def strips(self) -> Iterator[Tensor]:
        """Yield the pixels as ``[3, rows, W]`` in 0..1, or times alpha, with it: ``[4, rows, W]``."""
        profile = self.profile
        for pixels in self.parts():
            channels = pixels.shape[2]
            inks = channels == 4 and profile is not None and profiles.space(profile) == "cmyk"
            bare = pixels if inks or channels in (1, 3) else pixels[:, :, :-1]
            rgb = None if profile is None else profiles.to_srgb(bare, profile)
            colours = torch.from_numpy(profiles.to_floats(bare) if rgb is None else rgb)
            strip = colours.permute(2, 0, 1).expand(3, -1, -1)
            if bare is not pixels:
                alpha = torch.from_numpy(profiles.to_floats(pixels[:, :, -1]))
                strip = torch.cat([strip * alpha, alpha[None]])
            yield strip

    def over_white(self) -> Iterator[Tensor]:
        """Yield the pixels as ``[3, rows, W]`` in 0..1, over white."""
        for strip in self.strips():
            yield strip if len(strip) == 3 else strip[:3] + (1 - strip[3:])

    def metadata(self) -> Metadata:
        """Return what is kept of the file; after the pixels, as some of it may stand behind them."""
        if self.image is None:
            return Metadata(self.profile)
        return Metadata(self.profile, _exif(self.image), _dots(self.image))

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
        return _deep_tiff(path, None, stack)
    if image.format == "TIFF" and image.mode not in _GREYS and max(_bits(image)) > 8:
        return _deep_tiff(path, image, stack)
    profile = image.info.get("icc_profile")

    def orientation() -> int:
        image.load()  # a TIFF is turned by Pillow itself; a PNG may have it behind its pixels
        return image.getexif().get(ExifTags.Base.Orientation, 1)  # type: ignore[no-any-return]

    if image.format == "PNG" and any(str(tile.args).endswith(";16B") for tile in image.tile):
        deep = functools.cache(lambda: imagecodecs.png_decode(path.read_bytes()))
        grey, count = image.mode in _GREYS, len(image.getbands())
        return _Source(
            (image.height, image.width),
            _usable(profile, 1 if grey else 3),
            lambda: _rows(deep()),
            orientation,
            bytes_per_pixel=_DECODED + 2 * count,
            image=image,
        )
    channels = {"1": 1, "L": 1, "LA": 1, "CMYK": 4, **dict.fromkeys(_GREYS, 1)}.get(image.mode, 3)
    profile = _usable(profile, channels)

    def parts() -> Iterator[Image.Image]:
        image.load()
        rows = max(1, _STRIP // image.width)
        for top in range(0, image.height, rows):
            yield image.crop((0, top, image.width, min(image.height, top + rows)))

    return _Source(
        (image.height, image.width),
        profile,
        lambda: (_pixels(part, profile) for part in parts()),
        orientation,
        (lambda: (torch.from_numpy(numpy.array(part)) for part in parts()))
        if image.mode == "P"
        else None,
        image=image,
    )


def _bits(image: Image.Image) -> tuple[int, ...]:
    return image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined,no-any-return]


def _usable(profile: bytes | None, channels: int) -> bytes | None:
    """Return a profile, or None if it cannot be used: colours are then taken for sRGB."""
    pixel = numpy.zeros((1, 1, channels), numpy.uint8)
    return profile if profile and profiles.to_srgb(pixel, profile) is not None else None


def _exif(
    found: Image.Image | Image.Exif, folders: Iterable[int] = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
) -> bytes:
    """Return what is kept of EXIF data, with these of its folders; nothing where it is damaged."""
    try:
        found = found.getexif() if isinstance(found, Image.Image) else found
        kept = Image.Exif()
        kept.update({tag: found[tag] for tag in _KEPT if tag in found})
        for folder in folders:
            said = found.get_ifd(folder)
            if said := {tag: value for tag, value in said.items() if tag not in _DROPPED}:
                kept.get_ifd(folder).update(said)
                kept[folder] = kept.get_ifd(folder)
        written = kept.tobytes() if len(kept) else b""
    except Exception:  # as with pixels, there is no telling what damaged data raises
        return b""
    return written if len(written) <= _MOST_EXIF else b""


def _dots(image: Image.Image) -> tuple[float, float] | None:
    """Return the dots per inch, if the file says something that can be."""
    try:
        across, down = (float(dots) for dots in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 1 <= across <= _MOST_DOTS and 1 <= down <= _MOST_DOTS else None


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


def _deep_tiff(path: Path, image: Image.Image | None, stack: ExitStack) -> _Source:
    """Return the source of a TIFF whose colours have over 8 bits."""
    page = stack.enter_context(tifffile.TiffFile(path)).pages.first
    kinds = {0: 1, 1: 1, 2: 3, 5: 4}  # white is 0, black is 0, RGB, inks
    if page.photometric not in kinds or page.dtype is None or page.imagedepth != 1:
        raise InputError(f"{path} is a TIFF of a rare kind; save it as 16-bit RGB or as PNG")
    count = kinds[page.photometric]
    alpha = next(iter(page.extrasamples), 0)
    profile = _usable(page.iccprofile, count)
    if count == 4 and profile is None:
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
        profile,
        lambda: _rows(decoded()),
        lambda: turned.value if turned else 1,
        bytes_per_pixel=_DECODED + 2 * page.samplesperpixel * page.dtype.itemsize,
        image=image,
    )


def to_8_bit(picture: Tensor) -> Tensor:
    """Return a picture as its 8-bit file will have it, ``[H, W, 3]`` uint8.

    Example:
        >>> to_8_bit(torch.full((3, 1, 1), 0.5)).flatten().tolist()
        [128, 128, 128]
    """
    return torch.from_numpy(_levels(picture, 8))


def _levels(picture: Tensor, bit_depth: int, profile: bytes | None = None) -> npt.NDArray[Any]:
    """Return a picture ``[C, H, W]`` as a file has it, ``[H, W, C]`` in bytes or 16 bits."""
    channels, height, width = picture.shape
    levels = numpy.empty((height, width, channels), numpy.uint8 if bit_depth == 8 else numpy.uint16)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):  # in strips: in float64 a whole one may be larger than all else
        strip = picture[:, top : top + rows].detach().cpu().double().clamp(0, 1).permute(1, 2, 0).numpy()
        if profile is not None:
            converted = profiles.from_srgb(strip[:, :, :3].astype(numpy.float32), profile)
            if converted is None:
                raise InputError("the profile to write in is none that colours can be written in")
            strip = numpy.concatenate([converted, strip[:, :, 3:]], axis=2, dtype=numpy.float64)
        levels[top : top + rows] = numpy.rint(strip * (2**bit_depth - 1))
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
) -> None:
    """Write a picture ``[3, H, W]`` in 0..1 as a file of 8 or 16 bits a colour, whole or not at all.

    It is sRGB, or in the colours of the metadata's RGB profile; the profile is in the file. An
    ``alpha`` ``[1, H, W]`` is brought to the picture's size; a JPEG, which has none, is over white.

    Raises:
        InputError: the suffix is no known format or has no such depth, the profile is not one to write
            in, or the folder cannot be written to.
    """
    path = Path(path)
    check_suffix(path, bit_depth)
    kind, options = WRITABLE[path.suffix.lower()]
    if alpha is not None:
        alpha = resize(alpha, (picture.shape[1], picture.shape[2])).to(picture)
        picture = 1 + (picture - 1) * alpha if kind == "JPEG" else torch.cat([picture, alpha])
    levels = _levels(picture, bit_depth, metadata.profile)
    metadata = metadata._replace(profile=metadata.profile or profiles.srgb())
    if kind == "TIFF":  # neither Pillow nor tifffile writes the folders of exposure and place into one
        metadata = metadata.texts()
    try:
        with atomic_write(path) as file:
            if bit_depth == 16:
                DEEP[kind](file, levels, metadata)
            else:
                said = {"exif": metadata.exif, "dpi": metadata.dpi}
                options = {**options, **{key: value for key, value in said.items() if value}}
                # Given a file, Pillow writes to its descriptor, and not all of its encoders look whether
                # that went well: on a full disk a part of a JPEG would pass for the whole.
                encoded = io.BytesIO()
                Image.fromarray(levels).save(encoded, kind, icc_profile=metadata.profile, **options)
                file.write(encoded.getbuffer())
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _write_deep_png(file: BinaryIO, levels: npt.NDArray[numpy.uint16], metadata: Metadata) -> None:
    encoded = imagecodecs.png_encode(levels)
    file.write(encoded[:_PNG_HEADER])
    assert metadata.profile is not None
    putchunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.profile))
    if metadata.dpi:
        across, down = (round(dots / 0.0254) for dots in metadata.dpi)
        putchunk(file, b"pHYs", struct.pack(">IIB", across, down, 1))
    if metadata.exif:
        putchunk(file, b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    file.write(encoded[_PNG_HEADER:])


def _write_deep_tiff(file: BinaryIO, levels: npt.NDArray[numpy.uint16], metadata: Metadata) -> None:
    exif = Image.Exif()
    exif.load(metadata.exif)
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
            (tag, "s", 0, text, True) for tag, text in exif.items() if isinstance(text, str) and text
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
