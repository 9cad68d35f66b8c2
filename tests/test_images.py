"""Pictures of every kind that Pillow knows, in and out."""

import ast
import io
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy
import pillow_heif
import pytest
import tifffile
import torch
from PIL import ExifTags, Image
from torch import Tensor

import icc
from impasto import decode, images, masks, profiles, schedule
from impasto.errors import InputError

RED, SHADE = (200, 40, 90), 120
"""The colour of the test pictures, and their grey."""

GREY = (SHADE, SHADE, SHADE)
LOSSLESS = ("PNG", "TIFF", "BMP")


def in_mode(mode: str) -> tuple[Image.Image, tuple[int, int, int]]:
    """Return a flat picture in one of Pillow's modes, and the colour it must be read as."""
    size = (24, 20)
    match mode:
        case "1":
            return Image.new("1", size, 1), (255, 255, 255)
        case "L":
            return Image.new("L", size, SHADE), GREY
        case "LA":  # a third opaque
            return Image.new("LA", size, (SHADE, 85)), GREY
        case "P":
            return Image.new("RGB", size, RED).quantize(4), RED
        case "RGB":
            return Image.new("RGB", size, RED), RED
        case "RGBA":  # transparent whatever its colour: white
            return Image.new("RGBA", size, (*RED, 0)), (255, 255, 255)
        case "CMYK":
            return Image.new("CMYK", size, (55, 215, 165, 0)), RED
        case "I;16":
            deep = numpy.full((20, 24), SHADE * 257, numpy.uint16)
            return Image.fromarray(deep), GREY
        case "I":
            return Image.new("I", size, SHADE * 257), GREY
        case _:
            return Image.new("F", size, SHADE / 255), GREY


LEGAL = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB"),
    "JPEG": ("1", "L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
}
"""What each format can hold."""


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in LEGAL.items() for mode in modes]
)
def test_every_mode_of_every_format_is_read_in_its_colours(tmp_path: Path, kind: str, mode: str) -> None:
    image, colour = in_mode(mode)
    if kind == "BMP" and mode == "RGBA":
        # A bitmap's fourth byte is opacity in one of its header's versions alone; Pillow writes
        # another version and reads the colours back without it.
        colour = RED
    path = tmp_path / "picture"
    image.save(path, kind)
    picture = images.read(path)
    assert picture.dtype == torch.float32
    assert tuple(picture.shape) == (3, 20, 24)
    expected = torch.tensor(colour).view(3, 1, 1) / 255
    near = 0.5 / 255 if kind in LOSSLESS else 6 / 255
    assert (picture - expected).abs().max() <= near


def test_a_palette_with_a_transparent_entry_has_an_alpha(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.paste(1, (0, 0, 10, 20))
    for name in ("p.png", "p.gif"):
        image.save(tmp_path / name, transparency=0)
        for over, expected in (("white", [1, 1, 1]), ("black", [0, 0, 0]), ("keep", [0, 0, 1])):
            picture = images.read(tmp_path / name, transparency=over)
            assert picture[:, 5, 15].tolist() == expected
            assert picture[:, 5, 5].tolist() == [0, 0, 1]


def test_deep_greys_keep_their_depth(tmp_path: Path) -> None:
    deep = numpy.arange(400, dtype=numpy.uint16).reshape(20, 20) + 30_000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    picture = images.read(tmp_path / "deep.png")
    assert len(picture[0].unique()) == 400
    assert torch.allclose(picture[2].double() * 65535, torch.from_numpy(deep).double(), atol=0.01)


def test_greys_out_of_range_are_clipped_and_nan_is_refused(tmp_path: Path) -> None:
    values = numpy.full((20, 20), 0.25, numpy.float32)
    values[0, :2] = -3, 7
    Image.fromarray(values).save(tmp_path / "f.tif")
    assert images.read(tmp_path / "f.tif")[0, 0, :3].tolist() == [0, 1, 0.25]
    for bad in (numpy.nan, numpy.inf):
        values[3, 4] = bad
        Image.fromarray(values).save(tmp_path / "bad.tif")
        with pytest.raises(InputError, match="NaN or infinite"):
            images.read(tmp_path / "bad.tif")


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("blue", "red", "lime")]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert images.read(tmp_path / name)[:, 9, 9].tolist() == [0, 0, 1]


