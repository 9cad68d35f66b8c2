"""Many photographs, one recipe: what is there already, what is missing, what fails on its own."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from impasto import images, jobs, replays, resume, weights
from impasto.errors import ImpastoError, InputError, Interrupted
from impasto.files import NAME
from impasto.jobs import Files
from impasto.recipe import Recipe
from impasto.runs import Result
from impasto.transfer import Shared
from impasto.watch import snapshot_of

__all__ = ["carry_out", "split"]


def split(files: Files) -> list[Files]:
    """Return the files of a run for each photograph that the content's pattern matches, by name.

    What was written beside them earlier is no photograph, though the pattern may match it.

    Raises:
        InputError: nothing matches, two pictures would have one name, or one that of a photograph.
    """
    found = [Path(name) for name in sorted(_matches(files.content))]
    found = [path for path in found if path.is_file()]
    if not found:
        raise InputError(f"no file matches {files.content}; put the pattern in quotes, as '*.jpg'")
    for path in (files.out, files.log):
        if path and NAME not in path.name:
            raise InputError(f"{path} would be written by each of {len(found)}; put {NAME} in its name")
    by_out: dict[Path, Files] = {}
    targets = {_named(files.out, path) for path in found}
    for path in found:
        if (path in targets or snapshot_of(path) in targets) and jobs.told(path):
            continue
        out = _named(files.out, path)
        job = replace(files, content=path, out=out, log=files.log and _named(files.log, path))
        if out in by_out:
            raise InputError(f"{by_out[out].content} and {path} would both be {out}; rename one")
        if path in targets:
            raise InputError(f"{path} would be replaced by a picture; write into another folder")
        by_out[out] = job
    if not by_out:
        raise InputError(f"{files.content} matches nothing but pictures that were made by it before")
    return list(by_out.values())


def _matches(pattern: Path | None) -> list[str]:
    return glob.glob(str(pattern), recursive=True)  # noqa: PTH207 (a pattern may begin at the root)


def _named(template: Path, content: Path) -> Path:
    return template.with_name(template.name.replace(NAME, content.stem))


def carry_out(
    several: Sequence[Files],
    one: Callable[[Files, Shared], Result],
    recipe: Recipe,
    say: Callable[[str], object],
    fresh: bool = False,
) -> None:
    """Carry out ``one`` run after the other, but for those whose picture is there; ``say`` how it goes.

    A run that fails is told of and passed over. Network and styles are shared by all.

    Raises:
        Interrupted: as a run; the pictures before it are whole.
        ImpastoError: some failed; of the kind of the first.
    """
    # What all have in common is wrong once, not for each.
    images.check_suffix(several[0].out, several[0].bit_depth)
    weights.verify(recipe.weights, recipe.weights_sha256 or None)
    resume.digests({"styles": several[0].styles})
    shared, failed = Shared(), dict[Path, ImpastoError]()
    for number, files in enumerate(several, start=1):
        assert files.content is not None
        which = f"{number} of {len(several)}: {files.out}"
        try:
            if not fresh and replays.is_made(recipe, files):
                say(f"{which} is there")
                continue
            say(f"{which} from {files.content}")
            one(files, shared)
        except Interrupted:
            raise
        except ImpastoError as error:
            failed[files.content] = error
            say(f"{which} is passed over: {error}")
    if failed:
        first = next(iter(failed.values()))
        names = ", ".join(map(str, failed))
        told = f"{len(failed)} of {len(several)} pictures not made, from {names}"
        raise type(first)(f"{told}; the same command tries again")
