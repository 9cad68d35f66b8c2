"""Words -> recipe -> run. Flags are derived from `Recipe` and the commands' own fields."""

import argparse
import contextlib
import dataclasses
import functools
import inspect
import io
import itertools
import json
import math
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg

from impasto import BEGAN
from impasto.catalog import COMMANDS, OPTIMIZERS, PRESETS, STYLE_LOSSES
from impasto.errors import DifferError, InputError, Interrupted, RunError, near, shown
from impasto.files import NAME, is_pattern
from impasto.recipe import Recipe, read_toml

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from rich.console import Console

    from impasto import runs
    from impasto.parallel import Team
    from impasto.prepare import Rehearsal
    from impasto.transfer import Shared
    from impasto.watch import Watcher

__all__ = ["run"]

Picture = Annotated[Path, arg(metavar="FILE")]
MaybeFile = Annotated[Path | None, arg(metavar="FILE")]
Masks = Annotated[tuple[Path, ...], arg(metavar="FILE [FILE ...]")]
Out = Annotated[Path | None, arg(metavar="FILE", aliases=["-o"])]
Preset = Annotated[str, arg(metavar="NAME")]
Flag = FlagCreatePairsOff[bool]
"""A flag without its opposite; those of the recipe have one, which a recipe file may make needed."""

_PRESETS = "\n".join(["presets:", *(f"  {name:<8} {preset.help}" for name, preset in PRESETS.items())])
_LOSSES = "\n".join(["style losses:", *(f"  {name:<20} {line}" for name, line in STYLE_LOSSES.items())])
_OPTIMIZERS = "\n".join(["optimizers:", *(f"  {name:<20} {line}" for name, line in OPTIMIZERS.items())])
_PRECEDENCE = "A flag wins over the recipe file, the recipe file over the preset."


