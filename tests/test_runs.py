"""A run from files to files: nothing is lost, whatever stops it."""

import contextlib
import dataclasses
import io
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import pytest
import torch
from PIL import ExifTags, Image
from rich.console import Console
from torch import Tensor

from impasto import (
    checkpoint,
    cost,
    images,
    jobs,
    memory,
    prepare,
    replays,
    resume,
    runs,
    schedule,
    watch,
)
from impasto.errors import BusyError, InputError, Interrupted, RunError
from impasto.events import Event, Finished, Losses, Noted, Started, Step
from impasto.objective import Evaluation, Objective
from impasto.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny_network", "one_thread")

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
RECIPE = Recipe(size=32, iterations=4, precision="float32")


@pytest.fixture
def files(picture_file: Callable[..., Path]) -> runs.Files:
    photo, painting = picture_file("photo.png", 40, 32, seed=1), picture_file("s.png", 36, 36, seed=2)
    return runs.Files(photo, (painting,), photo.with_name("out.png"))


def names(files: runs.Files) -> set[str]:
    return {path.name for path in files.out.parent.iterdir()}


def test_every_watcher_sees_every_event_in_order(files: runs.Files) -> None:
    first: list[Event] = []
    second: list[Event] = []
    result = runs.carry_out(RECIPE, files, [first.append, second.append])
    assert first == second
    started, *steps, finished = first
    assert isinstance(started, Started)
    assert [step.iteration for step in steps if isinstance(step, Step)] == [0, 1, 2, 3, 4]
    assert isinstance(finished, Finished)
    assert (result.iterations, result.evaluations) == (finished.iterations, finished.evaluations)


def test_the_result_tells_the_losses_of_the_saved_picture(files: runs.Files) -> None:
    events: list[Event] = []
    result = runs.carry_out(RECIPE, files, [events.append])
    finished = events[-1]
    assert isinstance(finished, Finished)
    saved = images.read(result.path)
    assert torch.equal(images.to_8_bit(saved), images.to_8_bit(finished.picture))
    assert result.losses == finished.evaluate(saved) != finished.evaluate(finished.picture)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("at", [2, 3, 5])
def test_a_signal_during_the_descent_leaves_the_best_picture(
    files: runs.Files,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    optimizer: str,
    at: int,
) -> None:
    calls, seen = 0, []
    real = Objective.__call__

    def evaluate(self: Objective, picture: Tensor) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), number)
        return real(self, picture)

    monkeypatch.setattr(Objective, "__call__", evaluate)
    before = {each: signal.getsignal(each) for each in SIGNALS}
    recipe = Recipe(size=32, iterations=1000, optimizer=optimizer)  # type: ignore[arg-type]
    with pytest.raises(Interrupted, match=r"wrote the best picture to .*out\.png") as stopped:
        runs.carry_out(recipe, files, [seen.append])
    assert stopped.value.exit_code == SIGNALS[number]
    last = seen[-1]
    assert isinstance(last, Step)
    assert f"at iteration {last.iteration};" in str(stopped.value)
    assert torch.equal(images.to_8_bit(images.read(files.out)), images.to_8_bit(last.best))
    assert names(files) == {"photo.png", "s.png", "out.png"}
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


LONGER = {"size": 48, "levels": (24, 48), "iterations": 12, "precision": "float32"}


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("at", [0, 4, 6, 7, 11])
def test_the_same_call_goes_on_where_a_signal_stopped_it(
    files: runs.Files, own_state: Path, optimizer: str, at: int
) -> None:
    recipe = Recipe(**LONGER, optimizer=optimizer, average=0.5)  # type: ignore[arg-type]
    log = files.out.with_name("log.csv")

    def logged(*watchers: Callable[[Event], None]) -> None:
        with watch.loss_log(log) as keep_log:
            runs.carry_out(recipe, files, [keep_log, *watchers])

    logged()
    expected = files.out.read_bytes(), log.read_bytes()

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"the same command goes on from iteration {at}$"):
        logged(stop)
    seen: list[Event] = []
    logged(seen.append)
    started, first, *_ = seen
    assert isinstance(started, Started)
    assert started.notes == (f"resumed at iteration {at}",)
    assert started.done == at
    assert isinstance(first, Step)
    assert first.iteration == at + 1
    assert (files.out.read_bytes(), log.read_bytes()) == expected
    assert not [path for path in own_state.rglob("*") if path.is_file()]


