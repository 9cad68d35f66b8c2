"""Hostile pictures: bombs made by hand, and seeded mutants of pictures in every format and depth.

`examine` reads one as the program does and says what came of it: nothing but a picture or a refusal of
one line may, and the child that decodes it stays within its means. The tests keep a sample; `survive`
is what `make torture` runs.
"""

import contextlib
import io
import random
import socket
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy
import tifffile
from PIL import ExifTags, Image

import icc
from impasto import child, images
from impasto.errors import InputError

MOST_SECONDS, MOST_BYTES = 10.0, 600 << 20
"""What decoding up to 10 megapixels may take."""


class Outcome(NamedTuple):
    """What came of a file: why it was refused, if it was; what its child took; what signal ended it."""

    refused: str
    seconds: float
    held: float
    signal: int


# --- pictures ------------------------------------------------------------------------------------


def levels(channels: int, deep: bool = False, side: tuple[int, int] = (24, 33)) -> numpy.ndarray:
    """Return a smooth picture with some noise."""
    down, across = numpy.mgrid[: side[0], : side[1]]
    chance = numpy.random.default_rng(channels)
    waves = [numpy.sin(across / (3 + k) + k) * numpy.cos(down / (4 + k)) for k in range(channels)]
    smooth = 0.5 + 0.4 * numpy.stack(waves, 2) + 0.05 * chance.standard_normal((*side, channels))
    most = 65535 if deep else 255
    found = (smooth.clip(0, 1) * most).astype(numpy.uint16 if deep else numpy.uint8)
    return found[:, :, 0] if channels == 1 else found


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return a picture's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_tiff(pixels: numpy.ndarray, **options: object) -> bytes:
    """Return a TIFF of tifffile's."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def pictures() -> dict[str, bytes]:
    """Return small pictures in every format and depth that is read, some with all kinds of metadata."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "A. Painter"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
    said = {"exif": exif, "icc_profile": icc.wide()}
    rgb, rgba = Image.fromarray(levels(3)), Image.fromarray(levels(4))
    grey, inks = Image.fromarray(levels(1)), Image.fromarray(levels(4), mode="CMYK")
    palette = rgb.quantize(16)
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    found = {
        "png 1": saved(grey.convert("1"), "PNG"),
        "png L": saved(grey, "PNG"),
        "png LA": saved(rgba.convert("LA"), "PNG"),
        "png P": saved(palette, "PNG", transparency=3),
        "png RGB": saved(rgb, "PNG", dpi=(300, 300), **said),
        "png RGBA": saved(rgba, "PNG"),
        "png I;16": saved(Image.fromarray(levels(1, deep=True)), "PNG"),
        "png RGB16": imagecodecs.png_encode(levels(3, deep=True)),
        "png RGBA16": imagecodecs.png_encode(levels(4, deep=True)),
        "apng": saved(rgb, "PNG", **frames),
        "jpeg L": saved(grey, "JPEG"),
        "jpeg RGB": saved(rgb, "JPEG", **said),
        "jpeg progressive": saved(rgb, "JPEG", progressive=True),
        "jpeg CMYK": saved(inks, "JPEG"),
        "mpo": saved(rgb, "MPO", **frames),
        "webp lossy": saved(rgb, "WEBP", **said),
        "webp lossless": saved(rgba, "WEBP", lossless=True),
        "webp animated": saved(rgb, "WEBP", **frames),
        "avif": saved(rgb, "AVIF", speed=10, **said),
        "avif RGBA": saved(rgba, "AVIF", speed=10),
        "gif": saved(palette, "GIF", transparency=2),
        "gif animated": saved(rgb, "GIF", **frames),
        "bmp": saved(rgb, "BMP"),
        "bmp P": saved(palette, "BMP"),
        "tiff RGB": saved(rgb, "TIFF", **said),
        "tiff lzw": saved(rgba, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(grey, "TIFF", compression="tiff_deflate"),
        "tiff jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tiff packbits": saved(palette, "TIFF", compression="packbits"),
        "tiff group4": saved(grey.convert("1"), "TIFF", compression="group4"),
        "tiff CMYK": saved(inks, "TIFF"),
        "tiff LAB": saved(Image.fromarray(levels(3), mode="LAB"), "TIFF"),
        "tiff F": saved(Image.fromarray(levels(1) / numpy.float32(255)), "TIFF"),
        "tiff 16": deep_tiff(levels(3, deep=True), photometric="rgb", iccprofile=icc.wide()),
        "tiff 16 planes": deep_tiff(
            numpy.moveaxis(levels(3, deep=True), 2, 0), photometric="rgb", planarconfig="separate"
        ),
        "tiff floats": deep_tiff(levels(3) / numpy.float32(255), photometric="rgb"),
        "bigtiff tiles": deep_tiff(
            levels(4, deep=True),
            photometric="rgb",
            extrasamples=["unassalpha"],
            bigtiff=True,
            tile=(16, 16),
            compression="zlib",
        ),
    }
    for packed in ("zlib", "lzw", "zstd", "lzma", "packbits"):
        found[f"tiff 16 {packed}"] = deep_tiff(
            levels(3, deep=True), photometric="rgb", compression=packed
        )
    return found


# --- mutants -------------------------------------------------------------------------------------


def chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where a PNG's chunks begin and how long their data say they are."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield at, length
        at += 12 + length


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose checksums agree with its bytes: what is wrong gets past them."""
    mended = bytearray(data)
    for at, length in chunks(data):
        end = at + 8 + length
        if end + 4 <= len(mended):
            mended[end : end + 4] = zlib.crc32(mended[at + 4 : end]).to_bytes(4, "big")
    return bytes(mended)


def _flipped(data: bytearray, chance: random.Random, _: bytes) -> None:
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _run(data: bytearray, chance: random.Random, _: bytes) -> None:
    at, length = chance.randrange(len(data)), chance.randrange(1, 40)
    fill = chance.choice((b"\0", b"\xff", b"\x7f", chance.randbytes(1), b""))
    data[at : at + length] = fill * length if fill else chance.randbytes(length)


def _cut(data: bytearray, chance: random.Random, _: bytes) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randrange(1, 200)]


def _doubled(data: bytearray, chance: random.Random, _: bytes) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randrange(1, 400)] * chance.choice((1, 1, 50))


def _spliced(data: bytearray, chance: random.Random, other: bytes) -> None:
    at, of = chance.randrange(len(data)), chance.randrange(len(other))
    data[at:] = other[of:]


def _truncated(data: bytearray, chance: random.Random, _: bytes) -> None:
    del data[chance.randrange(1, len(data)) :]


def _lied(data: bytearray, chance: random.Random, _: bytes) -> None:
    """Put a number where a length or a size may stand, near the start or in a PNG's chunk."""
    width = chance.choice((1, 2, 2, 4, 4, 8))
    number = chance.choice((0, 1, 2, 255, 1 << (8 * width - 1), (1 << 8 * width) - 1, 40_000))
    at = chance.randrange(min(len(data), 400))
    if data[:4] == b"\x89PNG" and chance.random() < 0.7:
        begins, _ = chance.choice(list(chunks(bytes(data))) or [(0, 0)])
        at = begins + chance.choice((0, 8, 8, 12))
    order = "little" if data[:2] in (b"II", b"BM", b"RI", b"GI") else "big"
    data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, order)


