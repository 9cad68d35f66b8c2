"""Modes, formats, depths, alphas, profiles and orientations: every cell against its numbers in numpy."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy
import pytest
import tifffile
import torch
from PIL import Image

import icc
from impasto import images
from impasto.__main__ import main

Array = numpy.ndarray[Any, Any]

TURNS: dict[int, Callable[[Array], Array]] = {
    # What is stored, of a picture [H, W, C] that is to be seen upright.
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2),
    6: lambda seen: numpy.rot90(seen, 1),
    7: lambda seen: seen[::-1, ::-1].transpose(1, 0, 2),
    8: lambda seen: numpy.rot90(seen, -1),
}


# --- profiles, and what their numbers mean -------------------------------------------------------


def encoded(linear: Array) -> Array:
    """Return light as sRGB's numbers, by IEC 61966-2-1."""
    linear = linear.clip(0, 1)
    return numpy.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * numpy.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )


def to_xyz(primaries: list[float]) -> Array:
    """Return the matrix of RGB to XYZ for xyY primaries and the white of D65."""
    x, y = numpy.array(primaries).reshape(3, 3)[:, :2].T
    columns = numpy.stack([x / y, numpy.ones(3), (1 - x - y) / y])
    white = numpy.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * numpy.linalg.solve(columns, white)


def of_wide(rgb: Array) -> Array:
    to_srgb = numpy.linalg.inv(to_xyz([0.64, 0.33, 1, 0.30, 0.60, 1, 0.15, 0.06, 1])) @ to_xyz(icc.ADOBE)
    return encoded(rgb**2.2 @ to_srgb.T)


def of_inks(cmyk: Array) -> Array:
    lightness = 100 * (1 - cmyk.mean(2, keepdims=True))
    cube = (lightness + 16) / 116
    return encoded(numpy.where(lightness > 8, cube**3, lightness / 903.3))


PROFILES: dict[str, tuple[bytes | None, Callable[[Array], Array]]] = {
    "none": (None, lambda rgb: rgb),
    "srgb": (images.profiles.srgb(), lambda rgb: rgb),
    "wide": (icc.wide(), of_wide),
    "linear": (icc.linear(), encoded),
    "inks": (icc.inks(), of_inks),
}