def test_what_was_kept_is_left_alone_by_another_recipe_and_by_a_fresh_start(files: runs.Files) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)

    def notes(recipe: Recipe, **options: bool) -> tuple[str, ...]:
        seen: list[Event] = []
        runs.carry_out(recipe, files, [seen.append], **options)  # type: ignore[arg-type]
        assert isinstance(seen[0], Started)
        return seen[0].notes

    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stop])
    assert notes(dataclasses.replace(RECIPE, seed=1)) == ()
    assert notes(RECIPE, fresh=True) == notes(RECIPE) == ()
    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stop])
    assert notes(RECIPE) == ("resumed at iteration 2",)


def stopped_at(iteration: int) -> Callable[[Event], None]:
    """Return a watcher that stops a run."""

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    return stop


def test_no_clobber_spares_all_but_what_the_run_itself_has_left(files: runs.Files) -> None:
    files = dataclasses.replace(files, no_clobber=True, save_every=1)
    with pytest.raises(Interrupted, match="the same command goes on from iteration 2"):
        runs.carry_out(RECIPE, files, [stopped_at(2)])
    with pytest.raises(InputError, match=r"out\.png exists and --no-clobber"):
        runs.carry_out(dataclasses.replace(RECIPE, seed=3), files)
    first: list[Event] = []
    runs.carry_out(RECIPE, files, [first.append])
    assert isinstance(first[0], Started)
    assert first[0].done == 2
    with pytest.raises(InputError, match=r"out\.png exists and --no-clobber"):
        runs.carry_out(RECIPE, files)
    files.out.unlink()
    with pytest.raises(InputError, match=r"out\.0001\.png exists and --no-clobber"):
        runs.carry_out(RECIPE, files)


def test_no_clobber_is_not_in_the_way_of_what_the_run_writes_itself(files: runs.Files) -> None:
    files = dataclasses.replace(files, no_clobber=True, save_every=1, timelapse=3)
    runs.carry_out(RECIPE, files)
    assert jobs.story_of(files.out).losses


def test_no_clobber_spares_what_has_taken_the_place_of_an_interrupted_picture(files: runs.Files) -> None:
    files = dataclasses.replace(files, no_clobber=True)
    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stopped_at(2)])
    files.out.write_bytes(b"dear to somebody")
    with pytest.raises(InputError, match=r"out\.png exists and --no-clobber"):
        runs.carry_out(RECIPE, files)
    assert files.out.read_bytes() == b"dear to somebody"


def test_a_rehearsal_says_that_a_run_goes_on_by_its_own_plan(files: runs.Files) -> None:
    assert prepare.rehearse(RECIPE, files).kept is None
    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stopped_at(2)])
    (kept,) = resume.listing()
    found = prepare.rehearse(RECIPE, files)
    assert found.kept == 2
    assert found.plan == resume.plan_of(kept.about)
    assert prepare.rehearse(RECIPE, files, fresh=True).kept is None


def test_a_run_goes_on_in_smaller_tiles_where_less_memory_is_free(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, size=640, levels=(1,), iterations=2)
    with pytest.raises(Interrupted):
        runs.carry_out(recipe, files, [stopped_at(1)])
    (kept,) = resume.listing()
    before = resume.plan_of(kept.about)
    assert before
    assert prepare.rehearse(recipe, files).plan == before
    monkeypatch.setattr(memory, "available", lambda _: cost.BASE + (450 << 20))
    first: list[Event] = []
    runs.carry_out(recipe, files, [first.append])
    assert isinstance(first[0], Started)
    assert first[0].done == 1
    assert "tiles up to" in first[0].levels[0]
    assert any("less memory, so it is cut smaller" in note for note in first[0].notes)


def test_a_run_that_cannot_go_on_for_want_of_memory_says_so(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stopped_at(2)])
    monkeypatch.setattr(memory, "available", lambda _: 1 << 20)
    with pytest.raises(InputError, match="free some memory or allow more, or begin anew with --fresh"):
        runs.carry_out(RECIPE, files)
    assert resume.listing(), "it may go on later"


