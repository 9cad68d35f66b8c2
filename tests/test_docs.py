"""The documents tell the truth: their code runs, their links lead somewhere, no module is missing."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from impasto.__main__ import main
from impasto.catalog import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the `impasto` command lines of the README."""
    lines = (line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines())
    return [line for line in lines if line.startswith("impasto ")]


@pytest.fixture
def studio(picture_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a folder that has the pictures of the README's examples, and is the current one."""
    for seed, name in enumerate(("photo.jpg", "painting.jpg", "another.jpg", "painted.png")):
        picture_file(name, seed=seed)
    half = Image.new("L", (40, 32))
    half.paste(255, (0, 0, 20, 32))
    for name in ("regions.png", "face.png", "map.png"):
        half.save(tmp_path / name)
    (tmp_path / "photos").mkdir()
    (tmp_path / "painted").mkdir()
    picture_file("photos/one.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("tiny_network")
def test_every_python_example_of_the_readme_runs(studio: Path) -> None:
    assert blocks("python")
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert (studio / "painted.png").exists()


@pytest.mark.usefixtures("tiny_network", "studio")
@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_readme_runs(line: str) -> None:
    words = shlex.split(line)[1:]
    # A picture of 512 px is the user's affair; that the words are understood is the test's.
    made = words[0] in ("transfer", "texture", "reconstruct", "sweep")
    small = ["--iterations", "1"] if made else []

    if "painting.safetensors" in words:
        assert main(("style", "learn", "painting.jpg")) == 0
    if words[0] in ("show", "replay"):
        made = ("transfer", "photo.jpg", "painting.jpg", "--size", "32", "--iterations", "1")
        assert main((*made, "-o", "painted.png")) == 0
    assert main(words + small) == 0


def test_the_readme_shows_every_command() -> None:
    for name in COMMANDS:
        assert f"impasto {name}" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_architecture_lists_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for module in (ROOT / "src" / "impasto").glob("[!_]*.py"):
        assert f"| `{module.stem}` |" in text, module.stem