MUTATIONS = (_flipped, _flipped, _run, _cut, _doubled, _spliced, _truncated, _lied, _lied)


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield damaged pictures, each of the formats in turn, with what was done to it."""
    chance, whole = random.Random(seed), pictures()
    for number in range(count):
        name = list(whole)[number % len(whole)]
        data, done = bytearray(whole[name]), []
        for mutate in chance.choices(MUTATIONS, k=chance.choice((1, 1, 2, 3))):
            mutate(data, chance, whole[chance.choice(list(whole))])
            done.append(mutate.__name__)
            data = data or bytearray(b"\0")
        mended = with_checksums(data) if chance.random() < 0.8 else bytes(data)
        yield f"{number}: {name} {' '.join(done)}", mended if data[:4] == b"\x89PNG" else bytes(data)


# --- bombs ---------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG's chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, *before: bytes, bits: int = 8, colours: int = 2, data: bytes | None = None
) -> bytes:
    """Return a PNG, black unless other data are given, with chunks before its pixels."""
    if data is None:
        row = 1 + width * bits * {0: 1, 2: 3, 6: 4}[colours] // 8
        data = zlib.compress(bytes(row * height), 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))
    middle = b"".join(before) + chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], tags: int | None = None, following: int = 0) -> bytes:
    """Return a TIFF of 16x16 grey pixels with these entries (tag, type, count, value) besides."""
    own = {
        256: (256, 4, 1, 16),
        257: (257, 4, 1, 16),
        258: (258, 3, 1, 8),
        259: (259, 3, 1, 1),
        262: (262, 3, 1, 1),
        273: (273, 4, 1, 8),
        277: (277, 3, 1, 1),
        278: (278, 4, 1, 16),
        279: (279, 4, 1, 256),
    }
    own |= {entry[0]: entry for entry in entries}
    packed = b"".join(struct.pack("<HHII", *entry) for _, entry in sorted(own.items()))
    folder = struct.pack("<H", len(own) if tags is None else tags) + packed
    return b"II*\0" + struct.pack("<I", 264) + bytes(256) + folder + struct.pack("<I", following)


def scans(side: tuple[int, int], count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = saved(Image.new("L", side, 77), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def segments(*parts: tuple[int, bytes]) -> bytes:
    """Return a JPEG with these segments behind its start."""
    data = saved(Image.new("RGB", (20, 20)), "JPEG")
    head = b"".join(bytes([255, kind]) + struct.pack(">H", len(part) + 2) + part for kind, part in parts)
    return data[:2] + head + data[2:]


def profile(table: bytes) -> bytes:
    """Return a colour profile of RGB whose tags are this."""
    head = bytearray(icc.wide()[:128])
    head[:4] = (128 + len(table)).to_bytes(4, "big")
    return bytes(head) + table


def lut(inputs: int, grid: int) -> bytes:
    """Return a profile whose table claims so many points on each side."""
    one = (65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft2" + bytes(4) + bytes([inputs, 3, grid, 0])
    table += struct.pack(">9iHH", *one, 2, 2) + bytes(4096)
    return profile(struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table)


def zeros(megabytes: int) -> bytes:
    """Return so many zeros, compressed."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