def kept_at(files: runs.Files, recipe: Recipe, iteration: int) -> str:
    """Stop a run; return the name under which it is kept."""
    with pytest.raises(Interrupted):
        runs.carry_out(recipe, files, [stopped_at(iteration)])
    (kept,) = resume.listing()
    return kept.key


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_longer_run_branches_off_with_all_of_the_state(files: runs.Files, optimizer: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    name = kept_at(files, recipe, 2)
    longer = dataclasses.replace(recipe, iterations=7)
    first: list[Event] = []
    runs.carry_out(longer, files, [first.append], branch=name)
    assert isinstance(first[0], Started)
    assert (first[0].done, first[0].iterations) == (2, 7)
    assert f"goes on from iteration 2 of the run {name}" in first[0].notes
    branched = images.read(files.out)
    runs.carry_out(longer, files)
    assert images.read(files.out).equal(branched), "on one level it is the longer run itself"
    assert [run.key for run in resume.listing()] == [name], "that it branched off is still there"


def test_another_recipe_branches_off_from_the_picture(files: runs.Files) -> None:
    name = kept_at(files, RECIPE, 3)
    kept = resume.find(name)
    assert kept
    first: list[Event] = []
    other = dataclasses.replace(RECIPE, beta=2.0, size=48)
    runs.carry_out(other, files, [first.append], branch=name)
    started, start, *_ = first
    assert isinstance(started, Started)
    assert isinstance(start, Step)
    assert started.notes == (f"begins with the picture of iteration 3 of the run {name}",)
    assert start.picture.shape == (3, 38, 48)
    small = schedule.resize(start.picture, (26, 32))
    assert (small - kept.state["best"]).abs().mean() < 0.02
    with pytest.raises(InputError, match="went on from another run"):
        replays.replay(files.out, dataclasses.replace(files, out=files.out.with_stem("again")))


def test_a_branch_that_was_stopped_goes_on_itself(files: runs.Files) -> None:
    name = kept_at(files, RECIPE, 2)
    longer = dataclasses.replace(RECIPE, iterations=7)
    runs.carry_out(longer, files, branch=name)
    whole = files.out.read_bytes()
    with pytest.raises(Interrupted):
        runs.carry_out(longer, files, [stopped_at(5)], branch=name)
    first: list[Event] = []
    runs.carry_out(longer, files, [first.append], branch=name)
    assert isinstance(first[0], Started)
    assert first[0].done == 5
    assert files.out.read_bytes() == whole


def test_a_branch_of_nothing_or_of_what_has_gone_further_is_refused(files: runs.Files) -> None:
    with pytest.raises(InputError, match="there is no run 'one'; see: impasto runs list"):
        runs.carry_out(RECIPE, files, branch="one")
    with pytest.raises(InputError, match="there is no run"):
        runs.carry_out(RECIPE, files, branch="../runs")
    name = kept_at(files, RECIPE, 3)
    with pytest.raises(InputError, match="is at iteration 3 already"):
        runs.carry_out(dataclasses.replace(RECIPE, iterations=2), files, branch=name)


def test_a_stopped_branch_goes_on_without_what_it_branched_off(files: runs.Files) -> None:
    name = kept_at(files, RECIPE, 2)
    other = dataclasses.replace(RECIPE, beta=2.0)
    branched = dataclasses.replace(files, out=files.out.with_stem("branched"))
    runs.carry_out(other, branched, branch=name)
    whole = branched.out.read_bytes()
    with pytest.raises(Interrupted):
        runs.carry_out(other, branched, [stopped_at(3)], branch=name)
    assert resume.clean([name]) == [name]
    first: list[Event] = []
    runs.carry_out(other, branched, [first.append], branch=name)
    assert isinstance(first[0], Started)
    assert first[0].done == 3
    assert branched.out.read_bytes() == whole


def test_another_memory_or_snapshots_are_no_other_run(files: runs.Files) -> None:
    kept_at(files, RECIPE, 2)
    first: list[Event] = []
    recipe = dataclasses.replace(RECIPE, memory="3GiB")
    runs.carry_out(recipe, dataclasses.replace(files, save_every=1), [first.append])
    assert isinstance(first[0], Started)
    assert first[0].done == 2


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_saved_picture_is_measured_leaves_picture_and_state(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    runs.carry_out(RECIPE, files)
    whole = files.out.read_bytes()
    files.out.unlink()
    real = Objective.losses

    def losses(self: Objective, picture: Tensor) -> Losses:
        os.kill(os.getpid(), number)
        return real(self, picture)

    files = dataclasses.replace(files, no_clobber=True)
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "losses", losses)
        with pytest.raises(Interrupted, match="without its losses; the same command goes on") as stopped:
            runs.carry_out(RECIPE, files, every=0)
    assert stopped.value.exit_code == SIGNALS[number]
    assert jobs.story_of(files.out).losses is None
    assert not replays.is_made(RECIPE, files)
    runs.carry_out(RECIPE, files)
    assert files.out.read_bytes() == whole
    assert resume.listing() == []


def test_no_clobber_spares_what_appears_while_the_run_goes_on(files: runs.Files) -> None:
    files = dataclasses.replace(files, no_clobber=True)

    def write(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 2:
            files.out.write_bytes(b"dear to somebody")

    with pytest.raises(
        InputError, match=r"out\.png exists and --no-clobber.*; the same command goes on"
    ):
        runs.carry_out(RECIPE, files, [write], every=0)
    assert files.out.read_bytes() == b"dear to somebody"
    files.out.unlink()
    runs.carry_out(RECIPE, files)
    assert jobs.story_of(files.out).losses


def test_all_conditions_of_a_run_are_said(files: runs.Files, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_at(files, RECIPE, 2)
    real = resume.conditions

    def conditions(device: torch.device) -> dict[str, str]:
        return {**real(device), "threads": "64"}

    monkeypatch.setattr(resume, "conditions", conditions)
    runs.carry_out(RECIPE, files)
    made = jobs.story_of(files.out)
    assert made.conditions["threads"] == "1, then 64"
    found = replays.replay(files.out, dataclasses.replace(files, out=files.out.with_stem("again")))
    assert found.conditions == "threads 1, then 64, now 64"


def test_another_film_begins_anew_and_leaves_no_old_frames(files: runs.Files) -> None:
    kept_at(dataclasses.replace(files, timelapse=4), RECIPE, 3)
    assert len(watch.existing_frames(files.out)) == 3
    first: list[Event] = []
    runs.carry_out(RECIPE, dataclasses.replace(files, timelapse=2), [first.append])
    assert isinstance(first[0], Started)
    assert first[0].done is None
    assert [path.name for path in watch.existing_frames(files.out)] == ["0000.png", "0001.png"]


def test_a_film_goes_on_with_its_run(files: runs.Files) -> None:
    files = dataclasses.replace(files, timelapse=3, no_clobber=True)
    folder = watch.timelapse_folder(files.out)
    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stopped_at(1)])
    (first,) = watch.existing_frames(files.out)
    before = first.stat().st_mtime_ns
    runs.carry_out(RECIPE, files)
    assert sorted(path.name for path in folder.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    assert first.stat().st_mtime_ns == before
    assert images.read(folder / "0002.png").equal(images.read(files.out))
    files.out.unlink()
    with pytest.raises(InputError, match=r"0000\.png exists and --no-clobber"):
        runs.carry_out(RECIPE, files)
    elsewhere = dataclasses.replace(files, out=files.out.with_stem("other"))
    watch.timelapse_folder(elsewhere.out).write_bytes(b"")
    with pytest.raises(InputError, match="that is a file; move it away"):
        runs.carry_out(RECIPE, elsewhere)


def test_a_log_that_begins_on_a_resumed_run_has_its_head(files: runs.Files) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stop])
    log = files.out.with_name("log.csv")
    with watch.loss_log(log) as keep_log:
        runs.carry_out(RECIPE, files, [keep_log])
    head, *rows = log.read_text(encoding="utf-8").splitlines()
    assert head.startswith("iteration,")
    assert [row.partition(",")[0] for row in rows] == ["3", "4"]


