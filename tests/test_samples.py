"""The samples: photographs are found, paintings are painted, and all are written whole."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impasto import samples
from impasto.errors import InputError


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64) / 255


@pytest.fixture(scope="module")
def paintings() -> dict[str, Image.Image]:
    return {name: samples.painting(name, 192) for name in samples.PAINTINGS}


@pytest.mark.parametrize("name", samples.PHOTOS)
def test_a_photograph_opens_in_rgb(name: str) -> None:
    image = samples.photo(name)
    assert image.mode == "RGB"
    assert min(image.size) >= 256
    assert pixels(image).std() > 0.1


def test_photographs_need_neither_scikit_image_in_memory_nor_pooch_nor_torch() -> None:
    program = (
        "import sys; from impasto import samples\n"
        "for name in samples.PHOTOS: samples.photo(name)\n"
        "print(*sorted({'skimage', 'pooch', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("ships", ["no package", "no file"])
def test_a_missing_photograph_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ships: str
) -> None:
    found = None
    if ships == "no file":
        found = ModuleSpec("skimage", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: found)
    with pytest.raises(InputError, match=r"'coffee' is missing.*pip install.*scikit-image"):
        samples.photo("coffee")


@pytest.mark.parametrize("name", samples.PAINTINGS)
def test_a_painting_is_the_same_every_time(name: str, paintings: dict[str, Image.Image]) -> None:
    assert samples.painting(name, 192).tobytes() == paintings[name].tobytes()


@pytest.mark.parametrize(
    ("name", "long_side", "height"), [("swirl", 16, 12), ("facets", 101, 79), ("dabs", 768, 600)]
)
def test_a_painting_has_the_size_asked(name: str, long_side: int, height: int) -> None:
    image = samples.painting(name, long_side)
    assert (image.mode, image.size) == ("RGB", (long_side, height))


def test_a_painting_is_768_wide_unless_asked_otherwise() -> None:
    assert inspect.signature(samples.painting).parameters["long_side"].default == 768


@pytest.mark.parametrize("name", samples.PAINTINGS)
def test_a_painting_is_the_same_picture_at_every_size(
    name: str, paintings: dict[str, Image.Image]
) -> None:
    small = pixels(paintings[name].resize((48, 38), Image.Resampling.BOX))
    large = pixels(samples.painting(name, 384).resize((48, 38), Image.Resampling.BOX))
    assert np.abs(small - large).mean() < 0.04


@pytest.mark.parametrize("name", samples.PAINTINGS)
def test_a_painting_has_colour_and_brushwork_everywhere(
    name: str, paintings: dict[str, Image.Image]
) -> None:
    picture = pixels(paintings[name])[:144]
    # A Gram matrix can only carry what varies: every channel does, not all of them together,
    assert picture.std(axis=(0, 1)).min() > 0.1
    assert (picture.max(axis=2) - picture.min(axis=2)).mean() > 0.15
    # and there is no flat place: each 16 x 16 square has contrast of its own.
    grey = picture @ [0.299, 0.587, 0.114]
    squares = grey.reshape(9, 16, 12, 16).std(axis=(1, 3))
    assert squares.min() > 0.02
    # Neither bare noise: half the contrast survives when the brushwork is averaged away.
    assert grey.reshape(36, 4, 48, 4).mean(axis=(1, 3)).std() > 0.5 * grey.std()


def test_the_manners_differ_in_palette_and_in_rhythm(paintings: dict[str, Image.Image]) -> None:
    palettes: dict[str, np.ndarray] = {}
    rhythms: dict[str, np.ndarray] = {}
    for name, image in paintings.items():
        picture = pixels(image)
        palettes[name] = np.histogramdd(picture.reshape(-1, 3), 4, [(0, 1)] * 3)[0].ravel()
        palettes[name] /= palettes[name].sum()
        grey = picture @ [0.299, 0.587, 0.114]
        # How much two points resemble each other, 4 pixels apart, across and down.
        flat = (grey - grey.mean()) / grey.std()
        across, down = (flat[:, 4:] * flat[:, :-4]).mean(), (flat[4:] * flat[:-4]).mean()
        rhythms[name] = np.array([across, down])
    for a in paintings:
        for b in paintings:
            if a < b:
                assert np.abs(palettes[a] - palettes[b]).sum() / 2 > 0.3, (a, b)
                assert np.abs(rhythms[a] - rhythms[b]).max() > 0.04, (a, b)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: samples.photo("chelsee"), r"unknown photograph 'chelsee'.*mean chelsea\?"),
        (lambda: samples.painting("facet"), r"unknown painting 'facet'.*mean facets\?"),
        (lambda: samples.painting("swirl", 15), r"15 pixels wide; give a width from 16 to 8192"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_write_makes_every_sample_with_the_same_bytes_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paintings: dict[str, Image.Image]
) -> None:
    # That a painting itself is the same each time has its own test.
    monkeypatch.setattr(samples, "painting", lambda name: paintings[name])
    folder = tmp_path / "new" / "samples"
    paths = samples.write(folder)
    assert [path.name for path in paths] == [
        f"{name}.png" for name in (*samples.PHOTOS, *samples.PAINTINGS)
    ]
    assert sorted(folder.iterdir()) == sorted(paths)
    first = {path: path.read_bytes() for path in paths}
    assert {path: path.read_bytes() for path in samples.write(folder)} == first
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("PNG", "RGB")
    assert not any(word in data for word in (b"tIME", b"tEXt", b"iTXt") for data in first.values())


def test_write_refuses_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot make the folder"):
        samples.write(tmp_path / "file" / "samples")