@dataclass(frozen=True, kw_only=True)
class _Descent:
    """The flags of every command that makes a picture."""

    recipe: OmitArgPrefixes[Recipe]
    preset: Preset = "default"
    """A named recipe to begin with; they are listed above."""
    recipe_file: Annotated[Path | None, arg(name="recipe", metavar="FILE.toml")] = None
    """A recipe file: the options below as TOML keys."""
    out: Out = None
    """The picture to write: .png .jpg .webp .tif; an existing one is replaced whole."""
    no_clobber: Flag = False
    """Refuse to replace an existing picture."""
    log: MaybeFile = None
    """Write the losses of every iteration to this CSV file."""
    save_every: Annotated[int, arg(metavar="N")] = 0
    """Also write every N-th picture as OUT.NNNN.png, in OUT's format."""
    timelapse: Annotated[int, arg(metavar="N")] = 0
    """Also write N evenly spaced pictures as OUT-timelapse/0000.png and so on, in OUT's format; an older
    film there is replaced whole."""
    bit_depth: Literal[8, 16] = 8
    """Bits of a colour in what is written; 16 for .png and .tif."""
    checkpoint_every: Annotated[float, arg(metavar="SECONDS")] = 30.0
    """Keep the run's state so often, or less where that takes over 2 % of the time: the same command
    goes on from there."""
    fresh: Flag = False
    """Begin anew, whatever was kept of this run."""
    branch: Annotated[str, arg(metavar="NAME")] = ""
    """Go on from a run of `impasto runs list` with other options: with its whole state if only
    --iterations or --patience differ, else from its picture. Of a finished picture: --init OUT."""
    trust_input: Flag = False
    """Decode pictures without a process of their own that hostile files could do no harm beyond: for
    your own files, some tenths of a second sooner."""
    timings: Flag = False
    """Say at the end how long each stage took."""
    dry_run: Flag = False
    """Print the plan, with the memory and the time that it will take, and stop."""

    def descend(
        self,
        content: Path | None,
        styles: Sequence[Path],
        out: str,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """Carry out the run and say on stderr what was written; ``more`` are further `runs.Files`."""
        _prepare_decoding(self.trust_input)
        from impasto import batch, images, optimize, parallel, prepare, replays, runs

        optimize.spare_compiler()
        if self.save_every < 0:
            raise InputError("--save-every is negative; give a number of iterations, or 0")
        if self.timelapse < 0 or self.timelapse == 1 or self.timelapse > 9999:
            raise InputError("--timelapse is the number of pictures, 2 to 9999, or 0 for none")
        if not 0 <= self.checkpoint_every < math.inf:
            raise InputError("--checkpoint-every must be seconds from 0 on, e.g. 30")
        named = (self.recipe_file, Path(self.recipe.weights))
        files = runs.Files(
            content=content,
            styles=tuple(styles),
            out=self.out or Path(out),
            log=self.log,
            no_clobber=self.no_clobber,
            save_every=self.save_every,
            timelapse=self.timelapse,
            bit_depth=self.bit_depth,
            others=tuple(path for path in named if path and path.is_file()),
            **more,
        )
        console = _console()
        with contextlib.ExitStack() as stack:
            team = parallel.join()
            stack.callback(team.leave)
            stack.enter_context(images.trusted(self.trust_input))
            many = content is not None and is_pattern(content)
            if not many and any(NAME in path.name for path in (files.out, self.log) if path):
                raise InputError(f"{NAME} is for many photographs; give a pattern in quotes, as '*.jpg'")
            if many:
                if self.branch:
                    raise InputError("--branch goes on from one run; name one photograph")
                if team.size > 1:
                    raise InputError("many photographs are not for torchrun; start it for each of them")
                several = batch.split(files)
                if not self.dry_run:
                    batch.carry_out(several, self._one, self.recipe, _saying(console), self.fresh)
                    return
                for job in several:
                    state = "is there" if replays.is_made(self.recipe, job) else f"from {job.content}"
                    _print(f"{job.out} {state}")
                files = several[0]
            if self.dry_run:
                if team.leads:
                    _print_plan(prepare.rehearse(self.recipe, files, team, self.fresh, self.branch))
            elif team.leads:
                self._one(files, team=team)
            else:
                runs.assist(team)

    def _one(
        self, files: "runs.Files", shared: "Shared | None" = None, team: "Team | None" = None
    ) -> "runs.Result":
        """Carry out a run, and say on stderr how it goes and what was written."""
        from impasto import parallel, runs, watch

        console = _console()
        with contextlib.ExitStack() as stack:
            watchers = [stack.enter_context(watch.progress(console))]
            if files.log:
                watchers.append(stack.enter_context(watch.loss_log(files.log)))
            if self.timings:
                began = None if shared and shared.in_use else BEGAN
                watchers.append(stack.enter_context(watch.timings(console, began)))
            result = runs.carry_out(
                self.recipe,
                files,
                watchers,
                team or parallel.ALONE,
                self.checkpoint_every,
                self.fresh,
                shared=shared,
                branch=self.branch,
            )
        _saying(console)(
            f"wrote {result.path}: {watch.summary(result.losses)} (of the saved picture); "
            f"{result.reason} after {result.iterations} iterations, "
            f"{result.evaluations} evaluations, {result.seconds:.0f} s"
        )
        return result


def _console() -> "Console":
    """Return the terminal's stderr; what a name looks like is not what it is."""
    from rich.console import Console

    return Console(stderr=True, emoji=False)


def _saying(console: "Console") -> Callable[[str], None]:
    """Return what prints a line as it is."""
    return lambda line: console.print(shown(line), highlight=False, soft_wrap=True, markup=False)


@dataclass(frozen=True, kw_only=True)
class _OfPhotograph(_Descent):
    """The flags of the commands that make a picture of a photograph."""

    keep_profile: Flag = False
    """Write in the photograph's own colour profile, not in sRGB."""
    keep_metadata: Flag = False
    """Also keep where the photograph was taken; its other EXIF data are kept anyway."""

    @property
    def kept(self) -> dict[str, bool]:
        """What is kept of the photograph's file, as fields of `runs.Files`."""
        return {"keep_profile": self.keep_profile, "keep_metadata": self.keep_metadata}


@dataclass(frozen=True, kw_only=True)
class Transfer(_OfPhotograph):
    """Paint a photograph in the manner of one or several paintings."""

    content: Positional[Annotated[Path, arg(metavar="CONTENT")]]
    """The photograph; or a pattern in quotes, as 'photos/*.jpg', for many of them: then {name} in OUT
    stands for each one's name, and those that are there already are passed over."""
    styles: Positional[Annotated[tuple[Path, ...], arg(metavar="STYLE [STYLE ...]")]]
    """The paintings, or styles that were learned of them; --style-weights mixes several. OUT defaults
    to CONTENT-STYLE.png."""
    content_mask: Masks = ()
    """Regions of the photograph, the i-th painted by the i-th STYLE: a picture of flat colours (a
    palette's in its order, others from dark to bright), or several grey ones, a weight each."""
    style_mask: Masks = ()
    """Regions of a single STYLE, the i-th for the i-th of --content-mask."""
    keep: MaybeFile = None
    """A grey picture: where it is white the photograph stays as it is."""
    strength_map: MaybeFile = None
    """A grey picture: how much of the finished picture lies over the photograph."""

    def __call__(self) -> None:
        if not self.styles:
            raise InputError("STYLE is missing; usage: impasto transfer CONTENT STYLE [STYLE ...]")
        self.descend(
            self.content,
            self.styles,
            "-".join((_name(self.content), *(style.stem for style in self.styles))) + ".png",
            content_mask=self.content_mask,
            style_mask=self.style_mask,
            keep=self.keep,
            strength_map=self.strength_map,
            **self.kept,
        )


def _name(content: Path) -> str:
    """Return what names the picture of a photograph, or of each photograph of a pattern."""
    return NAME if is_pattern(content) else content.stem


@dataclass(frozen=True, kw_only=True)
class Texture(_Descent):
    """Style reconstruction: a painting's manner, from noise, without a photograph."""

    styles: Positional[Annotated[tuple[Path, ...], arg(metavar="STYLE [STYLE ...]")]]
    """The paintings, or styles that were learned of them. OUT defaults to STYLE-texture.png."""

    def __call__(self) -> None:
        if not self.styles:
            raise InputError("STYLE is missing; usage: impasto texture STYLE [STYLE ...]")
        names = "-".join(style.stem for style in self.styles)
        self.descend(None, self.styles, f"{names}-texture.png")


@dataclass(frozen=True, kw_only=True)
class Reconstruct(_OfPhotograph):
    """Content reconstruction: what the content layers keep of a photograph, from noise."""

    content: Positional[Annotated[Path, arg(metavar="CONTENT")]]
    """The photograph. OUT defaults to CONTENT-reconstruction.png."""

    def __call__(self) -> None:
        self.descend(self.content, (), f"{_name(self.content)}-reconstruction.png", **self.kept)


@dataclass(frozen=True, kw_only=True)
class _Many:
    """The flags of the commands that make many pictures: where, and in how many threads each."""

    workers: Annotated[int, arg(metavar="N")] = 0
    """Compute in so many processes on this machine, which share its cores; all is on loopback."""
    cluster: Annotated[str, arg(metavar="ADDRESS")] = ""
    """Compute on a Dask cluster, e.g. tls://host:8786."""
    tls_ca: MaybeFile = None
    """The certificate of the authority that a cluster's certificates are signed by."""
    tls_cert: MaybeFile = None
    """The certificate to show to a cluster."""
    tls_key: MaybeFile = None
    """Its key."""
    threads: Annotated[int, arg(metavar="N")] = 0
    """Threads of each run: the same number gives the same bytes, wherever. Without it the machine's
    cores, shared out among --workers; on a --cluster what its workers have."""

    @contextlib.contextmanager
    def executor(self) -> "Iterator[Executor | None]":
        """Start, or connect to, what computes; nothing is started where that is this process."""
        import torch

        from impasto import clusters

        if self.workers < 0 or self.threads < 0:
            raise InputError("--workers and --threads are numbers from 1 on")
        if self.workers and self.cluster:
            raise InputError("--workers are of this machine, --cluster of others; use one of them")
        if any((self.tls_ca, self.tls_cert, self.tls_key)) and not self.cluster:
            raise InputError("--tls-ca, --tls-cert and --tls-key are for a --cluster")
        if self.cluster:
            tls = clusters.TLS(self.tls_ca, self.tls_cert, self.tls_key)
            with clusters.connected(self.cluster, tls) as executor:
                yield executor
        elif self.workers:
            with clusters.local(self.workers, self.threads_each or 1) as executor:
                yield executor
        else:
            torch.set_num_threads(self.threads_each or 1)
            yield None

    @contextlib.contextmanager
    def watched(
        self, executor: "Executor | None"
    ) -> "Iterator[tuple[list[Watcher], Callable[[str], None]]]":
        """Show on a terminal how far a run is that is carried out here; give what says a line too."""
        from impasto import watch

        console = _console()
        if executor is None and console.is_terminal:
            with watch.progress(console) as watcher:
                yield [watcher], _saying(console)
        else:
            yield [], _saying(console)

    @property
    def threads_each(self) -> int | None:
        """Threads of each run; None where that is for others to say."""
        import torch

        if self.threads or self.cluster:
            return self.threads or None
        return max(1, torch.get_num_threads() // max(1, self.workers))


@dataclass(frozen=True, kw_only=True)
class Sweep(_Many):
    """Many runs of one photograph: every combination of the values of some options.

    Each run is the one that transfer makes with these options. What is there is not made again, so that
    the same command goes on where it was stopped, and one with more values makes those alone.
    """

    recipe: OmitArgPrefixes[Recipe]
    content: Positional[Annotated[Path, arg(metavar="CONTENT")]]
    """The photograph."""
    styles: Positional[Annotated[tuple[Path, ...], arg(metavar="STYLE [STYLE ...]")]]
    """The paintings, or styles that were learned of them."""
    vary: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="NAME=VALUE,VALUE")]] = ()
    """An option below and its values, e.g. beta=1e2,1e3 or 'style-layers=conv1_1,conv1_1 conv2_1'; once
    more for another option. The first one makes the columns of the sheet."""
    seeds: Annotated[int, arg(metavar="N")] = 1
    """Carry out each with so many seeds, from --seed on."""
    preset: Preset = "default"
    """A named recipe to begin with; they are listed above."""
    recipe_file: Annotated[Path | None, arg(name="recipe", metavar="FILE.toml")] = None
    """A recipe file: the options below as TOML keys."""
    out: Annotated[Path, arg(metavar="DIR", aliases=["-o"])] = Path("sweep")
    """The folder to write to; it is made if need be."""
    checkpoint_every: Annotated[float, arg(metavar="SECONDS")] = 30.0
    """Keep each run's state so often."""

    def carry_out(
        self, words: Sequence[str], combinations: "Sequence[tuple[list[str], Recipe]]"
    ) -> None:
        """Carry out the recipe of every combination, with every seed; ``words`` are the command's.

        A combination is what is varied in it, in words: the first one makes the columns.
        """
        _prepare_decoding(trust_input=False)
        from impasto import results, sheets, studies, sweep

        if not self.styles:
            raise InputError("STYLE is missing; usage: impasto sweep CONTENT STYLE [STYLE ...]")
        if self.seeds < 1:
            raise InputError("--seeds is a number from 1 on")
        if not 0 <= self.checkpoint_every < math.inf:
            raise InputError("--checkpoint-every must be seconds from 0 on, e.g. 30")
        sheets.check()
        cells = []
        for varied, recipe in combinations:
            for seed in range(recipe.seed, recipe.seed + self.seeds):
                label = [*varied, *([f"seed {seed}"] if self.seeds > 1 else [])]
                column, *rows = label or ["the picture"]
                cells.append(
                    sweep.Cell(
                        ", ".join(rows),
                        column,
                        dataclasses.replace(recipe, seed=seed),
                        self.content,
                        self.styles,
                    )
                )
        styles = " and ".join(style.stem for style in self.styles)
        study = results.Study(
            name="sweep",
            title=shown(f"{self.content.stem} in the manner of {styles}"),
            command=shlex.join(["impasto", "sweep", *_shareable(words)]),
            note=_measured_apart([cell.recipe for cell in cells]),
        )
        outcomes: list[sweep.Outcome] = []
        try:
            with self.executor() as executor, self.watched(executor) as (watchers, say):
                for outcome in sweep.carry_out(
                    cells, self.out, executor, watchers, self.checkpoint_every, self.threads_each
                ):
                    outcomes.append(outcome)
                    say(f"{len(outcomes)} of {len(cells)}: {outcome.told}")
        except (KeyboardInterrupt, Interrupted) as interruption:
            number = getattr(interruption, "exit_code", 128 + signal.SIGINT) - 128
            done = f"{sum(not one.error for one in outcomes)} of {len(cells)} runs are whole"
            raise Interrupted(number, f"interrupted; {done}; the same command goes on") from None
        _print(f"wrote {studies.present(study, cells, outcomes, self.out)}")
        if failed := [one for one in outcomes if one.error]:
            codes = {one.exit_code for one in failed}
            kind = InputError if codes == {InputError.exit_code} else RunError
            said = f"{len(failed)} of {len(cells)} runs failed, as said above"
            raise kind(f"{said}; the same command tries them again")


