"""A state on the disk comes back to the last bit, or the one before it does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from impasto import checkpoint

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def state(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.rand(3, 4, generator=generator)
    return {
        "best": shared,
        "pixels": shared,
        "optimizer": {
            0: {"step": torch.tensor(3.0), "old_dirs": [torch.rand(5, generator=generator)]},
            "groups": [{"lr": 0.1 + 1e-17, "betas": (0.9, 0.999), "none": None, "on": True}],
        },
        "kinds": [torch.rand(3, generator=generator).to(dtype) for dtype in FLOATS],
        "others": [torch.tensor([1, 2]), torch.tensor([True, False]), torch.zeros(0), shared.T],
        "extremes": [float("inf"), -0.0, 5e-324, 2**70, "word"],
        "random": generator.get_state(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(repr(one) == repr(other))


def loaded(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = checkpoint.load(folder)
    assert found is not None
    return found.state, found.about


def test_every_value_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(), {"iteration": 7})
    back, about = loaded(tmp_path)
    assert same(back, state())
    assert back["best"] is back["pixels"]
    assert about == checkpoint.about(tmp_path) == {"iteration": 7}


def test_the_newest_of_two_generations_is_found(tmp_path: Path) -> None:
    for seed in range(5):
        checkpoint.save(tmp_path, state(seed), {"iteration": seed})
        back, about = loaded(tmp_path)
        assert same(back, state(seed))
        assert about == {"iteration": seed}
    assert len(list(tmp_path.iterdir())) == 4


def test_nothing_is_found_where_nothing_was_kept(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is checkpoint.load(tmp_path / "none") is None
    assert checkpoint.about(tmp_path) is None
    checkpoint.save(tmp_path, state(), {})
    checkpoint.remove(tmp_path)
    assert not tmp_path.exists()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [cut_short, flip_a_bit, Path.unlink, lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("part", ["b.json", "b.safetensors"])
def test_a_damaged_generation_leaves_the_one_before(
    tmp_path: Path, damage: Callable[[Path], object], part: str
) -> None:
    for seed in range(2):
        checkpoint.save(tmp_path, state(seed), {"iteration": seed})
    damage(tmp_path / part)
    back, about = loaded(tmp_path)
    assert same(back, state(0))
    assert about == {"iteration": 0}
    checkpoint.save(tmp_path, state(9), {"iteration": 9})
    assert loaded(tmp_path)[1] == {"iteration": 9}
    for path in tmp_path.iterdir():
        damage(path)
    assert checkpoint.load(tmp_path) is None


def test_a_save_after_damage_spares_the_generation_that_is_whole(tmp_path: Path) -> None:
    for seed in range(2):
        checkpoint.save(tmp_path, state(seed), {"iteration": seed})
    flip_a_bit(tmp_path / "b.safetensors")
    assert loaded(tmp_path)[1] == checkpoint.about(tmp_path) == {"iteration": 0}
    checkpoint.save(tmp_path, state(2), {"iteration": 2})
    flip_a_bit(tmp_path / "b.safetensors")
    assert loaded(tmp_path)[1] == {"iteration": 0}


@pytest.mark.parametrize("step", range(1, 9))
def test_at_every_instant_of_a_save_one_generation_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Stop the third save at its n-th touch of the disk, as a kill would."""
    for seed in range(2):
        checkpoint.save(tmp_path, state(seed), {"iteration": seed})
    left = step

    class Killed(BaseException):
        pass

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return real(*arguments, **options)

        return call

    for owner, name in ((Path, "unlink"), (Path, "replace"), (checkpoint, "_write"), (Path, "chmod")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    try:
        checkpoint.save(tmp_path, state(2), {"iteration": 2})
        killed = False
    except Killed:
        killed = True
    monkeypatch.undo()
    back, about = loaded(tmp_path)
    assert about["iteration"] in ((1, 2) if killed else (2,))
    assert same(back, state(about["iteration"]))


def test_another_schema_is_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, state(), {})
    monkeypatch.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
    assert checkpoint.load(tmp_path) is None


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a state cannot hold a set"):
        checkpoint.save(tmp_path, {"set": {1}}, {})
