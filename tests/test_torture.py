"""A sample of `make torture`: ten kills, and every signal."""

import random
from pathlib import Path

import pytest

import torture


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