@dataclass(frozen=True, kw_only=True)
class Study(_Many):
    """The figures of the report and what its conclusion asks for: pictures, sheets, curves, pages.

    What is there is not made again: the same command goes on where it was stopped.
    """

    names: Positional[Annotated[tuple[str, ...], arg(metavar="list|all|ID [ID ...]")]]
    """list tells the studies; all is all of them."""
    pictures: Annotated[Path | None, arg(metavar="DIR")] = None
    """The folder of the report's pictures; without it, built-in samples stand in."""
    size: Annotated[int, arg(metavar="N")] = 256
    """Long side of the pictures, in pixels."""
    out: Annotated[Path, arg(metavar="DIR", aliases=["-o"])] = Path("studies")
    """The folder to write to; it is made if need be."""
    iterations_scale: Annotated[float, arg(metavar="S")] = 1.0
    """Carry out so much of the iterations: 0.2 for a first look."""
    checkpoint_every: Annotated[float, arg(metavar="SECONDS")] = 30.0
    """Keep each run's state so often."""

    def __call__(self) -> None:
        from impasto import studies

        if self.names == ("list",):
            for name, line in studies.STUDIES.items():
                _print(f"{name:<12} {line}")
            return
        names = studies.choose(self.names)
        _prepare_decoding(trust_input=False)
        ready = studies.prepared(names, self.pictures, self.size, self.out, self.iterations_scale)
        with self.executor() as executor, self.watched(executor) as (watchers, say):
            studies.carry_out(
                ready,
                self.out,
                executor,
                say,
                watchers=watchers,
                every=self.checkpoint_every,
                threads=self.threads_each,
            )


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Losses and measures of a finished picture, of any tool, under a recipe: at its own size."""

    recipe: OmitArgPrefixes[Recipe]
    picture: Positional[Annotated[Path, arg(metavar="PICTURE")]]
    """The picture to measure."""
    content: MaybeFile = None
    """The photograph it was made from."""
    style: Annotated[tuple[Path, ...], arg(metavar="FILE [FILE ...]")] = ()
    """The paintings it was made from, or styles that were learned of them."""
    preset: Preset = "default"
    """A named recipe to begin with; report is equations 1 to 5 with alpha 1e-3."""
    recipe_file: Annotated[Path | None, arg(name="recipe", metavar="FILE.toml")] = None
    """A recipe file: the options below as TOML keys."""
    json: Flag = False
    """Print one JSON object: total, content, style, tv, layers, measures."""
    trust_input: Flag = False
    """Decode pictures without a process of their own: for your own files."""

    def __call__(self) -> None:
        if self.content is None and not self.style:
            raise InputError("nothing to measure against; give --content and --style")
        _prepare_decoding(self.trust_input)
        from impasto import images, measures, quality, styles

        self.recipe.weight_of_styles(max(1, len(self.style)))

        look = functools.partial(images.read, transparency=self.recipe.transparency)

        def read(style: Path) -> Any:  # noqa: ANN401 (a picture or a learned style)
            return styles.load(style) if style.suffix == styles.SUFFIX else look(style)

        with images.trusted(self.trust_input):
            picture = look(self.picture)
            content = look(self.content) if self.content else None
            paintings = [read(style) for style in self.style]
        found = measures.measure(self.recipe, picture, content, *paintings)
        numbers = dataclasses.asdict(found.losses)
        layers = {kind: numbers.pop(f"{kind}_layers") for kind in ("content", "style")}
        size = {"width": picture.shape[2], "height": picture.shape[1]}
        if self.json:
            everything = {**numbers, "layers": layers, "measures": found.measures, **size}
            _print_json(everything)
            return
        for name, value in numbers.items():
            _print(f"{name:<20} {value:.6g}")
        for kind, values in layers.items():
            for name, value in values.items():
                _print(f"  {kind} {name:<13} {value:.6g}")
        _print("measures")
        for name, value in found.measures.items():
            _print(f"  {name:<18} {value:<12.6g} {quality.MEASURES[name].better} is better")


@dataclass(frozen=True, kw_only=True)
class Show:
    """Say how a picture was made: PNG, JPEG, WebP and TIFF files of impasto carry it."""

    picture: Positional[Annotated[Path, arg(metavar="PICTURE")]]
    """The picture."""
    json: Flag = False
    """Print one JSON object: recipe, plan, inputs, weights, conditions, written, end, losses."""

    def __call__(self) -> None:
        _prepare_decoding(trust_input=False)
        from impasto import jobs, provenance

        made = jobs.story_of(self.picture)
        if self.json:
            _print_json(dataclasses.asdict(made))
        else:
            for line in provenance.describe(made):
                _print(line)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Make a picture again from the files it was made from, and compare: exit status 1 if it differs.

    Recipe and plan stand in the picture. On the same machine and versions every pixel agrees.
    """

    picture: Positional[Annotated[Path, arg(metavar="PICTURE")]]
    """The picture that was made."""
    content: MaybeFile = None
    """Its photograph."""
    style: Annotated[tuple[Path, ...], arg(metavar="FILE [FILE ...]")] = ()
    """Its paintings, in their order, or styles that were learned of them."""
    init: MaybeFile = None
    """The picture it began with, if there was one."""
    weights: Annotated[str, arg(metavar="FILE")] = ""
    """Its weights, where they are a file of one's own."""
    content_mask: Masks = ()
    """The masks of its regions."""
    style_mask: Masks = ()
    """The masks of its style's regions."""
    keep: MaybeFile = None
    """The mask of what stayed as it was."""
    strength_map: MaybeFile = None
    """How much of the finished picture lies over the photograph."""
    out: Out = None
    """The picture to write; PICTURE-replay with PICTURE's suffix if not given."""
    no_clobber: Flag = False
    """Refuse to replace an existing picture."""

    def __call__(self) -> None:
        _prepare_decoding(trust_input=False)
        from impasto import replays, runs, watch

        out = self.out or self.picture.with_name(f"{self.picture.stem}-replay{self.picture.suffix}")
        others = (self.picture, Path(self.weights)) if self.weights else (self.picture,)
        files = runs.Files(
            content=self.content,
            styles=self.style,
            out=out,
            no_clobber=self.no_clobber,
            others=others,
            content_mask=self.content_mask,
            style_mask=self.style_mask,
            keep=self.keep,
            strength_map=self.strength_map,
        )
        with watch.progress(_console()) as watcher:
            found = replays.replay(self.picture, files, self.init, self.weights, [watcher])
        if found.share:
            why = f"; {found.conditions}" if found.conditions else ""
            raise DifferError(
                f"{out} differs from {self.picture}: {found.share:.2%} of the pixels, "
                f"by up to {255 * found.most:.2g} of 255{why}"
            )
        _print(f"wrote {out}: every pixel agrees with {self.picture}")


