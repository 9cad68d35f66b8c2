"""Where runs are kept: keys, locks, cadence, listing."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from impasto import checkpoint, plan, resume
from impasto.errors import BusyError, InputError
from impasto.events import Losses, Step
from impasto.recipe import Recipe

NOTHING = Losses(1.0, 0.0, 0.0, 0.0, {}, {})


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def step(iteration: int) -> Step:
    picture = torch.zeros(3, 2, 2)
    return Step(iteration, iteration, NOTHING, picture, picture, dict)


def test_a_key_is_of_what_decides_the_picture(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"one")
    other.write_bytes(b"other")

    def key(recipe: Recipe = Recipe(), weights: str = "w", **inputs: tuple[Path, ...]) -> str:  # noqa: B008
        return resume.key(
            recipe, resume.digests(inputs or {"content": (one,), "styles": (other,)}), weights
        )

    before = key()
    assert key() == before
    copy = tmp_path / "copy"
    copy.write_bytes(b"one")
    assert key(content=(copy,), styles=(other,)) == before
    others = {
        key(Recipe(seed=1)),
        key(weights="v"),
        key(content=(other,), styles=(one,)),
        key(content=(one,), styles=(one,)),
        key(content=(one,), styles=(other, other)),
        key(styles=(one, other)),
    }
    assert len(others | {before}) == 7
    with pytest.raises(InputError, match="cannot read"):
        key(content=(tmp_path / "none",))


def test_one_process_holds_a_name() -> None:
    with resume.hold("name", "the run"):
        with (
            pytest.raises(BusyError, match="the run is in use by process"),
            resume.hold("name", "the run"),
        ):
            pass
        with resume.hold("other", "the run"):
            pass
    with resume.hold("name", "the run"):
        pass


def test_a_listing_keeps_no_run_from_its_name() -> None:
    with resume.hold("name", "the run"):
        path = resume._lock_of("name")
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        closing = threading.Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        closing.start()
        with resume.hold("name", "the run"):
            pass
        closing.join()


def test_a_process_that_dies_lets_go() -> None:
    script = (
        "import os, sys\nfrom impasto import resume\n"
        "with resume.hold('name', 'the run'):\n"
        "    print(os.getpid(), flush=True)\n    sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    number = child.stdout.readline().strip()
    with pytest.raises(BusyError, match=f"process {number};"), resume.hold("name", "the run"):
        pass
    child.kill()
    child.communicate()
    with resume.hold("name", "the run"):
        pass


def test_where_nothing_can_be_kept_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with resume.hold("name", "the run"):
        keeper = resume.Keeper("name", 0, {})
        keeper.see(step(1))
    assert "cannot keep the run's state" in keeper.failure
    assert resume.listing() == []


def test_a_state_is_written_when_it_is_time_and_not_for_more_than_a_share_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, taken = 100.0, 0.125
    written = []

    def save(_folder: Path, _state: dict[str, Any], about: dict[str, Any]) -> None:
        nonlocal now
        now += taken
        written.append(about["iteration"])

    monkeypatch.setattr(resume.time, "monotonic", lambda: now)
    monkeypatch.setattr(checkpoint, "save", save)
    keeper = resume.Keeper("run", 30, {})
    for iteration in range(100):
        keeper.see(step(iteration))
        now += 1
    assert written == [30, 60, 90]
    keeper.see(step(100), now=True)
    assert written[-1] == 100
    taken = 2.0
    keeper.see(step(101), now=True)
    for iteration in range(102, 320):
        keeper.see(step(iteration))
        now += 1
    assert written[-2:] == [202, 302]


def test_slow_iterations_are_kept_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda *_: saved.append(now[0]))
    keeper = resume.Keeper("slow", 30, {})
    for seconds in (5, 5, 5, 9, 9, 5):
        now[0] += seconds
        keeper.see(step(1))
    assert saved == [24, 33], "those that nobody would wait for"
    assert resume.Keeper("large", 30, {}, pixels=20_000_000).patience == 3


def test_runs_are_listed_and_cleaned_but_for_what_is_running() -> None:
    for name in ("one", "other"):
        checkpoint.save(resume.folder_of(name), {"best": torch.zeros(9)}, {"iteration": 3})
    with resume.hold("one", "the run"):
        runs = {run.key: run for run in resume.listing()}
        assert runs["one"].running
        assert not runs["other"].running
        assert runs["other"].about == {"iteration": 3}
        assert runs["other"].bytes > 36
        with pytest.raises(BusyError, match="the run one is in use by process"):
            resume.clean(["one"])
        assert resume.clean([]) == ["other"]
    assert resume.clean(["one"]) == ["one"]
    assert resume.listing() == []
    assert resume.find("one") is None


def test_a_stray_file_hides_no_run_and_a_foreign_manifest_is_described() -> None:
    checkpoint.save(resume.folder_of("one"), {"best": torch.zeros(9)}, {"iteration": 3})
    resume.folder_of("stray").write_bytes(b"")
    (run,) = resume.listing()
    assert run.describe().startswith("one  nothing that can be used")
    assert resume.clean([]) == ["one"]


def test_a_plan_that_this_machine_cannot_carry_out_is_none() -> None:
    made = plan.make(Recipe(size=64), (48, 64))
    said = plan.as_json(made)

    def found(**other: Any) -> plan.Plan | None:
        return resume.plan_of({"plan": {**said, **other}})

    assert found() == made
    assert (
        found(device="cuda:7") is found(levels=[{}]) is found(more=1) is found(precision="int3") is None
    )
    assert resume.plan_of({}) is None


def test_conditions_say_what_changed() -> None:
    now = resume.conditions(torch.device("cpu"))
    assert resume.differences(now, now) == ""
    assert resume.differences({**now, "threads": "99"}, now).startswith("threads 99, now")