def structured() -> Tensor:
    """Return a picture with smooth colours and an edge, on 8-bit levels."""
    across = torch.linspace(0, 1, 40).expand(30, 40)
    down = torch.linspace(1, 0, 30)[:, None].expand(30, 40)
    edge = (torch.arange(40) > 20).float().expand(30, 40)
    return (torch.stack([across, down, edge]) * 255).round() / 255


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_lossless_formats_give_back_the_same_picture(tmp_path: Path, suffix: str) -> None:
    images.write(structured(), tmp_path / f"p{suffix}")
    assert torch.equal(images.read(tmp_path / f"p{suffix}"), structured())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_formats_give_back_nearly_the_same_picture(tmp_path: Path, suffix: str) -> None:
    images.write(structured(), tmp_path / f"p{suffix}")
    difference = (images.read(tmp_path / f"p{suffix}") - structured()).abs()
    assert 0 < difference.mean() < 0.02


def test_jpegs_have_quality_95_and_colours_at_full_resolution(tmp_path: Path) -> None:
    images.write(structured(), tmp_path / "p.jpg")
    twin = io.BytesIO()
    Image.fromarray(images.to_8_bit(structured()).numpy()).save(twin, "JPEG", quality=95)
    with Image.open(tmp_path / "p.jpg") as ours, Image.open(twin) as theirs:
        assert ours.quantization == theirs.quantization  # type: ignore[attr-defined]
        assert {sampling for *_, sampling, _ in ours.layer} <= {1}  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", images.WRITABLE)
def test_a_file_depends_on_its_pixels_alone(tmp_path: Path, suffix: str) -> None:
    one, other = tmp_path / f"one{suffix}", tmp_path / f"another-name{suffix}"
    images.write(structured(), one)
    images.write(structured().double(), other)
    assert one.read_bytes() == other.read_bytes()
    with Image.open(one) as image:
        assert not image.getexif().get(0x0132)
        assert not {"date", "Creation Time", "xmp", "comment"} & set(image.info)


def test_levels_are_rounded_to_the_nearest_and_clipped() -> None:
    values = torch.tensor([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 254.4 / 255, 254.6 / 255, 1.0, 9.0])
    picture = values.view(1, 1, -1).expand(3, 1, -1)
    assert images.to_8_bit(picture)[0, :, 0].tolist() == [0, 0, 0, 1, 254, 255, 255, 255]
    levels = torch.arange(256).view(1, 16, 16).expand(3, 16, 16)
    assert torch.equal(images.to_8_bit(levels / 255).permute(2, 0, 1).long(), levels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    generator = numpy.random.default_rng(0)
    array = generator.integers(0, 256, (40, 40, 3), dtype=numpy.uint8)
    whole = io.BytesIO()
    Image.fromarray(array).save(whole, kind)
    path = tmp_path / "half.png"
    path.write_bytes(whole.getvalue()[: int(kept * len(whole.getvalue()))])
    with pytest.raises(InputError, match=r"half\.png") as refused:
        images.read(path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("width", "height"), [(402, 2), (2, 402), (201, 1)])
def test_a_picture_thinner_than_200_to_1_is_refused(tmp_path: Path, width: int, height: int) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "thin.png")
    with pytest.raises(InputError, match=f"{width}x{height}: thinner than 200:1"):
        images.read(tmp_path / "thin.png")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "big.png")
    monkeypatch.setattr(decode, "MOST_PIXELS", 1599)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(InputError, match="40x40 pixels"):
        images.read(tmp_path / "big.png")


def test_a_name_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        images.read(tmp_path / ("n" * 300 + ".png"))