@dataclass(frozen=True, kw_only=True)
class StyleCommand:
    """Learn a painting's style: its summaries for these layers, losses and sizes, in one file.

    The file stands wherever a STYLE does, under the same --weights, --pooling and --padding. Moments
    are always stored, which serve gram, covariance, mmd-linear, mmd-poly, bn, gram-mean-std and
    wasserstein; name the --style-loss to store what another one needs.
    """

    recipe: OmitArgPrefixes[Recipe]
    action: Positional[Literal["learn"]]
    """What to do."""
    painting: Positional[Annotated[Path, arg(metavar="PAINTING")]]
    """The painting."""
    preset: Preset = "default"
    """A named recipe to begin with."""
    recipe_file: Annotated[Path | None, arg(name="recipe", metavar="FILE.toml")] = None
    """A recipe file: the options below as TOML keys."""
    out: Out = None
    """The file to write; PAINTING.safetensors if not given."""
    no_clobber: Flag = False
    """Refuse to replace an existing file."""
    trust_input: Flag = False
    """Decode the painting without a process of its own: for your own files."""

    def __call__(self) -> None:
        _prepare_decoding(self.trust_input)
        from impasto import images, runs

        out = self.out or Path(f"{self.painting.stem}.safetensors")
        named = (self.recipe_file, Path(self.recipe.weights))
        others = [path for path in named if path and path.is_file()]
        with images.trusted(self.trust_input):
            style = runs.learn(self.recipe, self.painting, out, self.no_clobber, others)
        at = " and ".join(str(max(size)) for size in style.sizes)
        _print(f"wrote {out}: {self.painting.name} at {at} px, {out.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True)
class Samples:
    """Write the built-in photographs and paintings into a folder."""

    folder: Positional[Annotated[Path, arg(metavar="DIR")]]
    """The folder; it is made if need be."""

    def __call__(self) -> None:
        from impasto import samples

        for path in samples.write(self.folder):
            _print(str(path))


@dataclass(frozen=True)
class Demo:
    """Stylise a built-in photograph with a built-in painting; print the picture's path."""

    photo: str = "chelsea"
    """chelsea, astronaut, coffee or rocket."""
    painting: str = "swirl"
    """swirl, facets or dabs."""
    out: Out = None
    """The picture to write; impasto-demo.png if not given."""

    def __call__(self) -> None:
        from impasto import samples

        out = self.out or Path("impasto-demo.png")
        with tempfile.TemporaryDirectory() as folder:
            content, style = Path(folder, "content.png"), Path(folder, "style.png")
            samples.photo(self.photo).save(content)
            samples.painting(self.painting).save(style)
            recipe = Recipe(size=320, iterations=60)
            Transfer(recipe=recipe, content=content, styles=(style,), out=out, trust_input=True)()
        _print(str(out.resolve()))


@dataclass(frozen=True)
class WeightsCommand:
    """List, verify or fetch VGG-19 weights. Nothing is ever downloaded but by fetch."""

    action: Positional[Literal["list", "verify", "fetch"]]
    """What to do."""
    names: Positional[Annotated[tuple[str, ...], arg(metavar="[NAME ...]")]] = ()
    """Names of the list; for verify also files. verify without a name checks all that are here."""

    def __call__(self) -> None:
        from impasto import weights

        if self.action == "list":
            for source in weights.REGISTRY.values():
                path = weights.locate(source.name)
                state = f"here: {path}" if path else "not fetched"
                _print(f"{source.name:<18} {source.about}; {source.credit}; {state}")
        elif self.action == "verify":
            here = [name for name in weights.REGISTRY if weights.locate(name)]
            for name in self.names or here:
                identity = weights.verify(name)
                state = "verified" if identity.verified else "unverified: its hash is not known"
                _print(f"{name}: sha256 {identity.sha256}, {state}")
        else:
            if not self.names:
                raise InputError("weights fetch needs a name; see: impasto weights list")
            for name in self.names:
                _print(str(_fetch(name)))


def _prepare_decoding(trust_input: bool) -> None:
    """Have the process that decodes pictures load what it needs while this one loads torch."""
    if not trust_input and os.environ.get("RANK", "0") == "0":  # other ranks read no files
        from impasto import child

        child.start()


def _fetch(name: str) -> Path:
    from rich.console import Console
    from rich.progress import Progress

    from impasto import weights

    weights.locate(name)  # an unknown name is refused before there is a bar
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"fetching {name}", total=None)
        return weights.fetch(name, lambda done, total: bar.update(task, completed=done, total=total))


