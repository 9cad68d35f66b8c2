"""Pictures of every kind that Pillow knows, in and out."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto import images, masks, schedule
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
        case "LA":  # a third opaque, over white
            return Image.new("LA", size, (SHADE, 85)), (210, 210, 210)
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


def test_a_palette_with_a_transparent_entry_lies_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (20, 20), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.paste(1, (0, 0, 10, 20))
    for name in ("p.png", "p.gif"):
        image.save(tmp_path / name, transparency=0)
        picture = images.read(tmp_path / name)
        assert picture[:, 5, 15].tolist() == [1, 1, 1]
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


UPRIGHT = numpy.arange(20 * 30, dtype=numpy.uint8).reshape(20, 30)
TURNS: dict[int, Callable[[numpy.ndarray], numpy.ndarray]] = {
    # What a camera stored, of a picture that is to be seen upright.
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.T,
    6: lambda seen: numpy.rot90(seen, 1),
    7: lambda seen: seen[::-1, ::-1].T,
    8: lambda seen: numpy.rot90(seen, -1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_turned_photograph_is_read_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = Image.fromarray(numpy.ascontiguousarray(TURNS[orientation](UPRIGHT))).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    stored.save(tmp_path / "turned", kind, exif=exif, **options)
    seen = images.to_8_bit(images.read(tmp_path / "turned"))
    assert (seen[:, :, 0].numpy() == UPRIGHT).all()


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
    monkeypatch.setattr(images, "MOST_PIXELS", 1599)
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
def test_a_picture_shrunk_while_it_is_read_is_the_shrunk_picture(
    tmp_path: Path, mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_STRIP", 90 * 7)  # strips of seven rows
    noise = numpy.random.default_rng(0).integers(0, 256, (50, 90, 4), dtype=numpy.uint8)
    image = Image.fromarray(noise)
    if mode == "I;16":
        image = Image.fromarray(noise[:, :, 0].astype(numpy.uint16) * 257)
    image = image if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "p.png", exif=exif)
    whole = images.read(tmp_path / "p.png")
    shrunk = images.read(tmp_path / "p.png", longest=33)
    assert shrunk.is_contiguous()
    torch.testing.assert_close(shrunk, schedule.fit(whole, 33), atol=2e-6, rtol=0)
    assert torch.equal(images.read(tmp_path / "p.png", longest=90), whole)


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
    monkeypatch.setattr(images, "_STRIP", 200)
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