def archive() -> bytes:
    """Return a ZIP archive with a picture in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("picture.png", png(20, 20))
    return file.getvalue()


def gif_frames(count: int) -> bytes:
    """Return an animation of so many frames of 16x16 pixels."""
    data = saved(Image.new("P", (16, 16)), "GIF")
    frame = data[data.index(b",") : -1]
    return data[:-1] + frame * count + b";"


def flat(side: tuple[int, int], kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Return a picture of one colour: some kilobytes, many pixels."""
    return saved(Image.new(mode, side), kind, **options)


BIG = (3400, 2900)
"""Just under ten megapixels."""

MANY = "megapixels; shrink it"
NONE = "is not a picture; readable are"
READ = ""
"""What is not bombed: it is read."""

ANY = "cannot be read|" + NONE

BOMBS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    # pixels
    "png of 10^10 pixels": (lambda: png(100_000, 100_000, data=b""), MANY),
    "png of a row": (lambda: png((1 << 31) - 1, 1, data=b""), "thinner than 200:1|" + MANY),
    "png without pixels": (lambda: png(0, 10, data=b""), ANY),
    "png of 144 megapixels, of which none": (lambda: png(12_000, 12_000, data=zeros(1)), ANY),
    "jpeg of 4 gigapixels": (
        lambda: flat((16, 16), "JPEG").replace(b"\x08\x00\x10\x00\x10", b"\x08\xff\xdc\xff\xdc"),
        MANY,
    ),
    "gif of 4 gigapixels": (
        lambda: b"GIF89a\xff\xff\xff\xff" + flat((16, 16), "GIF")[10:],
        MANY,
    ),
    "bmp of 4 gigapixels": (
        lambda: flat((16, 16), "BMP")[:18] + struct.pack("<iiHH", 65_535, 65_535, 1, 24) + bytes(200),
        MANY,
    ),
    "tiff of 10^10 pixels": (lambda: tiff((256, 4, 1, 100_000), (257, 4, 1, 100_000)), MANY),
    "webp of 268 megapixels": (
        lambda: b"RIFF\x1e\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(8),
        MANY + "|" + ANY,
    ),
    # what unpacks
    "png that unpacks to 200 MB": (lambda: png(*BIG, data=zeros(200)), READ),
    "png of 20x20 that unpacks to 200 MB": (lambda: png(20, 20, data=zeros(200)), READ),
    "deep png": (lambda: png(*BIG, bits=16, colours=6), READ),
    "gif, flat": (lambda: flat(BIG, "GIF", "P"), READ),
    "tiff by LZW, flat": (lambda: flat(BIG, "TIFF", compression="tiff_lzw"), READ),
    "tiff by deflate, flat": (lambda: flat(BIG, "TIFF", "RGBA", compression="tiff_deflate"), READ),
    "webp, flat": (lambda: flat(BIG, "WEBP", "RGBA", lossless=True, method=0, quality=0), READ),
    "deep tiff, flat floats": (
        lambda: deep_tiff(numpy.zeros((*BIG, 3), numpy.float32), photometric="rgb", compression="zlib"),
        READ,
    ),
    "deep tiff, flat doubles": (
        lambda: deep_tiff(numpy.zeros((*BIG, 3)), photometric="rgb", compression="zlib"),
        READ,
    ),
    "deep tiff of 16x16 whose strip unpacks to 200 MB": (
        lambda: _deep_strip(zeros(200)),
        None,
    ),
    "bmp of runs that jump": (lambda: _runs(3000, 3000), None),
    # text, profiles, EXIF
    "png with 200 MB of zTXt": (lambda: png(20, 20, chunk(b"zTXt", b"a\0\0" + zeros(200))), "1 MiB"),
    "png with 200 MB of iTXt": (
        lambda: png(20, 20, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(200))),
        "1 MiB",
    ),
    "png with 100 texts of 1 MiB": (
        lambda: png(20, 20, *[chunk(b"zTXt", b"a\0\0" + zeros(1))] * 100),
        "1 MiB",
    ),
    "png with 200,000 texts": (lambda: png(20, 20, chunk(b"tEXt", b"a\0b") * 200_000), None),
    "png with 200 MB of profile": (
        lambda: png(20, 20, chunk(b"iCCP", b"a\0\0" + zeros(200))),
        "1 MiB",
    ),
    "png with 2 MiB of EXIF": (
        lambda: png(20, 20, chunk(b"eXIf", b"II*\0" + bytes(2 << 20))),
        "over 1 MiB of EXIF",
    ),
    "png whose EXIF refers to itself": (
        lambda: png(20, 20, chunk(b"eXIf", tiff((0x8769, 4, 1, 264), (0x8825, 4, 1, 264)))),
        READ,
    ),
    "jpeg with EXIF of 65,535 tags": (
        lambda: segments((0xE1, b"Exif\0\0" + tiff(tags=65_535) + bytes(60_000))),
        READ,
    ),
    "jpeg with a profile of which parts are missing": (
        lambda: segments((0xE2, b"ICC_PROFILE\0\xff\xff" + icc.wide())),
        READ,
    ),
    "jpeg with a profile of 5 MiB": (
        lambda: segments(
            *((0xE2, b"ICC_PROFILE\0" + bytes([part, 85]) + bytes(62_000)) for part in range(1, 86))
        ),
        "profile of over 4 MiB",
    ),
    "profile with a table of 255^15 points": (
        lambda: flat((20, 20), "PNG", icc_profile=lut(15, 255)),
        READ,
    ),
    "profile with a table of 255^3 points": (
        lambda: flat((20, 20), "PNG", icc_profile=lut(3, 255)),
        READ,
    ),
    "profile of 2^32 tags": (
        lambda: flat((20, 20), "PNG", icc_profile=profile(b"\xff" * 4 + bytes(400))),
        READ,
    ),
    "profile whose tags overlap": (
        lambda: flat(
            (20, 20),
            "PNG",
            icc_profile=profile(
                struct.pack(">I", 100) + struct.pack(">4sII", b"rTRC", 0, 1 << 31) * 100
            ),
        ),
        READ,
    ),
    # scans
    "jpeg of 1,000 scans": (lambda: scans(BIG, 1000), "over 256 scans"),
    "jpeg of 100,000 scans": (lambda: scans((16, 16), 100_000), "over 256 scans"),
    "jpeg of 240 scans": (lambda: scans(BIG, 230), None),
    "jpeg with scans in its metadata": (lambda: segments((0xE1, b"\xff\xda" * 1000)), READ),
    # frames
    "gif of 20,000 frames": (lambda: gif_frames(20_000), READ),
    "apng of 2^31 frames": (
        lambda: png(20, 20, chunk(b"acTL", struct.pack(">II", (1 << 31) - 1, 0))),
        None,
    ),
    "tiff of folders in a loop": (lambda: tiff(following=264), READ),
    "tiff whose folder holds itself": (lambda: tiff((330, 4, 1, 264), (0x8769, 4, 1, 264)), READ),
    "deep tiff of folders in a loop": (lambda: _looped(), READ),
    # counts
    "tiff of 65,535 tags": (lambda: tiff(tags=65_535) + bytes(800_000), None),
    "tiff of 2^32 strips": (lambda: tiff((273, 4, (1 << 32) - 1, 8)), None),
    "tiff of 2^32 bits": (lambda: tiff((258, 3, (1 << 32) - 1, 8)), None),
    "tiff of 65,535 channels": (lambda: tiff((277, 3, 1, 65_535)), None),
    "tiff of 65,535 deep channels": (
        lambda: tiff((258, 3, 1, 16), (262, 3, 1, 2), (277, 3, 1, 65_535)),
        None,
    ),
    "bigtiff of 2^63 tags": (
        lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 63) + bytes(400),
        ANY,
    ),
    "avif of a box without end": (lambda: b"\0\0\0\x1cftypavif" + b"\xff" * 400, ANY),
    "avif whose box is 2^64 long": (
        lambda: pictures()["avif"].replace(b"meta", b"meta\xff\xff\xff\xff", 1),
        ANY,
    ),
    "webp that says it is longer": (
        lambda: b"RIFF\xff\xff\xff\xff" + pictures()["webp lossy"][8:],
        None,
    ),
    "bmp of 2^31 colours": (
        lambda: flat((16, 16), "BMP", "P")[:46] + b"\0\0\0\x80" + bytes(2000),
        None,
    ),
    # what is something else
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", NONE),
    "svg entities": (
        lambda: b"<!DOCTYPE a [<!ENTITY a 'aa'>]><svg>&a;</svg>",
        NONE,
    ),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n", NONE),
    "pdf": (lambda: b"%PDF-1.7\n" + flat((20, 20), "PDF")[9:], NONE),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", NONE),
    "zip": (archive, NONE),
    "psd": (lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3), NONE),
    "ico": (lambda: flat((32, 32), "ICO"), NONE),
    "jpeg 2000": (lambda: flat((32, 32), "JPEG2000"), NONE),
    "ppm": (lambda: b"P6 100000 100000 255\n", NONE),
    "nothing": (lambda: b"", NONE),
    "a start": (lambda: b"\x89PNG\r\n\x1a\n", ANY),
    # what is two things
    "png and zip": (lambda: png(20, 20) + archive(), READ),
    "jpeg and html": (lambda: segments((0xFE, b"<script>alert(1)</script>")), READ),
    "gif and script": (lambda: flat((20, 20), "GIF") + b"=1;alert(1)", READ),
    "pdf with a jpeg": (lambda: b"%PDF-1.7\n" + flat((20, 20), "JPEG"), NONE),
    "zip with a png behind": (lambda: archive() + png(20, 20), NONE),
}
"""What makes a bomb, and how it is refused: a pattern, `READ`, or either if there is none."""


