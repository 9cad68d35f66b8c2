"""What reads the bytes of pictures that others made: their headers, pixels, profiles and metadata.

Rows come as a file has them, in bytes, 16 bits or floats, with its colour profile applied; nothing here
knows torch. `child` does this in a process of its own; `images` makes pictures of it.
"""

import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

import imagecodecs
import numpy
import numpy.typing as npt
import tifffile
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.Image import DecompressionBombError

from impasto import profiles
from impasto.profiles import Pixels

__all__ = [
    "FOLDERS",
    "MOST_PIXELS",
    "MOST_PROFILE",
    "MOST_XMP",
    "NO_METADATA",
    "READABLE",
    "STRIP",
    "Metadata",
    "Refused",
    "Source",
    "Strip",
    "kept_exif",
    "opened",
    "parsed",
    "possible_dots",
]

try:
    import pillow_heif
except ImportError:
    pillow_heif = None  # type: ignore[assignment,unused-ignore]
else:
    pillow_heif.register_heif_opener()

READABLE = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", *(("HEIF",) if pillow_heif else ()))
"""The formats that are read; a file's first bytes decide, not its name."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")

_READERS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
"""They are here before the first file, which may leave a process no means to load them."""

MOST_PIXELS = 150_000_000

MOST_SCANS = 256
"""A JPEG's: each may go over every pixel, and takes some bytes of the file."""

MOST_METADATA = 1 << 20
"""Bytes of EXIF data, or of one text; Pillow's own limit for a PNG's."""

MOST_PROFILE = 4 << 20
"""Bytes of a colour profile; those of printing presses have some mebibytes."""

MOST_XMP = 1 << 20
"""Bytes of an XMP packet."""

FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
"""The folders of EXIF data that are kept: exposure and place."""

_MOST_EXIF = 60_000
"""Bytes of EXIF that are kept: a JPEG holds 64 kB of it."""

_MOST_CHANNELS = 8
"""A TIFF's, of which alpha is at most the fifth."""

STRIP = 1 << 20
"""Pixels that are converted at a time."""

_DECODED = 6
"""Bytes that Pillow holds for a pixel: four, and more while it decodes."""

_GREYS = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Pillow's modes of over 8 bits: all are grey."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE = 258

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

_MOST_DOTS = 30_000

_MARKER = re.compile(rb"\xff[\x01\x02-\xcf\xd8-\xfe]")
"""A JPEG's next marker after a scan's data, in which FF stands before 00 and restarts alone."""


class Refused(Exception):
    """A picture that cannot be read; the text is a sentence that begins with the file's name."""


class Metadata(NamedTuple):
    """What a file says of its picture besides pixels: ICC profile, EXIF, dots per inch.

    Of the EXIF there are who, when, with what and where; nothing of orientation, thumbnail or size.
    """

    profile: bytes | None = None
    exif: bytes = b""
    dpi: tuple[float, float] | None = None

    def without_location(self) -> "Metadata":
        """Return the same without the place where the picture was taken."""
        return self._replace(exif=kept_exif(self.exif, (ExifTags.IFD.Exif,)))

    def texts(self) -> "Metadata":
        """Return the same with the texts of the EXIF alone: who, when and with what."""
        return self._replace(exif=kept_exif(self.exif, ()))


NO_METADATA = Metadata()


class Strip(NamedTuple):
    """Rows of a picture: sRGB or grey ``[rows, W, 3 or 1]``, and alpha ``[rows, W]`` if it has one.

    Either in bytes, 16-bit levels, or floats in 0..1.
    """

    colours: Pixels
    alpha: Pixels | None = None


class Source(Protocol):
    """A picture file, opened: its header is read, its pixels are decoded when they are asked for.

    One thing is asked for at a time: rows come to their end first.
    """

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, as stored."""

    @property
    def bytes_per_pixel(self) -> int:
        """What decoding takes."""

    @property
    def indexed(self) -> bool:
        """Whether pixels are indices of a palette."""

    def strips(self) -> Iterator[Strip]:
        """Yield the rows from top to bottom."""

    def indices(self) -> Iterator[npt.NDArray[numpy.uint8]]:
        """Yield the rows' indices ``[rows, W]``, if it is `indexed`."""

    def orientation(self) -> int:
        """Return how it is to be turned, 1 to 8 as in EXIF; it may stand behind the pixels."""

    def metadata(self) -> Metadata:
        """Return what is kept of the file; after the pixels, as some of it may stand behind them."""

    def xmp(self) -> bytes:
        """Return the XMP packet; nothing where there is none, or more than such a thing takes."""


