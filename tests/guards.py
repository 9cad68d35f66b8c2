"""Remove each guard in turn, and see that a test notices.

    make torture        or: python tests/guards.py [WORD ...]: those whose names hold one of the words

A guard is a line or two without which everything still works, until the day it is needed. Each is
removed in a copy of the tree, never in place, and the tests named beside it must pass before and fail
after.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path("src", "impasto")
SECONDS = 300


class Guard(NamedTuple):
    """What a guard is for, where it stands, what stands there without it, and the tests that notice.

    ``text`` occurs once in its file. ``tests`` are words for pytest: a file, and what to choose of it.
    """

    name: str
    file: str
    text: str
    without: str
    tests: str


GUARDS = (
    # what is written
    Guard(
        "bytes are on the disk before the name is",
        "files.py",
        "            os.fsync(file.fileno())\n",
        "",
        "tests/test_files.py -k failed_write",
    ),
    Guard(
        "a file takes its name whole",
        "files.py",
        "temporary.replace(path)",
        "path.write_bytes(temporary.read_bytes()), temporary.unlink()",
        "tests/test_files.py -k failed_write",
    ),
    Guard(
        "no temporary file is left behind",
        "files.py",
        "        temporary.unlink(missing_ok=True)\n",
        "",
        "tests/test_files.py -k interrupted",
    ),
    Guard(
        "an encoder's short write is seen",
        "images.py",
        ".save(encoded, kind,",
        ".save(file, kind,",
        "tests/test_images.py -k cuts_short",
    ),
    Guard(
        "no output replaces an input",
        "jobs.py",
        "        _check_apart(target, inputs)\n    except OSError as error:  # a name",
        "    except OSError as error:  # a name",
        "tests/test_runs.py -k no_output_may_replace",
    ),
    Guard(
        "--no-clobber",
        "jobs.py",
        "    for target in earlier:\n        raise",
        "    for target in earlier[:0]:\n        raise",
        "tests/test_cli.py tests/test_runs.py -k clobber",
    ),
    # what is kept of a run
    Guard(
        "a state's tensors have the hash of its manifest",
        "checkpoint.py",
        'if files.sha256(tensors) == content["tensors"]:',
        "if files.sha256(tensors):",
        "tests/test_checkpoint.py -k damaged",
    ),
    Guard(
        "a manifest has its own hash",
        "checkpoint.py",
        "if hashlib.sha256(text).hexdigest().encode() != seal:",
        "if not seal:",
        "tests/test_checkpoint.py -k damage",
    ),
    Guard(
        "two generations of a state",
        "checkpoint.py",
        "name = next(one for one in _GENERATIONS if one != newest)",
        "name = newest",
        "tests/test_checkpoint.py -k every_instant",
    ),
    Guard(
        "a foreign state raises nothing",
        "checkpoint.py",
        "with contextlib.suppress(Exception):  # there is",
        "with contextlib.suppress(OSError):  # there is",
        "tests/test_hostile_weights.py -k 'protocol or manifest'",
    ),
    Guard(
        "a full disk under a state stops no run",
        "resume.py",
        '        except OSError as error:\n            self.failure = f"cannot keep',
        '        except BlockingIOError as error:\n            self.failure = f"cannot keep',
        "tests/test_runs.py -k 'state_folder or state_that_cannot'",
    ),
    Guard(
        "one process holds a run and an output",
        "resume.py",
        "        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        with contextlib",
        "        with contextlib",
        "tests/test_resume.py tests/test_runs.py -k 'holds_a_name or two_runs'",
    ),
    Guard(
        "a second Ctrl-C leaves at once",
        "interrupts.py",
        "        restore()\n        handle(number)\n",
        "        handle(number)\n",
        "tests/test_runs.py -k second_ctrl_c",
    ),
    Guard(
        "a log on a full disk costs no picture",
        "watch.py",
        "    with contextlib.suppress(OSError):\n        log.close()\n",
        "    log.close()\n",
        "tests/test_runs.py -k log_on_a_full_disk",
    ),
    # numbers
    Guard(
        "losses that are not finite",
        "optimize.py",
        "if not (math.isfinite(found.losses.total) and found.gradient.isfinite().all()):",
        "if not isinstance(found, Evaluation):",
        "tests/test_optimize.py -k 'start_that_is_not_finite or three_times_it_steps'",
    ),
    # pictures
    Guard(
        "pixel bombs",
        "images.py",
        "    if width * height > most:",
        "    if width * height < 0:",
        "tests/test_images.py -k bomb",
    ),
    Guard(
        "a decoder's memory",
        "child.py",
        "        resource.RLIMIT_AS: (min(memory, most), most),\n",
        "",
        "tests/test_child.py -k small_means",
    ),
    Guard(
        "a decoder that hangs",
        "child.py",
        "        self._data.settimeout(_PATIENCE + _SECONDS_PER_MEGAPIXEL * self._megapixels)\n",
        "",
        "tests/test_child.py -k hangs",
    ),
    Guard(
        "scans of a JPEG",
        "decode.py",
        "        _check_scans(file)\n",
        "        pass\n",
        "tests/test_hostile.py -k scans",
    ),
    Guard(
        "no file is opened that a picture's own words name",
        "provenance.py",
        'if own_weights or fields.get("weights") not in weights.REGISTRY:',
        "if own_weights:",
        "tests/test_provenance.py -k strangers",
    ),
    Guard(
        "no photograph is replaced by many pictures",
        "batch.py",
        "        if path in targets:\n",
        "        if path in ():\n",
        "tests/test_batch.py -k no_photograph",
    ),
    Guard(
        "colour below transparent pixels",
        "images.py",
        "colours, alpha = color.carry_on(colours, alpha), alpha.clamp(0, 1)",
        "alpha = alpha.clamp(0, 1)",
        "tests/test_images.py -k transparent_pixels",
    ),
    Guard(
        "the place where a photograph was taken",
        "jobs.py",
        "metadata = metadata if self.keep_metadata else metadata.without_location()",
        "metadata = metadata._replace()",
        "tests/test_runs.py -k 'metadata or photograph'",
    ),
    # weights and styles
    Guard(
        "pickles are read as tensors, never as code",
        "weights.py",
        'torch.load(path, map_location="cpu", weights_only=True)',
        'torch.load(path, map_location="cpu", weights_only=False)',
        "tests/test_hostile_weights.py -k 'protocol or torch'",
    ),
    Guard(
        "weights of a known name have its hash",
        "weights.py",
        "if promised and not digest.startswith(promised.sha256):",
        "if promised and not digest:",
        "tests/test_weights.py -k 'known_hash or damaged'",
    ),
    Guard(
        "archives that unpack to more than they are",
        "weights.py",
        "        _check_archive(path)\n",
        "        pass\n",
        "tests/test_hostile_weights.py -k measured_before",
    ),
    Guard(
        "pickles that take for ever",
        "weights.py",
        "        if shared or opcode.name ==",
        "        if opcode.name ==",
        "tests/test_hostile_weights.py -k 'shares_an_object'",
    ),
    Guard(
        "weights are no device and not endless",
        "weights.py",
        "if path.stat().st_size > _LARGEST:",
        "if path.stat().st_size < 0:",
        "tests/test_hostile_weights.py -k terabyte",
    ),
    Guard(
        "weights are finite",
        "weights.py",
        "if not all(math.isfinite(end) for end in own.aminmax()):",
        "if not len(own):",
        "tests/test_hostile_weights.py -k 'torch and (NaN or infinity)'",
    ),
    Guard(
        "a Keras file leads nowhere else",
        "weights.py",
        "if item.external or item.is_virtual:",
        "if not item.ndim:",
        "tests/test_weights.py -k leads_elsewhere",
    ),
    Guard(
        "downloads by https alone",
        "weights.py",
        'if parts.scheme != "https" and not loopback:',
        'if parts.scheme == "file":',
        "tests/test_weights.py -k nothing_but_https",
    ),
    Guard(
        "styles are finite",
        "styles.py",
        "if not summary.isfinite().all():",
        "if not summary.numel():",
        "tests/test_styles.py -k damaged",
    ),
    # many runs
    Guard(
        "a damaged run is no whole one",
        "sweep.py",
        "return all(files.sha256(folder / name) == sha256 for name, sha256 in said.files.items())",
        "return bool(said)",
        "tests/test_sweep.py -k only_what_is_missing",
    ),
    Guard(
        "a run that has its picture is not computed again",
        "sweep.py",
        "if not _is_painted(task):",
        "if task:",
        "tests/test_sweep.py -k only_what_is_missing",
    ),
    Guard(
        "a run is not to blame for the death of a worker that it waited for",
        "sweep.py",
        "if begun == self._begun and failure.lost and not self.carries:",
        "if not failure:",
        "tests/test_sweep.py -k waited",
    ),
    Guard(
        "workers listen on loopback alone",
        "clusters.py",
        "host=_LOOPBACK,",
        'host="0.0.0.0",',
        "tests/test_torture.py -k sweep_whose",
    ),
    # what is said
    Guard(
        "oneDNN's results are compared",
        "onednn.py",
        "(one - right).abs().max().item() < _TOLERANCES[precision] * right.abs().max().item()",
        "True",
        "tests/test_onednn.py -k wrong_result",
    ),
    Guard(
        "NNPACK's results are compared",
        "winograd.py",
        "if not (found - right).abs().max() < _TOLERANCE * right.abs().max():",
        "if False:",
        "tests/test_winograd.py -k wrong_or_fails",
    ),
    Guard(
        "MKL's kernels are chosen by one thread",
        "vgg.py",
        "        devices.settle_vector_math()  # here: what a run computes has a network first\n",
        "",
        "tests/test_vgg.py -k settled_by_one_thread",
    ),
    Guard(
        "a process is replaced once",
        "__main__.py",
        "if told and sys.executable and REPLACED not in os.environ:",
        "if told and sys.executable:",
        "tests/test_cli.py -k manages_its_memory",
    ),
    Guard(
        "a terminal is given no orders",
        "errors.py",
        'sign if sign.isprintable() else "?" for sign',
        "sign for sign",
        "tests/test_cli.py -k odd_name",
    ),
)


def problems() -> Iterator[str]:
    """Yield what is wrong with the table: a guard whose text is not in its file, or not once."""
    for guard in GUARDS:
        count = (ROOT / SOURCE / guard.file).read_text(encoding="utf-8").count(guard.text)
        if count != 1:
            yield f"{guard.name}: its text occurs {count} times in {guard.file}"


def copied(folder: Path) -> Path:
    """Copy what tests need of the tree; return where."""
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def tested(tree: Path, tests: str) -> int:
    """Run tests in a copy of the tree; return pytest's exit status."""
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(tests)]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            words, cwd=tree, env=environment, timeout=SECONDS, check=False, capture_output=True
        )
    except subprocess.TimeoutExpired:
        return 1  # a test that waits for what the guard had given it
    return done.returncode


def removed(guard: Guard) -> str:
    """Remove a guard from a copy of the tree; return what is wrong with its tests, or nothing."""
    with tempfile.TemporaryDirectory() as name:
        tree = copied(Path(name))
        if status := tested(tree, guard.tests):
            return f"its tests do not pass with it: pytest ended with {status}"
        file = tree / SOURCE / guard.file
        text = file.read_text(encoding="utf-8")
        assert text.count(guard.text) == 1, guard
        file.write_text(text.replace(guard.text, guard.without), encoding="utf-8")
        compile(file.read_text(encoding="utf-8"), file, "exec")
        status = tested(tree, guard.tests)
    return "" if status == 1 else f"nobody notices that it is gone: pytest ended with {status}"


def main(words: Sequence[str] = ()) -> int:
    """Remove every guard whose name holds one of the words, or all; return 1 if one was not missed."""
    wrong = list(problems())
    chosen = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    for guard in chosen:
        said = removed(guard)
        print(f"guard: {guard.name}: {said or 'missed at once'}", flush=True)
        wrong += [said] if said else []
    print(
        f"guards: {len(chosen) - len(wrong)} of {len(chosen)} are missed when they are gone", flush=True
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
