"""Two processes see what one sees: the same bytes, from the objective to the picture on disk."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from impasto import images, parallel
from impasto.errors import LostError

HERE = Path(__file__).parent

SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {here!r})
from conftest import make_tiny_weights
from impasto import parallel
from impasto.objective import Objective
from impasto.recipe import Recipe
from impasto.tiles import Cut
from impasto.vgg import VGG19

torch.set_num_threads(1)
team = parallel.join()
recipe = Recipe(tv=0.3, weighting={weighting!r}, padding={padding!r})
precision = getattr(torch, {precision!r})
generator = torch.Generator().manual_seed(0)
content, style, picture = (torch.rand(3, 96, 80, generator=generator).to(precision) for _ in range(3))
network = VGG19(make_tiny_weights(), padding=recipe.padding, precision=precision)
shown = [team.show(one if team.leads else None, network.device) for one in (content, style)]
objective = Objective(recipe, network, shown[0], [shown[1]], Cut((32, 48), {keep}), team)
if team.leads:
    found = objective(picture)
    assert objective.losses(picture) == found.losses
    team.tell("done")
    torch.save({{"gradient": found.gradient, "total": found.losses.total}}, {out!r})
else:
    assert objective.follow(torch.empty_like(picture)) == "done"
team.leave()
"""


def together(
    ranks: int, *words: str, cwd: Path, limit: int = 50
) -> list[subprocess.CompletedProcess[str]]:
    """Run a Python command as the ranks of one team, as torchrun would; return how each ended."""
    port = str(20_000 + os.getpid() % 20_000)
    shared = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(ranks)}
    if ranks == 1:
        del shared["WORLD_SIZE"]
    started = [
        subprocess.Popen(
            [sys.executable, *words],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(ranks)
    ]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=limit)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return ended


@pytest.mark.parametrize(
    ("precision", "padding", "weighting", "keep"),
    [("float32", "replicate", "balanced", 1), ("float64", "zeros", "report", 2)],
)
def test_two_ranks_give_the_bytes_of_one(
    tmp_path: Path, precision: str, padding: str, weighting: str, keep: int
) -> None:
    found = []
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.pt"
        script = SCRIPT.format(
            here=str(HERE),
            weighting=weighting,
            padding=padding,
            precision=precision,
            keep=keep,
            out=str(out),
        )
        for ended in together(ranks, "-c", script, cwd=tmp_path):
            assert ended.returncode == 0, ended.stderr
        found.append(torch.load(out, weights_only=True))
    assert torch.equal(found[0]["gradient"], found[1]["gradient"])
    assert found[0]["total"] == found[1]["total"]


def test_a_transfer_in_two_processes_writes_the_picture_of_one(
    tmp_path: Path, picture_file: Callable[..., Path]
) -> None:
    photo, painting = picture_file("photo.png", 96, 64, seed=1), picture_file("s.png", 80, 80, seed=2)
    learn = ("style", "learn", painting.name, "-o", "s.safetensors", "--size", "96")
    (learned,) = together(1, "-m", "impasto", *learn, cwd=tmp_path, limit=100)
    assert learned.returncode == 0, learned.stderr
    words = ("transfer", photo.name, painting.name, "s.safetensors", "--size", "96", "--iterations", "2")
    words = ("-m", "impasto", *words, "--precision", "float32", "--levels", "48", "96")
    pictures = []
    for ranks in (1, 2):
        first, *others = together(ranks, *words, "-o", f"{ranks}.png", cwd=tmp_path, limit=100)
        assert first.returncode == 0, first.stderr
        assert f"wrote {ranks}.png" in first.stderr
        assert all((end.returncode, end.stdout, end.stderr) == (0, "", "") for end in others)
        pictures.append(images.read(tmp_path / f"{ranks}.png"))
    # One process had room for the whole picture, two cut it: equal to rounding.
    assert (pictures[0] - pictures[1]).abs().max() <= 2 / 255
    assert sorted(path.name for path in tmp_path.glob("*")) == [
        "1.png",
        "2.png",
        "photo.png",
        "s.png",
        "s.safetensors",
    ]


def test_bad_input_is_said_once(tmp_path: Path) -> None:
    first, second = together(2, "-m", "impasto", "transfer", "no.png", "no.png", cwd=tmp_path)
    assert first.returncode == 2
    assert first.stderr == "impasto: no.png does not exist; give a picture file\n"
    assert second.returncode != 0
    assert second.stderr == ""


DEATH = """
import os, sys
from impasto import parallel
from impasto.__main__ import main
from impasto.objective import Objective

if os.environ["RANK"] == {rank!r}:
    evaluate, calls = Objective._evaluate, []

    def die(self, picture):
        calls.append(1)
        if len(calls) == 3:
            os._exit(9)
        return evaluate(self, picture)

    Objective._evaluate = die
sys.exit(main(sys.argv[1:]))
"""


def test_a_rank_that_dies_ends_the_run_in_one_line_and_leaves_no_file(
    tmp_path: Path, picture_file: Callable[..., Path]
) -> None:
    photo, painting = picture_file("photo.png", 64, 64, seed=1), picture_file("s.png", 64, 64, seed=2)
    words = ("transfer", photo.name, painting.name, "-o", "out.png", "--size", "64", "--iterations", "9")
    before = sorted(tmp_path.iterdir())
    script = DEATH.format(rank="1")
    first, second = together(2, "-c", script, *words, "--memory", "3GiB", cwd=tmp_path, limit=100)
    assert second.returncode == 9, first.stderr + second.stderr
    assert first.returncode == 70
    assert "another process of this run has ended" in first.stderr.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before


def test_alone_nothing_is_sent() -> None:
    team = parallel.ALONE
    tensor = torch.ones(2)
    assert team.leads
    assert team.has(7)
    assert team.hand_in(3, tensor) is tensor
    assert team.share(tensor) is tensor
    assert team.tell("word") == "word"
    assert team.show(tensor, tensor.device) is tensor


def test_a_lost_connection_is_one_line() -> None:
    with pytest.raises(LostError, match="another process of this run"), parallel._others():
        raise RuntimeError("connection closed by peer\nat somewhere")
