"""Whatever call to the system fails: one line, nothing lost or half-written, the next run is right."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import faults
from faults import SCENES, Fault, Faults, Stage
from impasto import files, samples
from impasto.errors import RunError
from impasto.shelf import Shelf

pytestmark = [
    pytest.mark.usefixtures("one_thread", "tiny_network"),
    # Pillow leaves a file that it cannot read to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture_file: Callable[..., Path]
) -> Iterator[Callable[[str], Stage]]:
    """Yield what makes a scene ready in a folder of its own."""
    picture_file("photo.png", 40, 32, seed=1)
    picture_file("painting.png", 36, 36, seed=2)
    monkeypatch.chdir(tmp_path)
    faults.keep_here(tmp_path, monkeypatch.setenv)
    monkeypatch.setattr(samples, "PHOTOS", {"coffee": samples.PHOTOS["coffee"]})
    monkeypatch.setattr(samples, "PAINTINGS", {})
    with faults.quick():
        yield lambda scene: Stage(tmp_path, SCENES.get(scene) or faults.writing(scene))


@pytest.mark.parametrize("kind", faults.KINDS)
@pytest.mark.parametrize("code", faults.CODES)
def test_a_call_that_fails_once(stage: Callable[[str], Stage], kind: str, code: str) -> None:
    calls, wrong = faults.every(stage("a run"), kind, code)
    assert wrong == []
    assert calls >= 2


@pytest.mark.parametrize("kind", faults.KINDS)
@pytest.mark.parametrize("code", ["ENOSPC", "EROFS"])
def test_a_call_that_fails_from_then_on(stage: Callable[[str], Stage], kind: str, code: str) -> None:
    assert faults.every(stage("a run"), kind, code, lasting=True)[1] == []


@pytest.mark.parametrize("kind", faults.KINDS)
@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != "a run"])
def test_other_scenes(stage: Callable[[str], Stage], scene: str, kind: str) -> None:
    assert faults.every(stage(scene), kind, "EIO")[1] == []


@pytest.mark.parametrize("words", ["runs list", "runs show", "runs clean"])
@pytest.mark.parametrize("kind", faults.KINDS)
def test_what_is_kept_is_looked_at(stage: Callable[[str], Stage], kind: str, words: str) -> None:
    ready, number, met = stage("a run that goes on"), 0, True
    while met:
        ready.reset()
        number += 1
        (key,) = (path.name for path in ready.folder.glob("state/impasto/runs/*"))
        trouble = Faults(ready.folder, Fault(kind, "EIO", number, lasting=False))
        with trouble.happen():
            ended = faults.command([*words.split(), *([key] * words.endswith("show"))])
        met = trouble.met
        assert ended.code in faults.ENDINGS
        assert "internal error" not in ended.said
        assert ready.kept() >= 0 or words.endswith("clean")


@pytest.mark.parametrize("kind", ["open", "read", "write", "mkdir"])
@pytest.mark.parametrize("code", faults.CODES)
def test_features_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str
) -> None:
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path / "cache")
    met, number = True, 0
    while met:
        number += 1
        trouble = Faults(tmp_path, Fault(kind, code, number, lasting=True))
        with trouble.happen():
            try:
                shelf = Shelf(on_disk=True)
                for one in [shelf.put(torch.arange(7.0)) for _ in range(3)]:
                    assert shelf.get(one).tolist() == list(range(7))
                failed = False
            except RunError as error:
                assert "\n" not in str(error)
                failed = True
        met = trouble.met
        assert failed == met
    assert number > 1


@pytest.mark.parametrize("out", ["out.png", "out.jpg", "out.webp", "out.tif", "deep.png", "deep.tif"])
def test_a_disk_that_the_system_says_is_full(stage: Callable[[str], Stage], out: str) -> None:
    """Writes of C libraries fail too, at every size from nothing to what is needed."""
    ready = stage(out)
    whole = len(ready.after[out])
    refused = 0
    for size in (0, 1, 100, 1000, whole // 2, whole - 1, whole):
        ready.reset()
        assert ready.disturbed(faults.bounded(size)) == "", size
        assert ready.parts == []
        refused += ready.last.code != 0
    assert refused == 6


def test_no_descriptor_left(stage: Callable[[str], Stage]) -> None:
    ready, refused = stage("a run"), 0
    for spare in range(12):
        ready.reset()
        assert ready.disturbed(faults.few_files(spare)) == "", spare
        assert ready.parts == []
        refused += ready.last.code != 0
    assert 0 < refused < 12