@dataclass(frozen=True)
class RunsCommand:
    """List, show or remove what is kept of runs that were stopped: the same command goes on from it."""

    action: Positional[Literal["list", "show", "clean"]]
    """What to do."""
    names: Positional[Annotated[tuple[str, ...], arg(metavar="[NAME ...]")]] = ()
    """Names of the list; clean without a name removes all but what is running."""

    def __call__(self) -> None:
        from impasto import resume

        kept = {run.key: run for run in resume.listing()}
        for name in self.names:
            if name not in kept:
                raise InputError(f"there is no run {name!r}{near(name, kept)}; see: impasto runs list")
        if self.action == "list":
            for run in kept.values():
                _print(run.describe())
        elif self.action == "show":
            if not self.names:
                raise InputError("runs show needs a name; see: impasto runs list")
            for name in self.names:
                _print_json(kept[name].about)
        else:
            for name in resume.clean(list(self.names)):
                _print(f"removed {name}")


@dataclass(frozen=True)
class Info:
    """Say what this machine, these versions and these weights are."""

    def __call__(self) -> None:
        import platform
        from importlib.metadata import version

        import torch

        from impasto import devices, plan, weights

        chosen = plan.make(Recipe(), (64, 64), None)
        rows = {
            "impasto": version("impasto"),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "torch": torch.__version__,
            "pillow": version("pillow"),
            "numpy": version("numpy"),
            "device": f"{chosen.device.type} ({devices.describe(chosen.device)})",
            "precision": chosen.arithmetic,
            "weights": f"{weights.DEFAULT}, {weights.locate(weights.DEFAULT) or 'missing'}",
        }
        for name, value in rows.items():
            _print(f"{name:<10} {value}")


