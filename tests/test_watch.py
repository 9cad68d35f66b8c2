"""Watchers see every event, and keep exactly what the events say."""

import csv
import io
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from impasto import images, runs, watch
from impasto.errors import InputError
from impasto.events import Event, Finished, Losses, Started, Step
from impasto.recipe import Recipe
from impasto.weights import Weights

pytestmark = pytest.mark.usefixtures("one_thread")

LOSSES = Losses(0.5, 1.0, 0.25, 0.0, {"block4_conv2": 1.0}, {"block1_conv1": 0.25})


def started(iterations: int = 40, *notes: str) -> Started:
    return Started(32, 26, "cpu", "float32", iterations, notes, ("32x26 px, whole",))


def step(iteration: int) -> Step:
    picture = torch.full((3, 16, 16), iteration / 100)
    return Step(iteration, 2 * iteration + 1, LOSSES, picture, picture, dict)


@pytest.fixture
def carried_out(tiny_network: Weights, picture_file: Callable[..., Path]) -> Callable[..., list[Event]]:
    """Return a function that carries out a small run before watchers, and gives its events."""
    assert tiny_network.name == "tiny"
    photo, painting = picture_file("photo.png", 40, 32, seed=1), picture_file("s.png", 36, 36, seed=2)

    def carry_out(watchers: Sequence[watch.Watcher] = (), **options: object) -> list[Event]:
        events: list[Event] = []
        recipe = Recipe(**{"size": 32, "iterations": 4, **options})  # type: ignore[arg-type]
        files = runs.Files(photo, (painting,), photo.with_name("out.png"))
        runs.carry_out(recipe, files, [*watchers, events.append])
        return events

    return carry_out


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_log_holds_the_losses_of_every_step_exactly(
    tmp_path: Path, carried_out: Callable[..., list[Event]], optimizer: str
) -> None:
    with watch.loss_log(tmp_path / "log.csv") as log:
        events = carried_out([log], optimizer=optimizer, tv=0.5)
    steps = [event for event in events if isinstance(event, Step)]
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == [0, 1, 2, 3, 4]
    for row, event in zip(rows, steps, strict=True):
        found = event.losses
        expected = {"iteration": event.iteration, "evaluations": event.evaluations, "level": 1}
        expected |= {name: getattr(found, name) for name in ("total", "content", "style", "tv")}
        expected |= {f"content {name}": loss for name, loss in found.content_layers.items()}
        expected |= {f"style {name}": loss for name, loss in found.style_layers.items()}
        assert {name: float(value) for name, value in row.items()} == expected


