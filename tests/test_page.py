"""A study's page in a real browser. Where there is none they are left out, and the runner names them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from browsers import CHROMIUM, FLAGS
from impasto import pages, sheets
from impasto.recipe import Recipe
from impasto.results import Entry, Study, Taken
from impasto.sweep import Cell

STYLE_ERRORS = {"one": 0.5, "two": 0.02, "three": 10.0}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def file(tmp_path: Path, picture_file: Callable[..., Path]) -> Path:
    """Write the page of a small study: three runs, each with pictures of iterations 0, 10 and 20."""
    entries = []
    for column, error in STYLE_ERRORS.items():
        taken = [
            Taken(
                iteration,
                picture_file(f"{column}-{iteration}.png", 48, 36, seed=iteration),
                {"content_error": 1.0, "style_wasserstein": error} if iteration == 20 else {},
                iteration + 1,
                iteration / 10,
            )
            for iteration in (0, 10, 20)
        ]
        log = [
            {"iteration": k, "evaluations": k + 1, "total": 2.0 - k / 20, "content": 1.0, "style": 1.0}
            for k in range(21)
        ]
        cell = Cell("a row", column, Recipe(size=48), taken[0].picture, (taken[0].picture,))
        command = f"impasto transfer photo.jpg 'a {column}.jpg'"
        entries.append(Entry(cell, tuple(taken), log, command, column))
    study = Study(
        "study", "A study", "What it shows.", "What to look for.", "impasto study study", "48 px"
    )
    return pages.write(study, entries, sheets.draw(study, entries), tmp_path / "index.html")


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """Open the page; whatever it asks for or complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.on("console", lambda message: asked.append(message.text))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert [url for url in asked if not url.startswith("data:image/jpeg")] == [file.as_uri()]


def shown(page: Page) -> list[str]:
    return [image.get_attribute("alt") or "" for image in page.locator("img:visible").all()]


def names(page: Page) -> list[str]:
    return page.locator("tbody th span").all_inner_texts()


def test_the_slider_turns_the_pictures_and_their_numbers(page: Page) -> None:
    assert shown(page) == [f"{name}, iteration 20" for name in STYLE_ERRORS]
    assert page.locator(".said").first.inner_text() == "content 1.00 · style 0.500"
    slider = page.get_by_label("Iteration")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert shown(page) == [f"{name}, iteration 10" for name in STYLE_ERRORS]
    assert page.locator("output").inner_text() == slider.get_attribute("aria-valuetext") == "10"
    assert page.locator(".said").first.inner_text() == "total loss 1.50"
    page.keyboard.press("Home")
    assert shown(page) == [f"{name}, iteration 0" for name in STYLE_ERRORS]


def test_the_table_sorts_by_numbers_and_by_names(page: Page) -> None:
    assert names(page) == [f"a row, {name}" for name in STYLE_ERRORS]
    head = page.get_by_role("columnheader", name="style wasserstein")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page) == [f"a row, {name}" for name in ("two", "one", "three")]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page) == [f"a row, {name}" for name in ("three", "one", "two")]
    page.get_by_role("columnheader", name="run").get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert names(page) == [f"a row, {name}" for name in ("one", "three", "two")]


def test_a_button_copies_the_command_of_its_picture(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("figure button.copy").nth(1).click()
    page.wait_for_function("document.querySelectorAll('figure button.copy')[1].textContent == 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == "impasto transfer photo.jpg 'a two.jpg'"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_legible_by_day_and_by_night(page: Page, tmp_path: Path, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.screenshot(path=tmp_path / "shot.png", full_page=True)
    with Image.open(tmp_path / "shot.png") as shot:
        grey = shot.convert("L")
        paper = grey.getpixel((2, 2))
        low, high = grey.getextrema()
        colors = len(shot.convert("RGB").resize((200, 200)).getcolors(40_000) or [])
    assert (paper > 200) == (scheme == "light")  # type: ignore[operator]
    assert low < 60  # type: ignore[operator]
    assert high > 200  # type: ignore[operator]
    assert colors > 1000  # there are pictures


def test_the_page_fits_a_telephone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_pages_own_policy_forbids_requests(browser: Browser, file: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(file.as_uri())
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        fetched = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')"
        assert page.evaluate(fetched) == "refused"
        assert not asked