_CLASSES: dict[str, Callable[..., Any]] = {
    "transfer": Transfer,
    "texture": Texture,
    "reconstruct": Reconstruct,
    "measure": Measure,
    "show": Show,
    "replay": Replay,
    "style": StyleCommand,
    "sweep": Sweep,
    "study": Study,
    "demo": Demo,
    "samples": Samples,
    "weights": WeightsCommand,
    "runs": RunsCommand,
    "info": Info,
}

_JOINED = (
    "layer_weights",
    "style_loss_weights",
    "style_mix",
    "color_method",
    "color_strength",
    "patience",
    "average",
)
"""Fields that are right or wrong by what another field says."""

_WITHOUT_CONTENT = {"texture": {"init": "noise"}, "reconstruct": {"init": "noise"}}
"""The start of the commands that reconstruct: from their own picture there is nothing to do."""


def run(name: str, words: Sequence[str]) -> int:
    """Run one command with its words; return the exit status.

    Raises:
        ImpastoError: whatever is wrong, in one line.
    """
    if name == "sweep" and not _asks_help(words):
        _sweep(words)
    else:
        _command(name, words)()
    return 0


def _command(name: str, words: Sequence[str]) -> Any:  # noqa: ANN401
    """Return the command that the words describe."""
    kind = _CLASSES[name]
    description = inspect.cleandoc(f"{kind.__doc__}")
    default, held = None, {}
    if name in ("transfer", "texture", "reconstruct", "measure", "style", "sweep"):
        fields = _before_flags(name, words)
        # A flag may give what a field of a recipe file belongs to: such fields join last.
        given = {word.split("=")[0].replace("_", "-") for word in words}
        held = {key: fields.pop(key) for key in _JOINED if key in fields}
        held = {key: value for key, value in held.items() if "--" + key.replace("_", "-") not in given}
        default = _with_recipe(kind, Recipe(**fields))
        description += f"\n\n{_PRESETS}\n\n{_LOSSES}\n\n{_OPTIMIZERS}\n\n{_PRECEDENCE}"
    command: Any = _parse(kind, name, words, description, default)
    if held:
        command = dataclasses.replace(command, recipe=dataclasses.replace(command.recipe, **held))
    return command