def test_the_log_is_readable_as_the_run_goes(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with watch.loss_log(path) as log:
        log(started())
        for iteration in range(3):
            log(step(iteration))
            assert len(path.read_text().splitlines()) == iteration + 2


def test_an_old_log_is_left_alone_until_the_run_has_started(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("old\n")
    with watch.loss_log(path) as log:
        assert path.read_text() == "old\n"
        log(started())
        assert path.read_text() == ""


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with watch.loss_log(tmp_path / "nosuch" / "log.csv") as log, pytest.raises(InputError, match="log"):
        log(started())


@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_snapshots_are_the_steps_pictures_beside_the_result(
    tmp_path: Path, carried_out: Callable[..., list[Event]], every: int, suffix: str
) -> None:
    out = tmp_path / f"snap{suffix}"
    events = carried_out([watch.snapshots(out, every)])
    steps = [event for event in events if isinstance(event, Step)]
    expected = {f"snap.{n:04d}{suffix}": steps[n].picture for n in range(every, 5, every)}
    assert {path.name for path in tmp_path.glob("snap.*")} == expected.keys()
    for name, picture in expected.items():
        saved = images.to_8_bit(images.read(tmp_path / name))
        assert torch.equal(saved, images.to_8_bit(picture))


def test_snapshots_are_finished_like_the_result(
    tmp_path: Path, carried_out: Callable[..., list[Event]]
) -> None:
    out = tmp_path / "snap.png"
    fields = {"size": 40, "levels": (20,), "color": "content", "denoise": 0.05, "iterations": 6}
    started, *steps, finished = carried_out([watch.snapshots(out, 1)], **fields)
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert min(step.picture.shape[1] for step in steps if isinstance(step, Step)) == 16
    for step in steps:
        assert isinstance(step, Step)
        if step.iteration:
            saved = images.to_8_bit(images.read(watch.snapshot_name(out, step.iteration)))
            assert torch.equal(saved, images.to_8_bit(started.finish(step.picture)))
    assert saved.shape == (32, 40, 3)
    assert torch.equal(saved, images.to_8_bit(finished.picture))


def test_names_of_snapshots_to_come_are_recognised(tmp_path: Path) -> None:
    out = tmp_path / "o[1].x.png"
    names = ["o[1].x.0002.png", "o[1].x.0010.png", "o[1].x.12346.png"]
    others = ["o[1].x.png", "o[1].x.0003.png", "o[1].x.002.png", "o[1].x.0002.jpg", "o1.x.0002.png"]
    for name in (*names, *others):
        (tmp_path / name).touch()
    found = watch.existing_snapshots(out, 2)
    assert sorted(path.name for path in found) == sorted(names)
    for iteration in (2, 10, 12346):
        assert watch.snapshot_name(out, iteration) in found


@pytest.mark.parametrize(
    ("count", "iterations", "shown"),
    [(2, 4, [0]), (3, 4, [0, 2]), (5, 4, [0, 1, 2, 3]), (50, 4, [0, 1, 2, 3]), (4, 7, [0, 2, 5])],
)
def test_a_film_is_evenly_spaced_and_ends_with_the_result(
    tmp_path: Path,
    carried_out: Callable[..., list[Event]],
    count: int,
    iterations: int,
    shown: list[int],
) -> None:
    out = tmp_path / "film.png"
    folder = watch.timelapse_folder(out)
    folder.mkdir()
    for name in ("0000.png", "0090.png", "notes.txt"):
        (folder / name).write_bytes(b"old")
    started, *steps, finished = carried_out([watch.timelapse(out, count)], iterations=iterations)
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    frames = [step.picture for step in steps if isinstance(step, Step) and step.iteration in shown]
    frames = [*map(started.finish, frames), finished.picture]
    assert [path.name for path in watch.existing_frames(out)] == [
        f"{n:04d}.png" for n in range(len(frames))
    ]
    for path, picture in zip(watch.existing_frames(out), frames, strict=True):
        assert torch.equal(images.to_8_bit(images.read(path)), images.to_8_bit(picture))
    assert (folder / "notes.txt").read_bytes() == b"old"


@pytest.mark.parametrize("iterations", [0, 1, 3, 40, 1000])
def test_without_a_terminal_progress_is_about_ten_plain_lines(iterations: int) -> None:
    text = io.StringIO()
    with watch.progress(Console(file=text)) as watcher:
        watcher(started(iterations, "the weights are unverified"))
        for iteration in range(iterations + 1):
            watcher(step(iteration))
    note, opening, level, *lines = text.getvalue().splitlines()
    assert note == "note: the weights are unverified"
    assert opening == "32x26 px, float32 on cpu"
    assert level == "level 1: 32x26 px, whole"
    assert 1 <= len(lines) <= 12
    assert "\x1b" not in text.getvalue()
    assert lines[0].startswith(f"iteration 0 of {iterations}  1 evaluations  total 0.5  content 1")
    assert lines[-1].startswith(f"iteration {iterations} of {iterations}  {2 * iterations + 1} eval")


def test_on_a_terminal_progress_shows_the_terms_and_leaves_no_bar() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    with watch.progress(console) as watcher:
        watcher(started(40))
        for iteration in range(41):
            watcher(step(iteration))
    shown = text.getvalue()
    assert "iteration 40 of 40" in shown
    assert "total 0.5  content 1  style 0.25" in shown
    assert shown.endswith("\x1b[2K"), "the bar is still there"


def test_timings_say_how_long_every_stage_took(carried_out: Callable[..., list[Event]]) -> None:
    text = io.StringIO()
    began = time.monotonic() - 5
    with watch.timings(Console(file=text, width=160), began) as watcher:
        carried_out([watcher])
    took = time.monotonic() - began
    stages = [re.fullmatch(r" *([0-9.]+) s  (.*)", line) for line in text.getvalue().splitlines()]
    assert [stage and stage[2] for stage in stages] == [
        "program loaded",
        "pictures read, plan made, network loaded",
        "targets, and the losses of the start",
        "4 iterations, 5 evaluations",
        "picture written and measured",
    ]
    seconds = [float(stage[1]) for stage in stages if stage]
    assert seconds[0] >= 5
    assert sum(seconds) == pytest.approx(took, abs=0.1)


def test_timings_of_a_run_that_goes_on_or_is_not_a_batchs_first_say_what_was_done() -> None:
    text = io.StringIO()
    with watch.timings(Console(file=text, width=160)) as watcher:
        watcher(replace(started(), done=30))
        watcher(step(31))
        watcher(step(32))
        watcher(Finished("done", 32, 65, torch.zeros(3, 16, 16), lambda _: LOSSES))
    assert re.findall(r"s  (.*)", text.getvalue()) == [
        "pictures read, plan made, network loaded",
        "targets, and iteration 31",
        "up to 32 iterations, 65 evaluations",
        "picture written and measured",
    ]


def test_total_variation_is_shown_where_it_counts() -> None:
    assert "tv" not in watch.summary(LOSSES)
    assert watch.summary(Losses(1, 0, 0, 2, {}, {})).endswith("tv 2")