@contextmanager
def opened(file: BinaryIO) -> Iterator[Source]:
    """Open a picture file, not decoded yet.

    Raises:
        Refused: it is not a picture, or damaged, or of a kind that is not read; then or later.
        MemoryError: it takes more than there is; then or later.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (3, 2), "white").save(file, "PNG")
        >>> with opened(file) as source:
        ...     print(source.size, next(source.strips()).colours.shape)
        (2, 3) (2, 3, 3)
    """
    with ExitStack() as stack:
        with _refusals():
            source = _source(file, stack)
        yield source


@contextmanager
def _refusals() -> Iterator[None]:
    """Say in one line what decoding found wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata does not concern the pixels
            yield
    except (Refused, MemoryError):
        raise
    except DecompressionBombError:  # Pillow's own limit stands before ours
        raise Refused(f"has over {MOST_PIXELS // 10**6} megapixels; shrink it") from None
    except UnidentifiedImageError:
        raise Refused(f"is not a picture; readable are {', '.join(READABLE)}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # the system's, not the decoder's
            raise Refused(f"cannot be read: {error.strerror}") from None
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "out of memory" in what:  # how libraries in C say it
            raise MemoryError(what) from None
        if what.startswith(("Decompressed data too large", "Too much memory used in text")):
            raise Refused("has over 1 MiB of text or profile; save it without") from None
        raise Refused(f"cannot be read, it seems damaged: {what}") from None


@dataclass(frozen=True)
class _Source:
    """A `Source` in this process.

    ``parts`` gives its pixels from top to bottom, some rows at a time, as ``[rows, W, C]``: grey, RGB,
    or CMYK where that is the profile's, the first two with an alpha behind.
    """

    size: tuple[int, int]
    profile: bytes | None
    parts: Callable[[], Iterator[Pixels]]
    turned: Callable[[], Any] = lambda: 1
    bytes_per_pixel: int = _DECODED
    image: Image.Image | None = None
    palette: Callable[[], Iterator[Image.Image]] | None = None

    @property
    def indexed(self) -> bool:
        return self.palette is not None

    def strips(self) -> Iterator[Strip]:
        profile = self.profile
        with _refusals():
            for pixels in self.parts():
                channels = pixels.shape[2]
                inks = channels == 4 and profile is not None and profiles.space(profile) == "cmyk"
                bare = pixels if inks or channels in (1, 3) else pixels[:, :, :-1]
                rgb = None if profile is None else profiles.to_srgb(bare, profile)
                yield Strip(bare if rgb is None else rgb, None if bare is pixels else pixels[:, :, -1])

    def indices(self) -> Iterator[npt.NDArray[numpy.uint8]]:
        assert self.palette is not None
        with _refusals():
            yield from map(numpy.array, self.palette())

    def orientation(self) -> int:
        with _refusals():
            turned = self.turned()
        return int(turned) if turned in range(1, 9) else 1

    def metadata(self) -> Metadata:
        if self.image is None:
            return Metadata(self.profile)
        with _refusals():
            return Metadata(
                self.profile, kept_exif(self.image), possible_dots(self.image.info.get("dpi"))
            )

    def xmp(self) -> bytes:
        packet = self.image.info.get("xmp") if self.image else None
        return packet if isinstance(packet, bytes) and len(packet) <= MOST_XMP else b""


def _source(file: BinaryIO, stack: ExitStack) -> _Source:
    """Return a file's source: Pillow knows the formats, but not all TIFFs, nor colours of 16 bits."""
    file.seek(0)
    start = file.read(12)
    if start[:2] == b"\xff\xd8":
        _check_scans(file)
    file.seek(0)
    try:
        image = stack.enter_context(Image.open(file, formats=READABLE))
    except UnidentifiedImageError:
        if start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS and pillow_heif is None:
            raise Refused("is a HEIC picture: pip install pillow-heif, or save it as JPEG") from None
        if start[:4] not in _TIFF:
            raise
        return _deep_tiff(file, None, stack)
    profile, exif = image.info.get("icc_profile"), image.info.get("exif")
    if exif and len(exif) > MOST_METADATA:
        raise Refused("has over 1 MiB of EXIF data; save it without")
    if image.format == "TIFF" and image.mode not in _GREYS and max(_bits(image)) > 8:
        return _deep_tiff(file, image, stack)

    def orientation() -> Any:  # noqa: ANN401 (a damaged file may say anything)
        image.load()  # a TIFF is turned by Pillow itself; a PNG may have it behind its pixels
        return image.getexif().get(ExifTags.Base.Orientation, 1)

    if image.format == "PNG" and any(str(tile.args).endswith(";16B") for tile in image.tile):
        # Pillow has no grey of 16 bits with an alpha: it would make RGBA of it.
        grey = any(str(tile.args).startswith(("I;16", "LA")) for tile in image.tile)

        @functools.cache
        def deep() -> Pixels:
            file.seek(0)
            return imagecodecs.png_decode(file.read())

        return _Source(
            (image.height, image.width),
            _usable(profile, 1 if grey else 3),
            lambda: _rows(deep()),
            orientation,
            bytes_per_pixel=_DECODED + 2 * len(image.getbands()),
            image=image,
        )
    channels = {"1": 1, "L": 1, "LA": 1, "CMYK": 4, **dict.fromkeys(_GREYS, 1)}.get(image.mode, 3)
    profile = _usable(profile, channels)

    def parts() -> Iterator[Image.Image]:
        image.load()
        rows = max(1, STRIP // image.width)
        for top in range(0, image.height, rows):
            yield image.crop((0, top, image.width, min(image.height, top + rows)))

    return _Source(
        (image.height, image.width),
        profile,
        lambda: (_pixels(part, profile) for part in parts()),
        orientation,
        image=image,
        palette=parts if image.mode == "P" else None,
    )


def _check_scans(file: BinaryIO) -> None:
    """Refuse a JPEG of very many scans: a few kilobytes of them keep a decoder busy for minutes."""
    file.seek(0)
    data = file.read()
    if data.count(b"\xff\xda") <= MOST_SCANS:  # nearly always; else some may stand in metadata
        return
    scans, at = 0, 2
    while scans <= MOST_SCANS and (marker := _MARKER.search(data, at)):
        at, kind = marker.end(), data[marker.end() - 1]
        if kind == 0xD9:
            return
        scans += kind == 0xDA
        if kind not in (0x01, 0xD8):  # they stand alone; others say how much belongs to them
            at += int.from_bytes(data[at : at + 2], "big")
    if scans > MOST_SCANS:
        raise Refused(f"has over {MOST_SCANS} scans; save it as PNG")


def _bits(image: Image.Image) -> tuple[int, ...]:
    return image.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined,no-any-return]