def _deep_strip(data: bytes) -> bytes:
    """Return a TIFF of 16x16 pixels of 16 bits whose one strip is this."""
    whole = deep_tiff(numpy.zeros((16, 16, 3), numpy.uint16), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        tags = file.pages.first.tags
        places = [(tags[273].valueoffset, len(whole)), (tags[279].valueoffset, len(data))]
    found = bytearray(whole + data)
    for at, value in places:
        struct.pack_into("<I", found, at, value)
    return bytes(found)


def _looped() -> bytes:
    """Return a deep TIFF whose folder is followed by itself."""
    found = bytearray(deep_tiff(levels(3, deep=True), photometric="rgb"))
    first = int.from_bytes(found[4:8], "little")
    count = int.from_bytes(found[first : first + 2], "little")
    struct.pack_into("<I", found, first + 2 + 12 * count, first)
    return bytes(found)


def _runs(width: int, height: int) -> bytes:
    """Return a bitmap by runs of which most jump over pixels."""
    pixels = b"\0\2\1\0" * 200_000 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(pixels), 0, 0, 1078) + head + bytes(1024) + pixels


# --- what comes of them --------------------------------------------------------------------------


class _Peeking:
    """A socket whose words stay to be read once more."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line

    def settimeout(self, seconds: float) -> None:
        self.line.settimeout(seconds)

    def recv(self, length: int) -> bytes:
        return self.line.recv(length, socket.MSG_PEEK)


def examine(data: bytes, folder: Path) -> Outcome:
    """Read a file's picture as the program does; return what came of it.

    Raises:
        Exception: something else than a refusal of one line did.
    """
    path = folder / "hostile.png"
    path.write_bytes(data)
    lines: list[socket.socket] = []
    real, refused = child._Remote, ""

    def remote(data: socket.socket, line: socket.socket) -> child._Remote:
        lines.append(line.dup())  # as long as there is one, the child ends by itself
        return real(data, _Peeking(line))  # type: ignore[arg-type]

    child._Remote = remote  # type: ignore[assignment, misc]
    try:
        picture = images.read(path, longest=64)
        assert picture.isfinite().all()
    except InputError as error:
        refused = str(error)
        assert refused.startswith(str(path))
        assert refused.isprintable()
        assert len(refused) < 1000
    finally:
        child._Remote = real  # type: ignore[misc]
    (line,) = lines
    with line:
        line.settimeout(60)
        status, seconds, held = child._END.unpack(line.recv(child._END.size))
    path.unlink()
    return Outcome(refused.removeprefix(f"{path} "), seconds, held, status & 127)


def survive(count: int, folder: Path, seed: int = 0) -> int:
    """Read all bombs and so many mutants; print what came of them; return how many did wrong."""
    wrong, outcomes, began = 0, [], time.monotonic()
    bombs = [(name, make()) for name, (make, _) in BOMBS.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in [*bombs, *mutants(count, seed)]:
            try:
                outcomes.append(examine(data, folder))
            except Exception as error:
                wrong += 1
                print(f"{name}: {type(error).__name__}: {error}")
                continue
            if outcomes[-1].seconds > MOST_SECONDS or outcomes[-1].held > MOST_BYTES:
                wrong += 1
                print(f"{name}: {outcomes[-1].seconds:.1f} s, {outcomes[-1].held / 2**20:.0f} MiB")
    refused = sum(bool(one.refused) for one in outcomes)
    print(
        f"{len(bombs)} bombs and {count} mutants: {refused} refused in one line, "
        f"{len(outcomes) - refused} read, {wrong} wrong; signals ended "
        f"{sum(one.signal > 0 for one in outcomes)} children; "
        f"at most {max(one.seconds for one in outcomes):.1f} s of computing and "
        f"{max(one.held for one in outcomes) / 2**20:.0f} MiB; {time.monotonic() - began:.0f} s in all",
        flush=True,
    )
    with contextlib.suppress(OSError):
        (folder / "hostile.png").unlink(missing_ok=True)
    return wrong
