"""Many runs: each is computed once, what is whole is kept, and where it was computed changes no byte."""

import csv
import dataclasses
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import pytest
from distributed import LocalCluster

from impasto import clusters, files, images, runs, studies, styles, sweep
from impasto.__main__ import main
from impasto.cli import _shareable
from impasto.errors import BusyError, InputError, Interrupted, RunError
from impasto.events import Event, Noted, Step
from impasto.recipe import Recipe, read_toml
from impasto.results import Study
from impasto.sweep import Cell, Outcome

pytestmark = pytest.mark.usefixtures("tiny_network", "one_thread")

RECIPE = Recipe(size=32, iterations=3, precision="float32")
SAME = ("picture.png", "losses.csv", "recipe.toml")
"""What has the same bytes wherever it is computed; how many seconds it took has not."""


@pytest.fixture
def pictures(tmp_path: Path, picture_file: Callable[..., Path]) -> Path:
    picture_file("photo.png", 40, 32, seed=1)
    picture_file("painting.png", 36, 36, seed=2)
    return tmp_path


def cell(pictures: Path, name: str = "", snapshots: tuple[int, ...] = (), **fields: Any) -> Cell:
    recipe = replace(RECIPE, **fields)
    photo, painting = pictures / "photo.png", pictures / "painting.png"
    return Cell("", name, recipe, photo, (painting,), snapshots)


def carried_out(cells: Sequence[Cell], out: Path, **more: Any) -> list[Outcome]:
    return list(sweep.carry_out(cells, out, **more))


def test_a_folder_holds_all_there_is_to_say_of_a_run(pictures: Path, tmp_path: Path) -> None:
    (found,) = carried_out([cell(pictures, snapshots=(0, 2))], tmp_path / "out")
    assert (found.error, found.exit_code) == ("", 0)
    run = sweep.read(found.folder)
    assert run.picture.is_file()
    assert list(run.steps) == [0, 2]
    assert [row["iteration"] for row in run.rows] == [0, 1, 2, 3]
    assert all(row["seconds"] >= 0 for row in run.rows)
    assert run.seconds == run.rows[-1]["seconds"]
    assert (run.iterations, run.evaluations) == (3, run.rows[-1]["evaluations"])
    assert run.losses.total > 0
    assert run.measures["ssim"] <= 1
    assert run.versions["threads"] == "1"
    assert json.loads((found.folder / "run.json").read_bytes())["inputs"].keys() == {"content", "styles"}


