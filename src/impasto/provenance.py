"""How a picture was made, said inside the picture: JSON in an XMP packet.

PNG, JPEG, WebP and TIFF all hold such a packet. In it are recipe and plan, the hashes of all that was
read, versions, and how it ended: no path, no name of a file, no date. What is read back is a stranger's
word: nothing in it is opened or run.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape, unescape

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from impasto import plan as planning
from impasto import weights
from impasto.errors import InputError, shown
from impasto.events import Losses
from impasto.plan import Plan
from impasto.recipe import Recipe
from impasto.schedule import STARTS

__all__ = [
    "INTERRUPTED",
    "End",
    "Made",
    "begun",
    "describe",
    "packed",
    "recipe_of",
    "unpacked",
]

INTERRUPTED = "interrupted"
"""How a run ended that did not end by itself."""

_FILE = "file"
"""Stands for the name of a file of the user's."""

_MOST = 60_000
"""A JPEG holds 64 kB of it."""

_OPENING, _CLOSING = b"<impasto:made>", b"</impasto:made>"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:impasto="urn:impasto:made:1">'
    "{}"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
    '<?xpacket end="r"?>'
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Written:
    """How a picture's file is written, besides its format."""

    bit_depth: Literal[8, 16] = 8
    keep_profile: bool = False
    keep_metadata: bool = False


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class End:
    """How a run ended, and after how much work."""

    reason: str
    iterations: int
    evaluations: int


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Made:
    """How a picture was made.

    ``inputs`` are the SHA-256 of the run's files by role, ``weights`` that of the weights,
    ``conditions`` what its bytes depend on besides; ``losses`` are those of the saved picture, None
    where they were not taken.
    """

    recipe: dict[str, Any]
    plan: dict[str, Any]
    inputs: dict[str, list[str]]
    weights: str
    conditions: dict[str, str]
    written: Written
    end: End | None = None
    losses: Losses | None = None
    schema: Literal[1] = 1
    """The form of all this. Another one is refused, never guessed."""

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.end is not None and self.end.reason != INTERRUPTED

    @property
    def whole(self) -> bool:
        """Whether it did, and its losses were taken too."""
        return self.finished and self.losses is not None

    def is_of(
        self, recipe: Recipe, inputs: Mapping[str, list[str]], sha256: str, written: Written
    ) -> bool:
        """Say whether a run of this recipe, on these files and weights, makes the same picture."""
        mine = {**self.recipe, "memory": recipe.memory}, self.inputs, self.weights, self.written
        return mine == (_nameless(recipe), dict(inputs), sha256, written)

    def ended(self, end: End, losses: Losses | None = None) -> "Made":
        """Return the same with how it ended."""
        return replace(self, end=end, losses=losses)


def begun(
    recipe: Recipe,
    inputs: Mapping[str, list[str]],
    weights_sha256: str,
    plan: Plan,
    conditions: Mapping[str, str],
    written: Written,
) -> Made:
    """Return how a picture is being made; the names of the user's files are left out of the recipe."""
    # How much memory was free is no part of how the picture was made.
    carried = {k: v for k, v in _as_json(planning.as_json(plan)).items() if k not in ("budget", "ample")}
    said = _nameless(recipe)
    return Made(said, carried, dict(inputs), weights_sha256, dict(conditions), written)


def recipe_of(made: Made, init: Path | None = None, own_weights: str = "") -> Recipe:
    """Return the recipe of a picture. Files that it names are not its to choose: they are given.

    Raises:
        InputError: one of them is missing, or the recipe is none of this version.
    """
    fields = dict(made.recipe)
    if init or fields.get("init") not in STARTS:
        fields["init"] = str(_given(init, "--init", "began with a picture"))
    if own_weights or fields.get("weights") not in weights.REGISTRY:
        fields["weights"] = _given(own_weights, "--weights", "was made with weights")
    try:
        return Recipe(**fields)
    except TypeError:
        raise InputError("the picture's recipe is none of this version of impasto") from None


def _given(file: Path | str | None, flag: str, what: str) -> Path | str:
    if not file:
        raise InputError(f"the picture {what} from a file; give it with {flag} FILE")
    return file


def describe(made: Made) -> list[str]:
    """Return in lines how a picture was made: of the recipe, the fields that are not the default.

    Example:
        >>> recipe = Recipe(size=64)
        >>> plan = planning.make(recipe, (48, 64))
        >>> made = begun(recipe, {"content": ["ab"]}, "cd", plan, {}, Written())
        >>> describe(made.ended(End("converged", 9, 11)))[:3]
        ['content   ab', 'weights   cd', 'recipe    size = 64']
    """
    default = _as_json(dataclasses.asdict(Recipe()))
    rows = [(role, digest) for role, several in made.inputs.items() for digest in several]
    rows.append(("weights", made.weights))
    for field, value in made.recipe.items():
        if value != default.get(field):
            rows.append(("recipe", f"{field} = {json.dumps(value)}"))
    plan = planning.from_json(made.plan)
    rows += [("level", level.describe()) for level in (plan.levels if plan else ())]
    rows += made.conditions.items()
    if made.end:
        work = f"{made.end.iterations} iterations, {made.end.evaluations} evaluations"
        rows.append(("ended", f"{made.end.reason} after {work}"))
    if made.losses:
        parts = ((name, getattr(made.losses, name)) for name in ("total", "content", "style", "tv"))
        said = "  ".join(f"{name} {value:.6g}" for name, value in parts)
        rows.append(("losses", f"{said} (of the saved picture)"))
    # A stranger may have written it: nothing in it is an order to the terminal.
    lines = (f"{name:<9} {value}" for name, value in rows)
    return [shown(line) for line in lines]


def _nameless(recipe: Recipe) -> dict[str, Any]:
    said = _as_json(dataclasses.asdict(recipe))
    said["init"] = recipe.init if recipe.init in STARTS else _FILE
    said["weights"] = recipe.weights if recipe.weights in weights.REGISTRY else _FILE
    return said


def _as_json(said: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON would give back: lists for tuples."""
    return json.loads(json.dumps(said))  # type: ignore[no-any-return]


def packed(made: Made) -> bytes:
    """Return the XMP packet that says so; nothing if that would be more than a JPEG holds.

    Reference: ISO 16684-1, "Extensible metadata platform (XMP)".

    Example:
        >>> made = begun(Recipe(), {}, "cd", planning.make(Recipe(), (48, 64)), {}, Written())
        >>> unpacked(packed(made)).weights
        'cd'
    """
    said = json.dumps(dataclasses.asdict(made), separators=(",", ":"))
    packet = _PACKET.format(_OPENING.decode() + escape(said) + _CLOSING.decode()).encode()
    return packet if len(packet) <= _MOST else b""


def unpacked(packet: bytes) -> Made | None:
    """Return what a packet says, or None if it says nothing of this kind, or is damaged.

    Example:
        >>> unpacked(b"<x:xmpmeta>of another program</x:xmpmeta>") is None
        True
    """
    found = re.search(re.escape(_OPENING) + rb"([^<]{2,%d})" % _MOST + re.escape(_CLOSING), packet)
    try:
        return TypeAdapter(Made).validate_json(unescape(found[1].decode())) if found else None
    except (ValidationError, ValueError):
        return None