# --- cells ---------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A kind of file: the levels it holds, what writes it, how near it must be read.

    ``write`` takes stored levels ``[H, W, C]``, an orientation and a profile; ``colours`` are what
    values without alpha mean where no profile says so.
    """

    write: Callable[[Array, int, bytes | None], bytes]
    channels: int
    most: float = 255
    near: float = 1 / 255
    alpha: bool = False
    profiles: tuple[str, ...] = ("none",)
    turns: bool = True
    smooth: bool = False
    colours: Callable[[Array], Array] | None = None


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def pillow(kind: str, mode: str, **options: Any) -> Callable[[Array, int, bytes | None], bytes]:
    """Return what writes levels with Pillow."""

    def write(levels: Array, orientation: int, profile: bytes | None) -> bytes:
        levels = levels[:, :, 0] if levels.shape[2] == 1 else levels
        array = numpy.ascontiguousarray(levels)
        if mode == "1":
            image = Image.fromarray(numpy.where(array > 127, 255, 0).astype(numpy.uint8)).convert("1")
        elif mode == "P":
            image = Image.fromarray(array, mode="P")
            image.putpalette(PALETTE.tobytes())
        else:
            image = Image.fromarray(array, **({"mode": mode} if array.dtype == numpy.uint8 else {}))
        file = io.BytesIO()
        more = {"exif": exif(orientation)} if kind not in ("BMP", "GIF") else {}
        if profile:
            more["icc_profile"] = profile  # type: ignore[assignment]
        image.save(file, kind, **options, **more)
        return file.getvalue()

    return write


def deep_png(levels: Array, orientation: int, profile: bytes | None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    made = imagecodecs.png_encode(numpy.ascontiguousarray(levels.squeeze()))
    more = chunk(b"eXIf", exif(orientation).tobytes()[6:])
    if profile:
        more += chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))
    return made[:33] + more + made[33:]


def deep_tiff(**options: Any) -> Callable[[Array, int, bytes | None], bytes]:
    """Return what writes levels with tifffile."""

    def write(levels: Array, orientation: int, profile: bytes | None) -> bytes:
        file = io.BytesIO()
        planes = options.get("planarconfig") == "separate"
        levels = numpy.moveaxis(levels, 2, 0) if planes else levels
        levels = levels[:, :, 0] if levels.shape[2] == 1 else levels
        tags = [(0x0112, "H", 1, orientation, True)]
        tifffile.imwrite(
            file, numpy.ascontiguousarray(levels), iccprofile=profile, extratags=tags, **options
        )
        return file.getvalue()

    return write


def naive(cmyk: Array) -> Array:
    """Return inks without a profile as light, each taking its share of what the black leaves."""
    return (1 - cmyk[:, :, :3]) * (1 - cmyk[:, :, 3:])


PALETTE = numpy.random.default_rng(5).integers(0, 256, (256, 3), dtype=numpy.uint8)
RGB, GREY = ("none", "srgb", "wide"), ("none", "linear")
UNASSOCIATED = {"extrasamples": ["unassalpha"]}
DEEP = {"most": 65535, "near": 2 / 65535}

CELLS: dict[str, Cell] = {
    **{
        f"{kind} {mode}{name}": Cell(pillow(kind, mode, **options), channels, **more)  # type: ignore[arg-type]
        for kind, name, options in (
            ("PNG", "", {}),
            ("TIFF", "", {}),
            ("TIFF", " lzw", {"compression": "tiff_lzw"}),
            ("TIFF", " deflate", {"compression": "tiff_deflate"}),
        )
        for mode, channels, more in (
            ("1", 1, {"colours": lambda x: (x > 127 / 255).astype(float)}),
            ("L", 1, {"profiles": GREY}),
            ("LA", 2, {"alpha": True, "profiles": GREY}),
            ("P", 1, {"colours": lambda x: PALETTE[numpy.rint(255 * x[:, :, 0]).astype(int)] / 255}),
            ("RGB", 3, {"profiles": RGB}),
            ("RGBA", 4, {"alpha": True, "profiles": RGB}),
        )
        if (mode, name) != ("LA", " lzw")
    },
    "PNG I;16": Cell(pillow("PNG", "I;16"), 1, **DEEP, profiles=GREY),
    "PNG RGB16": Cell(deep_png, 3, **DEEP, profiles=RGB),
    "PNG LA16": Cell(deep_png, 2, **DEEP, alpha=True, profiles=GREY),
    "PNG RGBA16": Cell(deep_png, 4, **DEEP, alpha=True, profiles=RGB),
    "TIFF CMYK": Cell(pillow("TIFF", "CMYK"), 4, near=3 / 255, profiles=("none", "inks"), colours=naive),
    "TIFF I;16": Cell(pillow("TIFF", "I;16"), 1, **DEEP, profiles=GREY),
    "TIFF F": Cell(pillow("TIFF", "F"), 1, most=1, near=2 / 65535),
    **{
        f"TIFF {name}{channels}": Cell(
            deep_tiff(**options, **kind, **(UNASSOCIATED if alpha else {})),
            channels,
            **(DEEP if most == 65535 else {"most": most, "near": 2 / 65535}),  # type: ignore[arg-type]
            alpha=alpha,
            profiles=(RGB if channels > 2 else GREY) if most == 65535 else ("none",),
        )
        for name, most, options in (
            ("16 ", 65535, {}),
            ("16 zlib ", 65535, {"compression": "zlib", "predictor": True}),
            ("16 lzw tiles ", 65535, {"compression": "lzw", "tile": (16, 16)}),
            ("float ", 1, {}),
        )
        for channels, alpha, kind in (
            (1, False, {"photometric": "minisblack"}),
            (2, True, {"photometric": "minisblack"}),
            (3, False, {"photometric": "rgb"}),
            (4, True, {"photometric": "rgb"}),
        )
        if name != "float " or channels > 2
    },
    "TIFF 16 planes": Cell(
        deep_tiff(photometric="rgb", planarconfig="separate"), 3, **DEEP, profiles=RGB
    ),
    "TIFF 16 CMYK": Cell(
        deep_tiff(photometric="separated"), 4, most=65535, near=3 / 255, profiles=("inks",)
    ),
    "BMP L": Cell(pillow("BMP", "L"), 1, turns=False),
    "BMP RGB": Cell(pillow("BMP", "RGB"), 3, turns=False),
    "GIF L": Cell(pillow("GIF", "L"), 1, turns=False),
    "JPEG L": Cell(pillow("JPEG", "L", quality=100), 1, near=2 / 255, smooth=True, profiles=GREY),
    "JPEG RGB": Cell(
        pillow("JPEG", "RGB", quality=100, subsampling=0), 3, near=2 / 255, smooth=True, profiles=RGB
    ),
    "JPEG progressive": Cell(
        pillow("JPEG", "RGB", quality=100, subsampling=0, progressive=True),
        3,
        near=2 / 255,
        smooth=True,
    ),
    "JPEG CMYK": Cell(
        pillow("JPEG", "CMYK", quality=100),
        4,
        near=3 / 255,
        smooth=True,
        profiles=("none", "inks"),
        colours=naive,
    ),
    "WEBP lossless RGB": Cell(pillow("WEBP", "RGB", lossless=True), 3, profiles=RGB),
    "WEBP lossless RGBA": Cell(
        pillow("WEBP", "RGBA", lossless=True, exact=True), 4, alpha=True, profiles=RGB
    ),
    "WEBP lossy RGB": Cell(pillow("WEBP", "RGB", quality=100, method=6), 3, near=2 / 255, smooth=True),
    "AVIF RGB": Cell(
        pillow("AVIF", "RGB", quality=100, subsampling="4:4:4", speed=10), 3, near=2 / 255, smooth=True
    ),
}

FURTHER = {("wide", 2 / 65535): 24 / 65535, ("wide", 2 / 255): 3 / 255}
"""The numbers of a profile have 16 bits themselves, and sRGB is steep near black; what a lossy format
lost is more in steeper colours."""

KINDS = [(name, profile) for name, cell in CELLS.items() for profile in cell.profiles]


def seen(cell: Cell) -> Array:
    """Return the levels of a picture as it is to be seen, ``[20, 27, C]``."""
    chance = numpy.random.default_rng(cell.channels)
    shape = (20, 27, cell.channels)
    if cell.smooth:  # and of one faint hue: lossy formats round colours most
        down, across = numpy.mgrid[:20, :27] / 27
        tints = (0.06, 0, -0.06, 0.1)[: cell.channels]
        found = numpy.stack([0.4 + 0.06 * down + 0.1 * across + tint for tint in tints], 2)
    else:
        found = chance.random(shape)
        found[:2, :9], found[2:4, :9] = 0, 1
    if cell.alpha:
        found[:, :, -1] = 0.25 + 0.75 * found[:, :, -1]
        found[-3:, :, -1] = 0
        found[-6:-3, :, -1] = 1
    if cell.most == 1:
        return found.astype(numpy.float32)
    return numpy.rint(found * cell.most).astype(numpy.uint8 if cell.most == 255 else numpy.uint16)


def expected(cell: Cell, levels: Array, profile: str) -> tuple[Array, Array]:
    """Return colours ``[H, W, 3]`` and alpha ``[H, W, 1]`` as they are to be read."""
    values = levels.astype(float) / cell.most
    alpha = values[:, :, -1:] if cell.alpha else numpy.ones((*values.shape[:2], 1))
    colours = values[:, :, :-1] if cell.alpha else values
    _, meaning = PROFILES[profile]
    if profile == "none" and cell.colours:
        colours = cell.colours(colours)
    colours = meaning(colours)
    return numpy.broadcast_to(colours, (*colours.shape[:2], 3)), alpha


def numbers(picture: torch.Tensor) -> Array:
    return picture.double().permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("name", "profile"), KINDS)
def test_every_cell_is_read_as_its_numbers_say(tmp_path: Path, name: str, profile: str) -> None:
    cell, path = CELLS[name], tmp_path / "picture"
    levels = seen(cell)
    colours, alpha = expected(cell, levels, profile)
    near = FURTHER.get((profile, cell.near), cell.near) + 1e-6
    for orientation, store in TURNS.items() if cell.turns else [(1, TURNS[1])]:
        path.write_bytes(cell.write(store(levels), orientation, PROFILES[profile][0]))
        found = images.read_photograph(path)
        if not cell.alpha:
            assert found.alpha is None
            assert numpy.abs(numbers(found.picture) - colours).max() <= near
            continue
        assert found.alpha is not None
        assert numpy.abs(numbers(found.alpha) - alpha).max() <= near
        there = alpha[:, :, 0] > 0
        assert numpy.abs(numbers(found.picture) - colours)[there].max() <= near
        for over, ground in (("white", 1), ("black", 0)):
            laid = numbers(images.read(path, transparency=over))
            assert numpy.abs(laid - colours * alpha - ground * (1 - alpha)).max() <= near


EXACT = [
    name
    for name, cell in CELLS.items()
    if name.startswith(("PNG", "TIFF")) and "CMYK" not in name and cell.most > 1 and cell.channels > 0
]


def stored(path: Path) -> Array:
    """Return the levels in a file, read by something else."""
    data = path.read_bytes()
    return imagecodecs.png_decode(data) if path.suffix == ".png" else tifffile.imread(path)


def rounds(folder: Path, name: str) -> Iterator[tuple[Array, Array]]:
    """Yield the levels of a cell, and those of what is written of it."""
    cell, path = CELLS[name], folder / "picture"
    levels = seen(cell)
    path.write_bytes(cell.write(levels, 1, None))
    found = images.read_photograph(path)
    colours, alpha = expected(cell, levels, "none")
    whole = numpy.concatenate([colours, alpha], 2) if cell.alpha else colours
    for suffix in (".png", ".tif"):
        out = folder / f"out{suffix}"
        bits = 8 if cell.most == 255 else 16
        images.write(found.picture, out, bits, alpha=found.alpha)
        yield numpy.rint(whole * cell.most).astype(int), stored(out).astype(int)


@pytest.mark.parametrize("name", EXACT)
def test_what_is_read_is_written_in_the_same_levels(tmp_path: Path, name: str) -> None:
    for before, after in rounds(tmp_path, name):
        assert after.shape == before.shape
        if CELLS[name].alpha:  # below what is transparent, colours go on
            assert (after[:, :, 3] == before[:, :, 3]).all()
            there = before[:, :, 3] > 0
            assert (after[there] == before[there]).all()
        else:
            assert (after == before).all()


@pytest.mark.usefixtures("tiny_network", "one_thread")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("name", ["PNG RGB", "PNG RGBA", "PNG RGB16", "TIFF RGBA", "TIFF 16 zlib 4"])
def test_a_run_without_iterations_gives_the_levels_back(tmp_path: Path, name: str, suffix: str) -> None:
    cell, path, out = CELLS[name], tmp_path / "photo", tmp_path / f"out{suffix}"
    levels = seen(cell)
    path.write_bytes(cell.write(levels, 1, None))
    words = ["transfer", str(path), str(path), "--size", "full", "--iterations", "0", "-o", str(out)]
    assert main([*words, "--bit-depth", "8" if cell.most == 255 else "16"]) == 0
    after = stored(out)
    there = levels[:, :, 3] > 0 if cell.alpha else numpy.ones(levels.shape[:2], bool)
    assert (after[there] == levels[there]).all()
    assert (after[:, :, 3:] == levels[:, :, 3:]).all()