def _usable(profile: bytes | None, channels: int) -> bytes | None:
    """Return a profile, or None if it cannot be used: colours are then taken for sRGB."""
    if profile and len(profile) > MOST_PROFILE:
        raise Refused(f"has a colour profile of over {MOST_PROFILE >> 20} MiB; save it without")
    pixel = numpy.zeros((1, 1, channels), numpy.uint8)
    return profile if profile and profiles.to_srgb(pixel, profile) is not None else None


def parsed(exif: bytes) -> Image.Exif:
    """Return EXIF data by tag."""
    found = Image.Exif()
    found.load(exif)
    return found


def kept_exif(data: Image.Image | bytes, folders: Iterable[int] = FOLDERS) -> bytes:
    """Return what is kept of EXIF data, with these of its folders; nothing where it is damaged.

    Example:
        >>> kept_exif(b"junk")
        b''
    """
    try:
        found = parsed(data) if isinstance(data, bytes) else data.getexif()
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


def possible_dots(said: Any) -> tuple[float, float] | None:  # noqa: ANN401
    """Return dots per inch, if something was said that can be.

    Example:
        >>> possible_dots((300, 300)), possible_dots((0, "many"))
        ((300.0, 300.0), None)
    """
    try:
        across, down = (float(dots) for dots in said)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (across, down) if 1 <= across <= _MOST_DOTS and 1 <= down <= _MOST_DOTS else None


def _rows(pixels: Pixels) -> Iterator[Pixels]:
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    rows = max(1, STRIP // pixels.shape[1])
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


def _deep_tiff(file: BinaryIO, image: Image.Image | None, stack: ExitStack) -> _Source:
    """Return the source of a TIFF whose colours have over 8 bits."""
    file.seek(0)
    page = stack.enter_context(tifffile.TiffFile(file, name="picture")).pages.first
    kinds = {0: 1, 1: 1, 2: 3, 5: 4}  # white is 0, black is 0, RGB, inks
    common = page.photometric in kinds and page.imagedepth == 1
    if not common or page.dtype is None or page.samplesperpixel > _MOST_CHANNELS:
        raise Refused("is a TIFF of a rare kind; save it as 16-bit RGB or as PNG")
    count = kinds[page.photometric]
    alpha = next(iter(page.extrasamples), 0)
    profile = _usable(page.iccprofile, count)
    if count == 4 and profile is None:
        raise Refused("has inks without a profile at 16 bits; save it as 16-bit RGB")

    @functools.cache
    def decoded() -> npt.NDArray[Any]:
        pixels = page.asarray()
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = numpy.moveaxis(pixels, 0, 2)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return pixels[:, :, : count + (alpha in (1, 2) and count < 4)]

    def bounded(pixels: npt.NDArray[Any]) -> Pixels:
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
        lambda: map(bounded, _rows(decoded())),
        lambda: turned.value if turned else 1,
        bytes_per_pixel=_DECODED + 2 * page.samplesperpixel * page.dtype.itemsize,
        image=image,
    )