def _asks_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def _sweep(words: Sequence[str]) -> None:
    """Carry out what `transfer` would with each combination of the varied options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--vary", action="append", default=[])
    try:
        known, plain = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name} {error.message}") from None
    varied: dict[str, list[str]] = {}
    for text in known.vary:
        name, values = _values(text)
        if name in varied:
            raise InputError(
                f"--vary {name} is given twice; give all values at once: {name}=VALUE,VALUE"
            )
        varied[name] = values
    flags = {
        word.split("=")[0].replace("_", "-").removeprefix("--no-").removeprefix("--") for word in plain
    }
    seeds = {"seed"} if "seeds" in flags else set()
    if twice := [name for name in varied if name in flags | seeds]:
        other = "seeds" if twice[0] in seeds else twice[0]
        raise InputError(f"--vary {twice[0]} and --{other} contradict each other; leave one of them out")
    commands = []
    for chosen in itertools.product(*varied.values()):
        said = dict(zip(varied, chosen, strict=True))
        more = [word for name, value in said.items() for word in _flag_words(name, value)]
        label = [f"{name} = {_nameless(name, value)}" for name, value in said.items()]
        commands.append((label, _command("sweep", [*plain, *more])))
    commands[0][1].carry_out(words, [(label, command.recipe) for label, command in commands])


def _shareable(words: Sequence[str]) -> list[str]:
    """Return a command's words without its machines, and files by their names alone."""
    apart = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(_Many)} - {"--threads"}
    found, left, option = [], iter(words), ""
    for word in left:
        if not word.startswith("-"):
            found.append(_nameless(option, word))
            continue
        flag, equals, value = word.partition("=")
        option = flag.lstrip("-").replace("_", "-")
        if f"--{option}" in apart:
            if not equals:
                next(left, None)
        else:
            found.append(f"{flag}={_nameless(option, value)}" if equals else flag)
    return found


def _nameless(option: str, value: str) -> str:
    """Return a value of an option with a file by its name alone, as it can be shown.

    Example:
        >>> _nameless("init", "/home/me/start.png"), _nameless("vary", "layer-weights=equal,1/N^2")
        ('start.png', 'layer-weights=equal,1/N^2')
    """
    if option == "vary":
        name, _, values = value.partition("=")
        named = [_nameless(name.replace("_", "-"), one) for one in values.split(",")]
        return f"{name}={','.join(named)}"
    return shown(value if option == "layer-weights" else Path(value).name or value)


def _measured_apart(recipes: "Sequence[Recipe]") -> str:
    """Return a note for a sheet whose runs are measured at different layers; else nothing."""
    from impasto import quality

    if len({(quality.held_out(recipe), recipe.border) for recipe in recipes}) == 1:
        return ""
    return "the runs are measured at different layers or borders: compare such numbers within like runs"