@pytest.mark.parametrize("suffix", images.WRITABLE)
@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace", "PIL.Image.Image.save"])
def test_a_failed_write_leaves_the_old_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, suffix: str
) -> None:
    path = tmp_path / f"p{suffix}"
    images.write(structured(), path)
    old = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(InputError, match="No space left"):
        images.write(1 - structured(), path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == old


@pytest.mark.parametrize("suffix", images.WRITABLE)
def test_a_write_that_the_system_cuts_short_leaves_the_old_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    images.write(1 - structured(), path)
    most = path.stat().st_size // 2
    images.write(structured(), path)
    old, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(InputError, match="File too large"):
            images.write(1 - structured(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == old


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_a_picture_shrunk_while_it_is_read_is_the_shrunk_picture(
    tmp_path: Path, mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "STRIP", 90 * 7)  # strips of seven rows
    noise = numpy.random.default_rng(0).integers(0, 256, (50, 90, 4), dtype=numpy.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[:, :, 0].astype(numpy.uint16) * 257)
    image = image if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "p.png", exif=exif)
    whole = images.read(tmp_path / "p.png", transparency="white")
    shrunk = images.read(tmp_path / "p.png", longest=33, transparency="white")
    assert shrunk.is_contiguous()
    torch.testing.assert_close(shrunk, schedule.fit(whole, 33), atol=2e-6, rtol=0)
    assert torch.equal(images.read(tmp_path / "p.png", 90, transparency="white"), whole)


def test_a_picture_that_memory_cannot_decode_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "p.png")
    images.read(tmp_path / "p.png", memory=1 << 20)
    with pytest.raises(InputError, match=r"400x300 pixels, which take .* to read: more than --memory"):
        images.read(tmp_path / "p.png", memory=1 << 19)


def test_a_mask_has_its_regions_in_the_palettes_order_else_from_dark_to_bright(tmp_path: Path) -> None:
    mask = Image.new("P", (4, 3), 1)
    mask.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white
    mask.paste(0, (0, 0, 1, 3))
    mask.save(tmp_path / "palette.png")
    mask.convert("RGB").save(tmp_path / "colours.png")
    left = torch.tensor([1.0, 0, 0, 0]).expand(3, 4)
    assert torch.equal(images.read_regions(tmp_path / "palette.png"), torch.stack([left, 1 - left]))
    assert torch.equal(images.read_regions(tmp_path / "colours.png"), torch.stack([1 - left, left]))
    structured_path = tmp_path / "photo.png"
    images.write(structured(), structured_path)
    with pytest.raises(InputError, match="at most 16 flat"):
        images.read_regions(structured_path)
    with pytest.raises(InputError, match="does not exist"):
        images.read_regions(tmp_path / "none.png")


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(33, 22), (20, 13), (90, 60), None])
def test_a_mask_is_shrunk_on_the_way_and_upright(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    orientation: int,
    size: tuple[int, int] | None,
) -> None:
    monkeypatch.setattr(decode, "STRIP", 200)
    generator = numpy.random.default_rng(orientation)
    which = generator.integers(4, size=(9, 6)).repeat(7, 0).repeat(7, 1).astype(numpy.uint8)
    mask = Image.fromarray(60 * which)
    if mode == "P":
        mask = Image.fromarray(which, mode="P")
        mask.putpalette([*range(0, 120, 10)])
    mask = mask.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask.save(tmp_path / "m.png", exif=exif)
    size = size and (size if orientation < 5 else size[::-1])
    regions = images.read_regions(tmp_path / "m.png", size)
    upright = images.read(tmp_path / "m.png").shape[1:] if mode != "P" else regions.shape[1:]
    expected = torch.stack([torch.from_numpy(which == value).float() for value in range(4)])
    if orientation > 1:
        expected = images._TURNS[orientation](expected)
    if size and size[0] < 63 and size[1] < 63:
        expected, upright = masks.fit(expected, size, "the mask"), size
    assert tuple(regions.shape) == (4, *upright)
    torch.testing.assert_close(regions, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(regions.sum(0), torch.ones(tuple(upright)))
    if mode == "L":
        grey = images.read_grey(tmp_path / "m.png", size)
        values = 60 / 255 * torch.arange(4)[:, None, None]
        torch.testing.assert_close(grey, (values * expected).sum(0, keepdim=True), rtol=0, atol=1e-6)


def test_a_mask_is_refused_like_a_picture(tmp_path: Path) -> None:
    Image.new("L", (400, 300)).save(tmp_path / "m.png")
    for read in (images.read_regions, images.read_grey):
        read(tmp_path / "m.png", memory=1 << 20)
        with pytest.raises(InputError, match="more than --memory"):
            read(tmp_path / "m.png", memory=1 << 19)
        with pytest.raises(InputError, match=r"m.png is 400x300 px, its picture 40x40 px"):
            read(tmp_path / "m.png", (40, 40))


WIDE = icc.wide()


def test_a_profile_says_what_numbers_mean(tmp_path: Path) -> None:
    """Adobe RGB (180, 120, 90) by its equations: gamma, matrices of its primaries and of sRGB's."""
    to_xyz = torch.tensor(
        [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    ).double()
    to_rgb = torch.tensor(
        [[3.24097, -1.53738, -0.49861], [-0.96924, 1.87597, 0.04156], [0.05563, -0.20398, 1.05697]]
    ).double()
    linear = to_rgb @ to_xyz @ (torch.tensor([180, 120, 90]).double() / 255) ** 2.2
    expected = 1.055 * linear ** (1 / 2.4) - 0.055
    image = Image.new("RGB", (20, 20), (180, 120, 90))
    for name in ("a.png", "a.tif", "a.jpg"):
        image.save(tmp_path / name, icc_profile=WIDE, **({"quality": 100} if name == "a.jpg" else {}))
        found = images.read(tmp_path / name)[:, 9, 9].double()
        torch.testing.assert_close(found, expected, atol=2e-3 if name != "a.jpg" else 6e-3, rtol=0)
    deep = numpy.full((20, 20, 3), (180 * 257, 120 * 257, 90 * 257), numpy.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", iccprofile=WIDE)
    torch.testing.assert_close(
        images.read(tmp_path / "deep.tif")[:, 9, 9].double(), expected, atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("profile", [b"junk", icc.inks(), WIDE[:200], b"\0" * 400])
def test_a_profile_that_cannot_be_used_is_ignored(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (20, 20), RED).save(tmp_path / "p.png", icc_profile=profile)
    assert images.to_8_bit(images.read(tmp_path / "p.png"))[3, 3].tolist() == list(RED)


def test_greys_may_have_a_profile_of_greys_or_of_colours(tmp_path: Path) -> None:
    dark = icc.linear()
    for mode, profile, expected in (("L", dark, 0.7353), ("LA", dark, 0.7353), ("L", WIDE, 0.5)):
        image = Image.new("L", (20, 20), 128).convert(mode)
        image.save(tmp_path / "g.png", icc_profile=profile)
        found = images.read(tmp_path / "g.png")[:, 3, 3]
        torch.testing.assert_close(found, torch.full((3,), expected), atol=6e-3, rtol=0)


def test_lab_is_read_in_its_colours(tmp_path: Path) -> None:
    lab = Image.merge("LAB", [Image.new("L", (20, 20), value) for value in (191, 128, 128)])
    lab.save(tmp_path / "lab.tif")
    found = images.read(tmp_path / "lab.tif")[:, 3, 3]
    grey = 1.055 * (((191 / 2.55 + 16) / 116) ** 3) ** (1 / 2.4) - 0.055
    torch.testing.assert_close(found, torch.full((3,), grey), atol=0.02, rtol=0)


def noise(*shape: int) -> numpy.ndarray:
    return numpy.random.default_rng(0).integers(0, 65536, shape, dtype=numpy.uint16)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_read_at_full_depth(tmp_path: Path, channels: int) -> None:
    deep = noise(20, 30, channels)
    if channels in (2, 4):
        deep[:, :, -1] = 65535
    colours = deep if channels in (1, 3) else deep[:, :, :-1]
    expected = torch.from_numpy(colours / 65535).permute(2, 0, 1).float().expand(3, -1, -1)
    (tmp_path / "p.png").write_bytes(imagecodecs.png_encode(deep.squeeze()))
    options = {"photometric": "rgb" if channels > 2 else "minisblack"}
    if channels in (2, 4):
        options["extrasamples"] = ["unassalpha"]  # type: ignore[assignment]
    names = ["p.png"]
    for packed in ("none", "zlib", "lzw"):
        names.append(f"{packed}.tif")
        tifffile.imwrite(tmp_path / names[-1], deep.squeeze(), compression=packed, **options)
    if channels == 3:
        names.append("planes.tif")
        planes = numpy.moveaxis(deep, 2, 0)
        tifffile.imwrite(tmp_path / names[-1], planes, planarconfig="separate", **options)
        names.append("float.tif")
        tifffile.imwrite(tmp_path / names[-1], (deep / 65535).astype(numpy.float32), **options)
    for name in names:
        torch.testing.assert_close(images.read(tmp_path / name), expected, atol=1e-7, rtol=0, msg=name)
        shrunk = images.read(tmp_path / name, longest=17)
        torch.testing.assert_close(shrunk, schedule.fit(expected, 17), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["png", "none", "zlib", "lzw", "float"])
def test_a_truncated_deep_picture_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    whole = io.BytesIO()
    if kind == "png":
        whole.write(imagecodecs.png_encode(noise(40, 40, 3)))
    elif kind == "float":
        tifffile.imwrite(whole, (noise(40, 40, 3) / 65535).astype(numpy.float32), photometric="rgb")
    else:
        tifffile.imwrite(whole, noise(40, 40, 3), photometric="rgb", compression=kind)
    (tmp_path / "half").write_bytes(whole.getvalue()[: int(kept * len(whole.getvalue()))])
    with pytest.raises(InputError, match="half") as refused:
        images.read(tmp_path / "half")
    assert len(str(refused.value).splitlines()) == 1


def test_deep_tiffs_out_of_range_are_clipped_and_nan_is_refused(tmp_path: Path) -> None:
    values = numpy.full((20, 20, 3), 0.25, numpy.float32)
    values[0, 0] = -3, 7, 1
    tifffile.imwrite(tmp_path / "f.tif", values, photometric="rgb")
    assert images.read(tmp_path / "f.tif")[:, 0, :2].flatten().tolist() == [0, 0.25, 1, 0.25, 1, 0.25]
    values[3, 4, 2] = numpy.nan
    tifffile.imwrite(tmp_path / "bad.tif", values, photometric="rgb")
    with pytest.raises(InputError, match="NaN or infinite"):
        images.read(tmp_path / "bad.tif")


def heic(path: Path, **more: Any) -> Tensor:
    """Write a picture as phones do; return it."""
    picture = structured()
    levels = images.to_8_bit(picture).numpy()
    pillow_heif.from_pillow(Image.fromarray(levels)).save(path, quality=-1, chroma=444, **more)
    return picture


def test_heic_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = "A. Painter"
    picture = heic(tmp_path / "phone.jpg", exif=exif.tobytes())
    found = images.read_photograph(tmp_path / "phone.jpg")
    assert (found.picture - picture.transpose(1, 2).flip(2)).abs().max() <= 3 / 255
    kept = Image.Exif()
    kept.load(found.metadata.exif)
    assert kept[ExifTags.Base.Artist] == "A. Painter"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_heic_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "phone.heic"
    heic(path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=r"phone\.heic"):
        images.read(path)


def test_without_its_library_heic_is_named(tmp_path: Path) -> None:
    heic(tmp_path / "phone.heic")
    script = (
        "import sys; sys.modules['pillow_heif'] = None; from impasto import images\n"
        f"with images.trusted(): images.read({str(tmp_path / 'phone.heic')!r})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("is a HEIC picture: pip install pillow-heif, or save it as JPEG")


def test_what_is_no_allowed_format_is_refused_whatever_its_name(tmp_path: Path) -> None:
    drawing = b"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='40'/>"
    tga = io.BytesIO()
    Image.new("RGB", (40, 40)).save(tga, "TGA")
    for content in (drawing, tga.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P6 40 40 255\n", b""):
        (tmp_path / "p.png").write_bytes(content)
        with pytest.raises(InputError, match=r"p\.png is not a picture; readable are PNG, JPEG"):
            images.read(tmp_path / "p.png")


OPENERS = {
    "Image.open": ("decode.py", "samples.py"),
    "imagecodecs.png_decode": ("decode.py",),
    "tifffile.TiffFile": ("decode.py",),
    "tifffile.imread": (),
    "torch.load": ("weights.py",),
    "pickle.load": (),
    "pickle.loads": (),
}
"""Calls that read what others wrote, and the files that may make them."""


def test_files_of_others_are_opened_in_one_place() -> None:
    for path in Path(images.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert path.name in OPENERS.get(name, (path.name,)), f"{path.name} calls {name}"
                assert not name.endswith((".extractall", ".unpack_archive")), f"{path.name}: {name}"
                if name == "torch.load":
                    assert "weights_only=True" in ast.unparse(node)
                if name == "Image.open" and path.name == "decode.py":
                    assert "formats=READABLE" in ast.unparse(node)


@pytest.mark.parametrize("suffix", images.WRITABLE)
def test_what_is_written_says_that_it_is_srgb(tmp_path: Path, suffix: str) -> None:
    images.write(structured(), tmp_path / f"p{suffix}")
    with Image.open(tmp_path / f"p{suffix}") as image:
        assert image.info["icc_profile"] == profiles.srgb()


DEEP = [".png", ".tif", ".TIFF"]


@pytest.mark.parametrize("suffix", DEEP)
def test_16_bits_are_written_and_read_back(tmp_path: Path, suffix: str) -> None:
    picture = torch.from_numpy(noise(3, 31, 20) / 65535).float()
    metadata = images.Metadata(dpi=(300, 150))
    for name in (f"one{suffix}", f"other{suffix}"):
        images.write(picture, tmp_path / name, 16, metadata)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"other{suffix}").read_bytes()
    torch.testing.assert_close(images.read(tmp_path / f"one{suffix}"), picture, atol=1e-7, rtol=0)
    with Image.open(tmp_path / f"one{suffix}") as image:
        assert image.info["icc_profile"] == profiles.srgb()
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    found = images.read_photograph(tmp_path / f"one{suffix}").metadata
    assert found.dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_16_bits_need_a_format_that_holds_them(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match=r"8 bits; for --bit-depth 16 write \.png or \.tif"):
        images.write(structured(), tmp_path / f"p{suffix}", 16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_picture_in_another_profile_is_the_same_picture(tmp_path: Path, bit_depth: int) -> None:
    images.write(structured(), tmp_path / "p.png", bit_depth, images.Metadata(WIDE))
    with Image.open(tmp_path / "p.png") as image:
        assert image.info["icc_profile"] == WIDE
        assert image.getpixel((0, 0)) != (0, 255, 0)  # Adobe RGB has other numbers for it
    levels = 255 if bit_depth == 8 else 65535
    found = images.read(tmp_path / "p.png")
    # A level of 8 bits near black is several of sRGB's there.
    torch.testing.assert_close(found, structured(), atol=20 / levels + 1e-3, rtol=0)
    with pytest.raises(InputError, match="none that colours can be written in"):
        images.write(structured(), tmp_path / "q.png", 8, images.Metadata(icc.inks()))


def camera() -> Image.Exif:
    """Return what a camera says of a photograph."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A. Painter"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.XPComment] = b"h\0i\0"
    exposure = {ExifTags.Base.ExposureTime: 0.01, ExifTags.Base.MakerNote: b"secret"}
    exif.get_ifd(ExifTags.IFD.Exif).update(exposure)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS.GPSLatitudeRef: "N"})
    return exif


@pytest.mark.parametrize("located", [False, True])
@pytest.mark.parametrize("suffix", images.WRITABLE)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_who_and_how_are_kept_and_where_if_asked_for(
    tmp_path: Path, kind: str, suffix: str, located: bool
) -> None:
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>secret</x:xmpmeta>"
    more = {"xmp": xmp} if kind in ("JPEG", "WEBP") else {}
    Image.new("RGB", (30, 20)).save(tmp_path / "photo", kind, exif=camera(), dpi=(300, 300), **more)
    metadata = images.read_photograph(tmp_path / "photo").metadata
    if not located:
        metadata = metadata.without_location()
    out = tmp_path / f"out{suffix}"
    images.write(structured(), out, 8, metadata)
    assert b"secret" not in out.read_bytes()
    with Image.open(out) as image:
        exif = image.getexif()
        assert exif[ExifTags.Base.Artist] == "A. Painter"
        assert exif.get(ExifTags.Base.Orientation, 1) == 1
        assert ExifTags.Base.XPComment not in exif
        whole = kind != "TIFF"  # Pillow wrote no folders into that photograph
        exposure = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ExposureTime, 0)
        assert exposure == pytest.approx(0.01 * whole)
        place = {ExifTags.GPS.GPSLatitudeRef: "N"} if whole and located else {}
        assert dict(exif.get_ifd(ExifTags.IFD.GPSInfo)) == place
        if "WEBP" not in (kind, images.WRITABLE[suffix][0]):
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_tiff_gives_back_what_it_was_given_of_exposure_and_place(tmp_path: Path, alpha: bool) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg", exif=camera())
    metadata = images.read_photograph(tmp_path / "photo.jpg").metadata
    shade = torch.full((1, 30, 40), 0.5) if alpha else None
    images.write(structured(), tmp_path / "out.tif", 8, metadata, shade, b"<x:xmpmeta/>")
    found = images.read_photograph(tmp_path / "out.tif")
    assert found.metadata.exif == metadata.exif
    assert images.read_xmp(tmp_path / "out.tif") == b"<x:xmpmeta/>"
    assert (found.alpha is not None) == alpha


@pytest.mark.parametrize("suffix", DEEP)
def test_a_deep_picture_keeps_who_made_it(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "photo.jpg", exif=camera())
    metadata = images.read_photograph(tmp_path / "photo.jpg").metadata
    images.write(structured(), tmp_path / f"out{suffix}", 16, metadata)
    with Image.open(tmp_path / f"out{suffix}") as image:
        assert image.getexif()[ExifTags.Base.Artist] == "A. Painter"


def test_damaged_exif_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "p.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xffjunk")
    assert images.read_photograph(tmp_path / "p.jpg").metadata.exif == b""


def cut_out() -> tuple[numpy.ndarray, Tensor]:
    """Return RGBA levels of a disc with a soft edge, on green that nobody is to see, and its alpha."""
    down, across = numpy.mgrid[:40, :60]
    alpha = (14 - numpy.hypot(down - 20, across - 30)).clip(-2, 2) / 4 + 0.5
    levels = numpy.zeros((40, 60, 4), numpy.uint8)
    levels[:, :, 1] = 255
    levels[alpha > 0, :3] = RED
    levels[:, :, 3] = numpy.rint(alpha * 255)
    return levels, torch.from_numpy(levels[:, :, 3] / 255).float()[None]


@pytest.mark.parametrize("longest", [None, 23])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "deep PNG", "deep TIFF"])
def test_colour_below_transparent_pixels_is_seen_nowhere(
    tmp_path: Path, kind: str, longest: int | None
) -> None:
    levels, alpha = cut_out()
    path = tmp_path / "cut"
    if kind == "deep PNG":
        path.write_bytes(imagecodecs.png_encode(levels.astype(numpy.uint16) * 257))
    elif kind == "deep TIFF":
        deep = levels.astype(numpy.uint16) * 257
        tifffile.imwrite(path, deep, photometric="rgb", extrasamples=["unassalpha"])
    else:
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        Image.fromarray(levels).save(path, kind, **options)
    found = images.read_photograph(path, longest)
    red = torch.tensor(RED).view(3, 1, 1) / 255
    torch.testing.assert_close(found.picture, red.expand_as(found.picture), atol=2e-5, rtol=0)
    assert found.alpha is not None
    expected = alpha if longest is None else schedule.fit(alpha, longest)
    torch.testing.assert_close(found.alpha, expected, atol=2e-6, rtol=0)
    for over, value in (("white", 1.0), ("black", 0.0)):
        laid = images.read_photograph(path, longest, transparency=over)
        assert laid.alpha is None
        assert laid.picture[:, 0, 0].tolist() == [value] * 3


def test_an_associated_alpha_is_divided_out(tmp_path: Path) -> None:
    levels, alpha = cut_out()
    times = numpy.rint(levels[:, :, :3] * alpha[0].numpy()[:, :, None] * 257)
    deep = numpy.concatenate([times, levels[:, :, 3:] * 257.0], 2).astype(numpy.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extrasamples=["assocalpha"])
    found = images.read(tmp_path / "a.tif")
    red = torch.tensor(RED).view(3, 1, 1) / 255
    torch.testing.assert_close(found, red.expand_as(found), atol=2e-3, rtol=0)


def test_an_opaque_alpha_is_none(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (*RED, 255)).save(tmp_path / "p.png")
    assert images.read_photograph(tmp_path / "p.png").alpha is None


@pytest.mark.parametrize("bit_depth", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
def test_an_alpha_is_written_at_the_pictures_size(tmp_path: Path, suffix: str, bit_depth: int) -> None:
    if bit_depth == 16 and suffix in (".webp", ".jpg"):
        return
    _, alpha = cut_out()
    large = schedule.resize(structured(), (80, 120))
    images.write(large, tmp_path / f"p{suffix}", bit_depth, alpha=alpha)
    found = images.read_photograph(tmp_path / f"p{suffix}")
    if suffix == ".jpg":
        assert found.alpha is None
        assert found.picture[:, 0, 0].min() > 0.98
        return
    expected = schedule.resize(alpha, (80, 120))
    assert found.alpha is not None
    torch.testing.assert_close(found.alpha, expected, atol=1 / 255, rtol=0)
    if suffix != ".webp":
        middle = found.picture[:, 35:45, 50:70], large[:, 35:45, 50:70]
        torch.testing.assert_close(*middle, atol=0.51 / 255, rtol=0)