def test_a_state_folder_that_cannot_be_written_fails_no_run(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(files.content))
    assert runs.carry_out(RECIPE, files, every=0).path == files.out


def test_a_state_that_cannot_be_written_is_said_once_while_the_run_goes_on(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(files.content))
    monkeypatch.setattr("impasto.resume._OVERHEAD", 0)
    seen: list[Event] = []
    said = io.StringIO()
    with watch.progress(Console(file=said)) as progress:
        runs.carry_out(RECIPE, files, [seen.append, progress], every=0)
    (noted,) = (event for event in seen if isinstance(event, Noted))
    assert noted.note.startswith("cannot keep the run's state in ")
    assert said.getvalue().count(f"note: {noted.note}\n") == 1


@pytest.mark.parametrize("stopped", [False, True])
def test_a_picture_that_cannot_be_written_loses_no_state(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    def full(*_: object, **__: object) -> None:
        raise InputError("cannot write out.png: No space left on device")

    def stop(event: Event) -> None:
        if stopped and isinstance(event, Step) and event.iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("impasto.resume._OVERHEAD", 0)
    with monkeypatch.context() as patch:
        patch.setattr(images, "write", full)
        with pytest.raises((InputError, Interrupted)) as ended:
            runs.carry_out(RECIPE, files, [stop], every=0)
    at = 2 if stopped else 4
    said = f"cannot write out.png: No space left on device; the same command goes on from iteration {at}"
    assert str(ended.value) == ("interrupted at iteration 2; " if stopped else "") + said
    assert ended.value.exit_code == (143 if stopped else 2)
    seen: list[Event] = []
    runs.carry_out(RECIPE, files, [seen.append])
    assert isinstance(seen[0], Started)
    assert seen[0].notes == (f"resumed at iteration {at}",)


def test_what_was_loaded_to_go_on_is_let_go_of(files: runs.Files) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files, [stop])
    real, held = checkpoint.load, []

    def load(folder: Path, mend: bool = True) -> checkpoint.Checkpoint | None:
        found = real(folder, mend)
        assert found is not None
        held.append(weakref.ref(found.state["optimizer"]["u"]))
        return found

    def look(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 4:
            assert held[0]() is None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", load)
        runs.carry_out(RECIPE, files, [look])
    assert held


def test_an_iteration_that_takes_too_long_is_dropped(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.resume._PATIENCE", 0.05)
    real, calls = Objective.__call__, 0

    def evaluate(self: Objective, picture: Tensor) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
            pytest.fail("waited for the end of the iteration")
        return real(self, picture)

    monkeypatch.setattr(Objective, "__call__", evaluate)
    with pytest.raises(Interrupted, match=r"wrote the best picture to .*out\.png$"):
        runs.carry_out(RECIPE, files)
    assert images.read(files.out).shape == (3, 26, 32)


def test_a_second_ctrl_c_leaves_at_once_with_the_last_state_whole(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Objective.__call__, 0

    def evaluate(self: Objective, picture: Tensor) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("waited for the end of the iteration")
        return real(self, picture)

    monkeypatch.setattr("impasto.resume._OVERHEAD", 0)
    files.out.write_bytes(b"an older picture")
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", evaluate)
        with pytest.raises(KeyboardInterrupt):
            runs.carry_out(RECIPE, files, every=0)
    assert files.out.read_bytes() == b"an older picture"
    seen: list[Event] = []
    runs.carry_out(RECIPE, files, [seen.append])
    assert isinstance(seen[0], Started)
    assert seen[0].done in (1, 2)


def test_two_runs_cannot_write_one_file(files: runs.Files) -> None:
    def second(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 1:
            for recipe, out in ((RECIPE, "other.png"), (dataclasses.replace(RECIPE, seed=1), "out.png")):
                other = dataclasses.replace(files, out=files.out.with_name(out))
                with pytest.raises(BusyError, match="is in use by process"):
                    runs.carry_out(recipe, other)

    runs.carry_out(RECIPE, files, [second])
    assert names(files) == {"photo.png", "s.png", "out.png"}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("old", [None, b"an older picture"])
def test_a_signal_before_the_first_evaluation_writes_nothing(
    files: runs.Files, number: signal.Signals, old: bytes | None
) -> None:
    if old is not None:
        files.out.write_bytes(old)
    before = names(files)

    def stop(event: Event) -> None:
        assert isinstance(event, Started)
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=r"^interrupted$") as stopped:
        runs.carry_out(RECIPE, files, [stop])
    assert stopped.value.exit_code == SIGNALS[number]
    assert names(files) == before
    assert old is None or files.out.read_bytes() == old


@pytest.mark.parametrize("number", SIGNALS)
def test_the_best_picture_is_written_not_the_last(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    good, bad = torch.full((3, 26, 32), 0.2), torch.full((3, 26, 32), 0.8)

    def run(recipe: Recipe, *_: object, **__: object) -> object:
        losses = Losses(1.0, 0.0, 0.0, 0.0, {}, {})
        yield Started(32, 26, "cpu", "float32", 9, (), (), finish=lambda picture: picture)
        yield Step(recipe.iterations, 9, losses, bad, good, dict)
        os.kill(os.getpid(), number)
        yield Step(recipe.iterations + 1, 9, losses, bad, good, dict)
        pytest.fail("the run went on")

    monkeypatch.setattr("impasto.transfer.run", run)
    with pytest.raises(Interrupted):
        runs.carry_out(RECIPE, files)
    assert images.read(files.out).unique().tolist() == pytest.approx([0.2])


def test_runs_outside_the_main_thread_leave_signals_alone(files: runs.Files) -> None:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    results: list[runs.Result] = []
    worker = threading.Thread(target=lambda: results.append(runs.carry_out(RECIPE, files)))
    worker.start()
    worker.join()
    assert results[0].path == files.out
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace", "PIL.Image.Image.save"])
def test_a_full_disk_leaves_the_old_picture(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    files.out.write_bytes(b"an older picture")
    before = names(files)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(InputError, match="No space left"):
        runs.carry_out(RECIPE, files)
    assert names(files) == before
    assert files.out.read_bytes() == b"an older picture"


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_the_loss_of_the_saved_picture_falls(files: runs.Files, optimizer: str, precision: str) -> None:
    events: list[Event] = []
    recipe = Recipe(size=32, iterations=3, optimizer=optimizer, precision=precision)  # type: ignore[arg-type]
    result = runs.carry_out(recipe, files, [events.append])
    first = next(event for event in events if isinstance(event, Step))
    assert result.losses.total < 0.95 * first.losses.total


@pytest.mark.parametrize("init", ["content", "noise", "style", "gray", "start.png"])
def test_every_start_is_the_picture_that_it_names(
    files: runs.Files,
    picture_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    init: str,
) -> None:
    start = picture_file("start.png", 32, 26, seed=9)
    monkeypatch.chdir(start.parent)
    runs.carry_out(Recipe(size=32, iterations=0, init=init), files)
    saved = images.to_8_bit(images.read(files.out))
    assert tuple(saved.shape) == (26, 32, 3)
    if init == "gray":
        assert saved.unique().tolist() == [128]
    elif init == "start.png":
        assert torch.equal(saved, images.to_8_bit(images.read(start)))
    elif init == "noise":
        noise = torch.rand(3, 26, 32, generator=torch.Generator().manual_seed(0))
        assert torch.equal(saved, images.to_8_bit(noise))
    else:
        source = images.read(files.inputs[0 if init == "content" else 1])
        spread = images.to_8_bit(source).double().mean(dim=(0, 1))
        # The same picture at another size or cut: its mean colour stays.
        assert (saved.double().mean(dim=(0, 1)) - spread).abs().max() < 8


def test_an_interruption_on_a_coarse_level_leaves_a_picture_of_the_size_asked_for(
    files: runs.Files,
) -> None:
    recipe = dataclasses.replace(RECIPE, size=64, levels=(32,), iterations=6)
    seen: list[Step] = []

    def stop(event: Event) -> None:
        if isinstance(event, Step):
            seen.append(event)
            if event.iteration == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="interrupted at iteration 2; wrote the best picture"):
        runs.carry_out(recipe, files, [stop])
    assert seen[-1].level == 0
    assert tuple(seen[-1].picture.shape) == (3, 26, 32)
    assert images.read(files.out).shape == (3, 51, 64)


# --- what may fail beside the picture -----------------------------------------------------------


def test_a_watcher_that_fails_is_dropped_and_told_of_at_the_end(files: runs.Files) -> None:
    seen: list[Event] = []

    def full(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 2:
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"wrote .*out\.png, but on the way: .*No space left") as failed:
        runs.carry_out(RECIPE, files, [full, seen.append])
    assert failed.value.exit_code == 70
    assert images.read(files.out).shape == (3, 26, 32)
    assert isinstance(seen[-1], Finished)


def test_a_log_on_a_full_disk_costs_no_picture(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    full = io.TextIOWrapper(io.BufferedWriter(Full()), line_buffering=True)
    monkeypatch.setattr(watch, "_open_log", lambda *_: full)
    with (
        pytest.raises(RunError, match=r"wrote .*out\.png, but on the way: .*No space left"),
        watch.loss_log(files.out.with_name("log.csv")) as logged,
    ):
        runs.carry_out(RECIPE, files, [logged])
    assert images.read(files.out).shape == (3, 26, 32)
    assert full.closed


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_picture_is_written_waits_for_it(
    files: runs.Files, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    real = images.write

    def write(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        real(*arguments)

    monkeypatch.setattr(images, "write", write)
    with pytest.raises(Interrupted, match=r"interrupted at the end; wrote .*out\.png") as stopped:
        runs.carry_out(RECIPE, files)
    assert stopped.value.exit_code == SIGNALS[number]
    assert images.read(files.out).shape == (3, 26, 32)


def test_a_signal_that_the_caller_ignores_stays_ignored(files: runs.Files) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Started):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert runs.carry_out(RECIPE, files, [interrupt]).iterations == 4
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_terminal_that_goes_away_silences_the_progress(files: runs.Files) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    with watch.progress(Console(file=gone)) as watcher:
        assert runs.carry_out(RECIPE, files, [watcher]).iterations == 4
    with contextlib.suppress(BrokenPipeError):  # what was never read is told of once more
        gone.close()


# --- what is refused before the work ------------------------------------------------------------


@pytest.mark.parametrize("target", ["out", "log"])
def test_no_output_may_replace_a_file_that_the_run_uses(files: runs.Files, target: str) -> None:
    used = files.out.with_name("used.png")
    used.write_bytes(b"a recipe or weights")
    spoilt = dataclasses.replace(files, **{target: used}, others=(used,))
    with pytest.raises(InputError, match=r"used\.png is an input of this run"):
        runs.carry_out(RECIPE, spoilt)
    assert used.read_bytes() == b"a recipe or weights"


def test_a_file_under_16_px_is_refused_by_its_name(
    files: runs.Files, picture_file: Callable[..., Path]
) -> None:
    small = picture_file("small.png", 40, 12)
    for field, value in (("content", small), ("styles", (small,))):
        with pytest.raises(InputError, match=r"small\.png is 40x12 px: both sides .* at least 16 px"):
            runs.carry_out(RECIPE, dataclasses.replace(files, **{field: value}))


def test_a_picture_too_large_for_its_format_is_refused_before_the_work(files: runs.Files) -> None:
    for name, side in (("out.webp", 16_383), ("out.jpg", 65_500)):
        images.check_size(files.out.with_name(name), 16, side)
        with pytest.raises(InputError, match=f"at most {side} px a side; write .png"):
            images.check_size(files.out.with_name(name), 16, side + 1)
    images.check_size(files.out, 16, 100_000)


# --- masks --------------------------------------------------------------------------------------


def mask_file(path: Path, *shades: int) -> Path:
    """Write a grey picture of 40x32 with columns of these shades."""
    image = Image.new("L", (40, 32))
    for index, shade in enumerate(shades):
        image.paste(shade, (40 * index // len(shades), 0, 40, 32))
    image.save(path)
    return path


def test_masks_come_from_files(files: runs.Files, tmp_path: Path) -> None:
    hard = mask_file(tmp_path / "hard.png", 0, 255)
    soft = tuple(mask_file(tmp_path / f"{n}.png", *s) for n, s in (("a", (255, 0)), ("b", (0, 255))))
    two = dataclasses.replace(files, styles=files.styles * 2)
    written = []
    for masks in ((hard,), soft):
        runs.carry_out(RECIPE, dataclasses.replace(two, content_mask=masks))
        written.append(images.read(files.out))
    assert torch.equal(*written), "black comes first, as the first grey mask"
    square = tmp_path / "square.png"
    Image.open(hard).resize((36, 36), Image.Resampling.NEAREST).save(square)
    runs.carry_out(RECIPE, dataclasses.replace(files, content_mask=(hard,), style_mask=(square,)))


def test_kept_pixels_are_the_photographs_in_the_file(files: runs.Files, tmp_path: Path) -> None:
    keep = mask_file(tmp_path / "keep.png", 255, 0)
    recipe = dataclasses.replace(RECIPE, size=40)
    runs.carry_out(recipe, dataclasses.replace(files, keep=keep))
    photo, found = images.read(files.inputs[0]), images.read(files.out)
    assert photo.shape == found.shape
    assert torch.equal(found[:, :, :20], photo[:, :, :20])
    assert not torch.equal(found[:, :, 20:], photo[:, :, 20:])


@pytest.mark.parametrize("field", ["content_mask", "style_mask", "keep", "strength_map"])
def test_a_mask_is_an_input_that_no_run_destroys(files: runs.Files, field: str) -> None:
    mask = mask_file(files.out, 0, 255)
    before = mask.read_bytes()
    given = mask if field in ("keep", "strength_map") else (mask,)
    with pytest.raises(InputError):
        runs.carry_out(RECIPE, dataclasses.replace(files, **{field: given}))
    assert mask.read_bytes() == before


def test_a_style_mask_alone_is_refused(files: runs.Files, tmp_path: Path) -> None:
    mask = mask_file(tmp_path / "m.png", 0, 255)
    with pytest.raises(InputError, match="--style-mask needs --content-mask"):
        runs.carry_out(RECIPE, dataclasses.replace(files, style_mask=(mask,)))


def test_what_the_photograph_says_of_itself_is_in_every_picture_of_the_run(
    files: runs.Files, tmp_path: Path
) -> None:
    wide = bytes(imagecodecs.cms_profile("adobergb"))
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A. Painter"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS.GPSLatitudeRef: "N"})
    assert files.content is not None
    with Image.open(files.content) as image:
        image.save(tmp_path / "wide.png", icc_profile=wide, exif=exif)
    asked = dataclasses.replace(
        files,
        content=tmp_path / "wide.png",
        out=tmp_path / "deep.png",
        bit_depth=16,
        save_every=2,
        keep_profile=True,
        keep_metadata=True,
    )
    events: list[Event] = []
    result = runs.carry_out(RECIPE, asked, [events.append])
    finished = events[-1]
    assert isinstance(finished, Finished)
    saved = images.read(asked.out)
    assert result.losses == finished.evaluate(saved)
    torch.testing.assert_close(saved, finished.picture, atol=1e-3, rtol=0)
    for name in ("deep.png", "deep.0002.png"):
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == wide
            assert image.getexif()[ExifTags.Base.Artist] == "A. Painter"
            assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    runs.carry_out(RECIPE, dataclasses.replace(files, content=asked.content))
    with Image.open(files.out) as image:
        assert image.info["icc_profile"] != wide
        assert image.getexif()[ExifTags.Base.Artist] == "A. Painter"
        assert not image.getexif().get_ifd(ExifTags.IFD.GPSInfo)


def test_a_profile_that_cannot_be_written_in_is_refused_before_the_work(files: runs.Files) -> None:
    assert files.content is not None
    grey = bytes(imagecodecs.cms_profile("gray", gamma=2.2))
    Image.new("L", (40, 32), 99).save(files.content, icc_profile=grey)
    with pytest.raises(InputError, match=r"--keep-profile: .* of grey or inks"):
        runs.carry_out(RECIPE, dataclasses.replace(files, keep_profile=True))
    with pytest.raises(InputError, match=r"for --bit-depth 16 write \.png or \.tif"):
        jobs.check(dataclasses.replace(files, out=files.out.with_suffix(".jpg"), bit_depth=16))


@pytest.mark.parametrize("transparency", ["keep", "white"])
def test_what_is_transparent_stays_so(files: runs.Files, tmp_path: Path, transparency: str) -> None:
    assert files.content is not None
    alpha = torch.ones(32, 40, dtype=torch.uint8).mul_(255)
    alpha[:, :20] = 0
    with Image.open(files.content) as image:
        image.putalpha(Image.fromarray(alpha.numpy()))
        image.save(tmp_path / "cut.png")
    asked = dataclasses.replace(files, content=tmp_path / "cut.png", save_every=2)
    recipe = dataclasses.replace(RECIPE, transparency=transparency)  # type: ignore[arg-type]
    events: list[Event] = []
    result = runs.carry_out(recipe, asked, [events.append])
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert result.losses == finished.evaluate(images.read(asked.out))
    for path in (asked.out, watch.snapshot_name(asked.out, 2)):
        with Image.open(path) as image:
            assert image.mode == ("RGBA" if transparency == "keep" else "RGB")
            if transparency == "keep":
                assert image.getpixel((2, 12))[3] == 0  # type: ignore[index]
                assert image.getpixel((29, 12))[3] == 255  # type: ignore[index]


def test_the_full_size_is_the_photographs_own(
    files: runs.Files, picture_file: Callable[..., Path]
) -> None:
    full = dataclasses.replace(RECIPE, size="full")
    for width, height in ((47, 31), (31, 47), (16, 90)):
        photo = picture_file("odd.png", width, height)
        asked = dataclasses.replace(files, content=photo)
        assert prepare.rehearse(full, asked)[0].size == (height, width)
        runs.carry_out(full, asked)
        assert images.read(files.out).shape == (3, height, width)
        named = files.out.with_name("named.png")
        sized = dataclasses.replace(RECIPE, size=max(width, height))
        runs.carry_out(sized, dataclasses.replace(asked, out=named))
        assert named.read_bytes() == files.out.read_bytes()
    texture = dataclasses.replace(files, content=None)
    runs.carry_out(dataclasses.replace(full, init="noise"), texture)
    assert images.read(files.out).shape == (3, 36, 36)
    with pytest.raises(InputError, match="15 px: both sides must be at least 16 px"):
        runs.carry_out(full, dataclasses.replace(files, content=picture_file("small.png", 40, 15)))
    with pytest.raises(InputError, match=r"a\.safetensors is a learned style; give a size"):
        prepare.rehearse(full, dataclasses.replace(texture, styles=(Path("a.safetensors"),)))