def _values(text: str) -> tuple[str, list[str]]:
    """Return name and values of a --vary.

    Raises:
        InputError: there is no such option, or no value.
    """
    name, _, values = text.partition("=")
    name = name.removeprefix("--").replace("_", "-")
    known = [field.name.replace("_", "-") for field in dataclasses.fields(Recipe)]
    if name not in known:
        raise InputError(
            f"--vary {name}: there is no such option{near(name, known)}; see: impasto sweep --help"
        )
    found = [" ".join(value.split()) for value in values.split(",")]
    if not all(found):
        raise InputError(f"--vary {text}: give NAME=VALUE,VALUE, as --vary beta=1e2,1e3")
    return name, found


def _flag_words(name: str, value: str) -> list[str]:
    """Return the words that give an option a value; what is true or false has a flag for each."""
    if isinstance(getattr(Recipe(), name.replace("-", "_")), bool):
        if value not in ("true", "false"):
            raise InputError(f"--vary {name}={value}: use true or false")
        return ["--" + "no-" * (value == "false") + name]
    return ["--" + name, *([value] if name in ("init", "weights") else value.split())]


def _before_flags(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the fields that preset and recipe file set, for the flags to be laid over."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--recipe", type=Path)
    try:
        known, _ = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name} {error.message}") from None
    fields: dict[str, Any] = {**_WITHOUT_CONTENT.get(name, {})}
    fields |= Recipe.preset_fields(known.preset)
    if known.recipe:
        fields |= read_toml(known.recipe)
    return fields


def _with_recipe(kind: Callable[..., Any], recipe: Recipe) -> Any:  # noqa: ANN401
    """Return a command with this recipe, and nothing else given yet."""
    missing = {
        field.name: tyro.MISSING
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING
    }
    return kind(**{**missing, "recipe": recipe})


def _parse(
    kind: Callable[..., Any],
    name: str,
    words: Sequence[str],
    description: str,
    default: Any,  # noqa: ANN401
) -> Callable[[], None]:
    """Return the command that the words describe; what tyro says goes into one line."""
    if _asks_help(words):
        _parse_with_tyro(kind, name, ["--help"], description, default)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), _wide_terminal():
        try:
            command, unknown = _parse_with_tyro(kind, name, words, description, default)
        except SystemExit:
            # An unknown option takes the words after it along; what tyro then misses is no cause.
            known = _flags(kind)
            options = [word for word in words if word.startswith("--")]
            if unknown := [word for word in options if word.split("=")[0] not in known]:
                raise InputError(_unknown(kind, name, unknown)) from None
            line = _one_line(said.getvalue())
            raise InputError(f"{line}; see: impasto {name} --help") from None
    if unknown:
        raise InputError(_unknown(kind, name, unknown))
    return command  # type: ignore[no-any-return]


def _parse_with_tyro(
    kind: Callable[..., Any],
    name: str,
    words: Sequence[str],
    description: str,
    default: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    return tyro.cli(
        kind,
        prog=f"impasto {name}",
        args=list(words),
        description=description,
        return_unknown_args=True,
        **({} if default is None else {"default": default}),
    )


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    """Keep tyro from breaking a message into lines."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _one_line(box: str) -> str:
    """Return the message inside one of tyro's boxes: from below the title to the next rule."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    body: list[str] = []
    for line in plain.splitlines()[1:]:
        text = line.strip("│ ")
        if re.match("──|--( |-)|╰", text):  # where there is no UTF-8, tyro draws with hyphens
            if body:
                break
        else:
            body.append(text)
    return " ".join(" ".join(body).split()).rstrip(".")


def _unknown(kind: Callable[..., Any], name: str, words: Sequence[str]) -> str:
    option = next((word for word in words if word.startswith("-")), None)
    if option is None:
        return f"{words[0]!r} is one word too many; see: impasto {name} --help"
    hint = near(option.split("=")[0], _flags(kind))
    return f"unknown option {option}{hint or f'; see: impasto {name} --help'}"


def _flags(kind: Callable[..., Any]) -> list[str]:
    """Return the long options of a command."""
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    # Fields without a default are positional, but for the recipe, whose flags stand in its place.
    names = [field.name for field in fields if field.default is not dataclasses.MISSING]
    if any(field.name == "recipe" for field in fields):
        of_recipe = dataclasses.fields(Recipe)
        names += [field.name for field in of_recipe]
        names += ["no_" + field.name for field in of_recipe if field.type is bool]
    return ["--" + field.removesuffix("_file").replace("_", "-") for field in names]


def _print_plan(rehearsal: "Rehearsal") -> None:
    from impasto.memory import spoken

    plan, forecast, kept = rehearsal
    height, width = plan.size
    _print(f"picture  {width}x{height} px, {plan.arithmetic} on {plan.device}")
    for number, level in enumerate(plan.levels, start=1):
        _print(f"level {number}  {level.describe()}")
    _print(f"memory   about {spoken(forecast.memory)} of {spoken(plan.budget)} allowed")
    _print(f"time     about {forecast.seconds:.0f} s")
    if kept is not None:
        _print(f"goes on  from iteration {kept}, which was kept; --fresh begins anew")


def _print(line: str) -> None:
    sys.stdout.write(shown(line) + "\n")


def _print_json(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, indent=2) + "\n")


assert list(_CLASSES) == list(COMMANDS)
