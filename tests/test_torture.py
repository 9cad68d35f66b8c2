"""A sample of `make torture`: kills, and every signal."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

import torture
from impasto import sweep
from impasto.recipe import Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("torture")
    torture.pictures(found)
    return found


@pytest.mark.parametrize("optimizer", torture.OPTIMIZERS)
def test_a_run_that_was_killed_ends_in_the_same_bytes(folder: Path, optimizer: str) -> None:
    whole = torture.untouched(folder, optimizer, 60)
    assert torture.killed(folder, whole, optimizer, 5, random.Random(1), 60).wrong == ""


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGINT", "SIGINT twice"])
def test_every_signal_ends_a_run_in_order(folder: Path, kind: str) -> None:
    assert torture.signalled(folder, torture.Whole(b"", 1.0, 2.0), kind, random.Random(2), 10_000) == ""


@pytest.mark.usefixtures("tiny_network", "one_thread")
def test_a_sweep_whose_workers_are_killed_gives_the_bytes_of_one_process(tmp_path: Path) -> None:
    torture.pictures(tmp_path)
    photo, painting = tmp_path / "photo.png", tmp_path / "painting.png"
    plain = {"size": 64, "levels": 1, "init": "noise", "optimizer": "adam", "precision": "float32"}
    recipes = [
        Recipe(**plain, iterations=120, beta=beta, seed=seed) for beta in (1, 2) for seed in (0, 1)
    ]
    cells = [sweep.Cell("", "", recipe, photo, (painting,)) for recipe in recipes]
    assert not any(one.error for one in sweep.carry_out(cells, tmp_path / "serial"))
    serial = torture.results(tmp_path / "serial")
    said = torture.swept(tmp_path, serial, 2, random.Random(3), 120)
    assert (said.wrong, said.kills) == ("", 2)
    assert said.listening


def test_an_interrupted_sweep_leaves_no_worker(tmp_path: Path) -> None:
    torture.pictures(tmp_path)
    with torture.sweeping(tmp_path, "out", 4, 100_000, "--workers", "2") as process:
        while not list(tmp_path.glob("out/runs/*/losses.csv")):
            assert process.poll() is None
            time.sleep(0.1)
        family = torture.children(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: all that the terminal has started
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "impasto: interrupted; 0 of 4 runs are whole; the same command goes on\n"
    assert torture.left_of(family) == []