@pytest.mark.parametrize("kind", ["transfer", "texture", "reconstruct"])
def test_its_command_and_its_recipe_make_the_same_picture(
    pictures: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = cell(
        pictures, style_layers=("conv1_1", "conv2_1"), layer_weights=("geometric", 2), tileable=True
    )
    if kind == "texture":
        one = replace(one, content=None, recipe=replace(one.recipe, init="noise"))
    if kind == "reconstruct":
        one = replace(one, styles=(), recipe=replace(one.recipe, init="noise"))
    (found,) = carried_out([one], tmp_path / "out")
    monkeypatch.chdir(pictures)
    program, *words = shlex.split(sweep.read(found.folder).command)
    assert (program, words[0]) == ("impasto", kind)
    assert main([*words, "-o", "again.png"]) == 0
    assert Path("again.png").read_bytes() == (found.folder / "picture.png").read_bytes()
    assert Recipe(**read_toml(found.folder / "recipe.toml")) == one.recipe  # type: ignore[arg-type]


def test_only_what_is_missing_is_computed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Recipe] = []
    real = runs.carry_out

    def counting(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        begun.append(recipe)
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", counting)
    cells = [cell(pictures, seed=seed) for seed in (1, 2, 1)]
    first = carried_out(cells, tmp_path / "out")
    assert len(first) == 3
    assert len({one.folder for one in first}) == len(begun) == 2, "equal runs are one"
    carried_out([*cells, cell(pictures, seed=3)], tmp_path / "out")
    assert len(begun) == 3, "an extended sweep computes what is new"
    (first[0].folder / "run.json").unlink()
    carried_out(cells, tmp_path / "out")
    assert len(begun) == 3, "a run that has its picture is not computed again"
    picture = first[0].folder / "picture.png"
    picture.write_bytes(picture.read_bytes()[:-1])
    assert not sweep.is_whole(first[0].folder)
    carried_out(cells, tmp_path / "out")
    assert len(begun) == 4, "what is damaged is made anew"


def test_a_run_is_known_by_what_makes_its_picture(pictures: Path, tmp_path: Path) -> None:
    one = cell(pictures)
    name = sweep.folder_of(one, tmp_path)
    moved = shutil.copy(pictures / "photo.png", tmp_path / "of another name.png")
    for same in (
        replace(one, row="elsewhere", content=Path(moved)),
        replace(one, recipe=replace(RECIPE, memory="4GiB")),
    ):
        assert sweep.folder_of(same, tmp_path) == name
    for other in (
        replace(one, snapshots=(1,)),
        replace(one, content=None),
        replace(one, content=pictures / "painting.png"),
        replace(one, recipe=replace(RECIPE, seed=1)),
    ):
        assert sweep.folder_of(other, tmp_path) != name


def test_what_runs_share_changes_no_byte(pictures: Path, tmp_path: Path) -> None:
    several = ({"beta": 2.0}, {"seed": 3}, {"pooling": "max"}, {"optimizer": "adam", "init": "noise"})
    cells = [cell(pictures, **fields) for fields in several]
    together = carried_out(cells, tmp_path / "together")
    for one, found in zip(cells, together, strict=True):
        (alone,) = carried_out([one], tmp_path / "alone")
        assert alone.folder.name == found.folder.name
        for name in SAME:
            assert (alone.folder / name).read_bytes() == (found.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("error", "attempts", "code", "words"),
    [
        (InputError("a mask does not fit"), 1, 2, "a mask does not fit"),
        (RunError("losses are not finite"), 3, 70, "losses are not finite"),
        (MemoryError(), 3, 70, "MemoryError"),
        (ValueError("two\nlines"), 3, 70, "ValueError: two lines"),
    ],
    ids=repr,
)
def test_what_fails_is_told_of_in_one_line_and_the_rest_completes(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    attempts: int,
    code: int,
    words: str,
) -> None:
    real, tried = runs.carry_out, []

    def failing(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        if recipe.seed == 1:
            tried.append(recipe)
            raise error
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", failing)
    found = carried_out([cell(pictures, seed=seed) for seed in (0, 1, 2)], tmp_path / "out")
    assert [one.error for one in found] == ["", words, ""]
    assert [one.exit_code for one in found] == [0, code, 0]
    assert len(tried) == attempts


def test_what_cannot_be_read_is_said_before_any_run(pictures: Path, tmp_path: Path) -> None:
    bad = replace(cell(pictures), content=pictures / "none.png")
    with pytest.raises(InputError, match=r"cannot read .*none\.png"):
        carried_out([cell(pictures), bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interruption_ends_it_and_what_is_whole_is_kept(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.carry_out

    def interrupted(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        if recipe.seed == 1:
            raise Interrupted(2)
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", interrupted)
    cells = [cell(pictures, seed=seed) for seed in (0, 1)]
    with pytest.raises(Interrupted):
        carried_out(cells, tmp_path / "out")
    assert sweep.is_whole(sweep.folder_of(cells[0], tmp_path / "out"))
    assert not sweep.is_whole(sweep.folder_of(cells[1], tmp_path / "out"))


@pytest.mark.parametrize("gone", ["", "losses.csv", "seconds.csv", "steps/00001.png"])
def test_a_run_whose_beginning_is_gone_begins_again(pictures: Path, tmp_path: Path, gone: str) -> None:
    one = cell(pictures, snapshots=(1,), iterations=6)

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        carried_out([one], tmp_path / "out", watchers=[stop], every=0)
    folder = sweep.folder_of(one, (tmp_path / "out").absolute())
    if gone:
        (folder / gone).unlink()
    else:
        shutil.rmtree(folder)
    seen: list[Event] = []
    (outcome,) = carried_out([one], tmp_path / "out", watchers=[seen.append])
    run = sweep.read(outcome.folder)
    assert [row["iteration"] for row in run.rows] == list(range(7))
    assert list(run.steps) == [1]
    assert sum(isinstance(event, Step) for event in seen) == 7


def test_a_run_that_lost_a_picture_on_the_way_is_not_whole(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, written = cell(pictures, snapshots=(1,)), images.write

    def write(picture: Any, path: Path, *words: Any, **more: Any) -> None:
        if path.name == "00001.png" and full:
            full.pop()
            raise InputError(f"cannot write {path}: No space left on device")
        written(picture, path, *words, **more)

    monkeypatch.setattr(images, "write", write)
    full = [True]
    (outcome,) = carried_out([one], tmp_path / "out")
    assert (outcome.error, list(sweep.read(outcome.folder).steps)) == ("", [1])
    full = [True] * 9
    (outcome,) = carried_out([one], tmp_path / "other")
    assert "No space left" in outcome.error
    assert not sweep.is_whole(outcome.folder)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_learned_styles_are_measured_and_drawn(pictures: Path, tmp_path: Path, pooling: str) -> None:
    style = pictures / f"learned{styles.SUFFIX}"
    runs.learn(replace(RECIPE, pooling=pooling), pictures / "painting.png", style)
    one = replace(cell(pictures, "one", pooling=pooling), styles=(style,))
    outcomes = carried_out([one], tmp_path / "out")
    assert [outcome.error for outcome in outcomes] == [""]
    assert studies.present(Study("sweep", "learned"), [one], outcomes, tmp_path / "out").exists()


def test_two_that_make_one_run_wait_for_each_other(pictures: Path, tmp_path: Path) -> None:
    one, out = cell(pictures), tmp_path / "out"
    folder = sweep.folder_of(one, out.absolute())
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom impasto import resume\n"
        "with resume.hold(resume.name_of(Path(sys.argv[1])), 'it'):\n"
        "    print('held', flush=True)\n    time.sleep(2)\n"
    )
    command = [sys.executable, "-c", script, str(folder / "run.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        (outcome,) = carried_out([one], out)
        assert other.wait(1) == 0, "it had ended before the run began"
    assert outcome.error == ""


def test_a_run_that_is_made_for_another_folder_is_waited_for(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries, seen = runs.carry_out, [], []

    def carry_out(*arguments: Any, **options: Any) -> runs.Result:
        tries.append(1)
        if len(tries) < 5:
            raise BusyError("this run is in use by process 7")
        return real(*arguments, **options)

    monkeypatch.setattr(runs, "carry_out", carry_out)
    (outcome,) = carried_out([cell(pictures)], tmp_path / "out", watchers=[seen.append])
    assert outcome.error == ""
    assert [event.note for event in seen if isinstance(event, Noted)] == [
        "this run is in use by process 7: waiting for it"
    ]


def test_what_a_worker_answers_stays_in_the_folder_of_its_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for name in ("../outside", str(tmp_path / "outside"), "steps/../../outside"):
        failure = sweep._write({"picture.png": b"1", name: b"2"}, folder)
        assert failure is not None
        assert failure.final
    assert not (tmp_path / "outside").exists()
    folder.write_bytes(b"")  # where no folder can be
    failure = sweep._write({"picture.png": b"1"}, folder)
    assert failure is not None
    assert failure.error.startswith("cannot write in ")


def test_what_is_no_run_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no whole run"):
        sweep.read(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged, or of another version"):
        sweep.read(tmp_path)


def test_every_option_can_be_said_in_words() -> None:
    for field in dataclasses.fields(Recipe):
        assert field.default is not dataclasses.MISSING, field.name
    assert Recipe().words() == []


# --- elsewhere ------------------------------------------------------------------------------------


class Far(Executor):
    """Workers that see no folder of this machine: what they are to read must be brought to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def submit(self, fn: Any, /, task: Any, carried: Any) -> Future[Any]:  # type: ignore[override]
        there = {path: self.folder / path.name for path in task.inputs}
        future: Future[Any] = Future()
        task = replace(task.with_inputs(there), folder=self.folder / task.folder.name)
        future.set_result(pickle.loads(pickle.dumps(fn(task, carried))))
        return future


class Deadly(Executor):
    """Workers that die of a run: of one seed always, of the others the first time."""

    def __init__(self, seed: int) -> None:
        self.seed, self.tried = seed, Counter[int]()

    def submit(self, fn: Any, /, task: Any, carried: Any) -> Future[Any]:  # type: ignore[override]
        seed, future = task.recipe.seed, Future[Any]()
        self.tried[seed] += 1
        if seed == self.seed or self.tried[seed] == 1:
            task.folder.mkdir(parents=True, exist_ok=True)
            (task.folder / "recipe.toml").write_text("begun")
            future.set_exception(BrokenExecutor("a process was terminated abruptly"))
        else:
            future.set_result(fn(task, carried))
        return future


def test_results_come_back_from_where_no_folder_is_shared(pictures: Path, tmp_path: Path) -> None:
    one = cell(pictures, snapshots=(1,), init=str(pictures / "photo.png"))
    (here,) = carried_out([one], tmp_path / "here")
    (far,) = carried_out([one], tmp_path / "out", executor=Far(tmp_path / "far"))
    assert far.error == ""
    assert sweep.is_whole(far.folder)
    for name in (*SAME, "steps/00001.png"):
        assert (far.folder / name).read_bytes() == (here.folder / name).read_bytes()
    assert not list((tmp_path / "far").glob("*")), "nothing is written where it is not seen"
    assert not list((files.state_folder() / "sweep").glob("*")), "nor is anything left behind"


def test_inputs_are_named_by_their_content(pictures: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        found = carried_out([cell(pictures, seed=seed) for seed in (0, 1)], tmp_path, executor=executor)
    assert [one.error for one in found] == ["", ""]
    names = {path.name for path in (tmp_path / "inputs").iterdir()}
    assert names == {f"{files.sha256(pictures / name)}.png" for name in ("photo.png", "painting.png")}
    assert "photo.png painting.png" in sweep.read(found[0].folder).command


def test_a_run_that_fails_three_times_is_told_of_and_the_rest_completes(
    pictures: Path, tmp_path: Path
) -> None:
    executor = Deadly(seed=1)
    found = carried_out([cell(pictures, seed=seed) for seed in (0, 1, 2)], tmp_path, executor=executor)
    assert executor.tried == {0: 2, 1: 3, 2: 2}
    errors = {one.cell.recipe.seed: one.error for one in found}
    assert errors.pop(1).startswith("lost with its worker: BrokenExecutor: a process was terminated")
    assert set(errors.values()) == {""}


def test_a_run_that_waited_for_workers_that_died_is_carried_out(pictures: Path, tmp_path: Path) -> None:
    class Crowded(Executor):
        left = 4

        def submit(self, fn: Any, /, task: Any, carried: Any) -> Future[Any]:  # type: ignore[override]
            future = Future[Any]()
            self.left -= 1
            if self.left < 0:
                future.set_result(fn(task, carried))
            else:
                future.set_exception(BrokenExecutor("another run ended it"))
            return future

    (found,) = carried_out([cell(pictures)], tmp_path, executor=Crowded())
    assert found.error == ""
    (lost,) = carried_out([cell(pictures, seed=1)], tmp_path, executor=Never())
    assert lost.error.endswith("nobody is there")


class Never(Executor):
    """Workers that are never there."""

    def submit(self, *_: Any) -> Future[Any]:  # type: ignore[override]
        raise BrokenExecutor("nobody is there")


def test_an_executor_that_takes_nothing_is_told_of(pictures: Path, tmp_path: Path) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    (found,) = carried_out([cell(pictures)], tmp_path, executor=executor)
    assert "cannot schedule new futures after shutdown" in found.error


def test_a_cluster_that_is_there_is_used(pictures: Path, tmp_path: Path) -> None:
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        clusters.connected(cluster.scheduler_address) as executor,
    ):
        (found,) = carried_out([cell(pictures)], tmp_path / "out", executor=executor)
    assert found.error == ""
    (here,) = carried_out([cell(pictures)], tmp_path / "here")
    for name in SAME:
        assert (found.folder / name).read_bytes() == (here.folder / name).read_bytes()


def test_the_settings_of_tls_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def client(address: str, **more: Any) -> Any:
        seen.append((address, more["security"]))
        raise OSError("nobody is there")

    monkeypatch.setattr(distributed, "Client", client)
    tls = clusters.TLS(Path("ca.pem"), Path("cert.pem"), Path("key.pem"))
    said = "--cluster tls://host:1 cannot be used: nobody is there"
    with pytest.raises(InputError, match=said), clusters.connected("tls://host:1", tls):
        pass
    ((address, security),) = seen
    assert address == "tls://host:1"
    assert security.require_encryption
    assert security.tls_ca_file == "ca.pem"
    assert (security.tls_client_cert, security.tls_client_key) == ("cert.pem", "key.pem")


# --- the command ----------------------------------------------------------------------------------

SMALL = ("--size", "32", "--iterations", "2", "--precision", "float32", "--threads", "1")


@pytest.fixture
def studio(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(pictures)
    return pictures


def swept(*words: str) -> int:
    return main(("sweep", "photo.png", "painting.png", *SMALL, *words))


def test_the_command_carries_out_every_combination(
    studio: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--vary", "beta=1,2e0", "--vary", "style-layers=conv1_1,conv1_1 conv2_1")
    assert swept(*words, "--seeds", "2", "--alpha", "0.1") == 0
    out, err = capsys.readouterr()
    assert out == "wrote sweep/index.html\n"
    assert "8 of 8: style-layers = conv1_1 conv2_1, seed 1, beta = 2e0 in " in err
    found = [Recipe(**read_toml(path)) for path in studio.glob("sweep/runs/*/recipe.toml")]  # type: ignore[arg-type]
    said = {(one.beta, one.style_layers, one.seed, one.alpha) for one in found}
    layers = (("block1_conv1",), ("block1_conv1", "block2_conv1"))
    assert said == {(b, style, seed, 0.1) for b in (1, 2) for style in layers for seed in (0, 1)}
    assert (studio / "sweep" / "results.csv").read_text().count("\n") == 9
    before = {path: path.stat().st_mtime_ns for path in studio.glob("sweep/runs/*/picture.png")}
    assert swept(*words, "--seeds", "2", "--alpha", "0.1") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}, "a rerun computes nothing"


def test_names_that_are_no_text_do_no_harm(studio: Path) -> None:
    photo = os.fsdecode(b"a$_$\xff.png")
    (studio / "photo.png").rename(studio / photo)
    (studio / "painting.png").rename(studio / "$1 $2.png")
    vary = f"init={studio / '$1 $2.png'},noise"
    assert main(("sweep", photo, "$1 $2.png", *SMALL, "--vary", vary)) == 0
    (folder, *_) = (path.parent for path in studio.glob("sweep/runs/*/run.json"))
    assert "a$_$?.png" in sweep.read(folder).command
    for name in ("index.html", "results.csv"):
        text = (studio / "sweep" / name).read_text("utf-8")
        assert "init = $1 $2.png" in text
        assert str(studio) not in text, "a name of this machine"


def test_a_command_is_shown_with_files_by_their_names_and_all_else_as_it_is() -> None:
    words = ["/home/Jane Doe/photo.jpg", "../painting.jpg", "--workers", "2", "--threads", "1"]
    words += ["--vary", "layer-weights=equal,1/N^2", "--vary=init=/a b/start.png,noise", "-o", "out/"]
    words += ["--layer-weights", "1/N^2", "--init=/home/me/start.png", "--cluster=tls://here:1"]
    assert _shareable(words) == [
        *("photo.jpg", "painting.jpg", "--threads", "1", "--vary", "layer-weights=equal,1/N^2"),
        *("--vary=init=start.png,noise", "-o", "out", "--layer-weights", "1/N^2", "--init=start.png"),
    ]


def test_seeds_alone_are_the_columns_of_the_sheet(studio: Path) -> None:
    assert swept("--seeds", "2") == 0
    rows = list(csv.DictReader((studio / "sweep" / "results.csv").read_text("utf-8").splitlines()))
    assert [(row["row"], row["column"]) for row in rows] == [("", "seed 0"), ("", "seed 1")]


def test_runs_that_are_measured_at_different_layers_are_told_of(studio: Path) -> None:
    page = studio / "sweep" / "index.html"
    assert swept("--vary", "beta=1,2") == 0
    assert "measured at different layers" not in page.read_text("utf-8")
    assert swept("--vary", "style-layers=conv1_1,conv1_2") == 0
    assert "measured at different layers" in page.read_text("utf-8")


def test_what_is_true_or_false_is_varied_too(studio: Path) -> None:
    assert swept("--vary", "tileable=true,false") == 0
    found = {read_toml(path)["tileable"] for path in studio.glob("sweep/runs/*/recipe.toml")}
    assert found == {True, False}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--vary betta=1", "--vary betta: there is no such option; did you mean beta?"),
        ("--vary beta", "--vary beta: give NAME=VALUE,VALUE"),
        ("--vary beta=1,,2", "--vary beta=1,,2: give NAME=VALUE,VALUE"),
        ("--vary", "--vary"),
        ("--vary beta=1 --vary beta=2", "--vary beta is given twice"),
        ("--vary beta=1 --beta 2", "--vary beta and --beta contradict each other"),
        ("--vary tileable=true --no-tileable", "--vary tileable and --tileable contradict"),
        ("--vary seed=1,2 --seeds 2", "--vary seed and --seeds contradict each other"),
        ("--vary tileable=1", "--vary tileable=1: use true or false"),
        ("--vary beta=-1", "--beta -1.0 is not allowed; it should be greater than or equal to 0"),
        ("--vary pooling=average,avrage", "--pooling"),
        ("--vary style-layers=conv9_9", "conv9_9"),
        ("--vary optimizer=adam,lbgfs", "unknown optimizer 'lbgfs'"),
        ("--seeds 0", "--seeds is a number from 1 on"),
        ("--workers -1", "--workers and --threads are numbers from 1 on"),
        ("--workers 2 --cluster tcp://127.0.0.1:1", "use one of them"),
        ("--tls-ca ca.pem", "are for a --cluster"),
        ("--checkpoint-every -1", "--checkpoint-every must be seconds"),
        ("--cluster nonsense://", "--cluster nonsense:// cannot be used"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    studio: Path, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert swept(*words.split()) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (studio / "sweep").exists()


@pytest.mark.usefixtures("studio")
def test_a_varied_option_is_refused_as_its_flag_is(capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("beta", "much"), ("levels", "0"), ("color", "blue"), ("padding", "none")):
        assert main(("transfer", "photo.png", "painting.png", f"--{name}", value)) == 2
        by_flag = capsys.readouterr().err.replace("impasto transfer --help", "impasto sweep --help")
        assert swept("--vary", f"{name}={value}") == 2
        assert capsys.readouterr().err == by_flag


def test_a_failed_run_is_told_of_at_the_end(
    studio: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.carry_out

    def failing(recipe: Recipe, *rest: Any, **more: Any) -> runs.Result:
        if recipe.beta == 2:
            raise MemoryError
        return real(recipe, *rest, **more)

    monkeypatch.setattr(runs, "carry_out", failing)
    assert swept("--vary", "beta=1,2") == 70
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "2 of 2: beta = 2 failed: MemoryError",
        "impasto: 1 of 2 runs failed, as said above; the same command tries them again",
    ]
    assert (studio / "sweep" / "index.html").exists()


def test_studies_are_listed_without_torch() -> None:
    script = "import sys; from impasto.__main__ import main; main(['study', 'list'])"
    script += "; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *studies, torch = said.stdout.splitlines()
    assert torch == "False"
    assert studies[0].startswith("figure-1 ")


def test_the_command_carries_out_studies(studio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--size", "64", "--iterations-scale", "0.004", "--threads", "1", "-o", "out")
    assert main(("study", "figure-8", *words)) == 0
    assert (studio / "out" / "figure-8" / "index.html").exists()
    assert main(("study", "figure-9", *words)) == 2
    assert "unknown study 'figure-9'" in capsys.readouterr().err
