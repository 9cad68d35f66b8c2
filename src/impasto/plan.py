"""How a recipe is carried out on this machine: levels, tiles, device, precision, optimiser, memory.

Nothing that is measured may change a picture without standing here: same plan, same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from impasto import devices, memory, preconditioner, schedule, winograd
from impasto.cost import BASE, NO_MASKS, Costs, Masks
from impasto.errors import InputError
from impasto.memory import spoken
from impasto.objective import looks
from impasto.optimize import OPTIMIZERS, pictures_held
from impasto.recipe import Recipe, memory_bytes
from impasto.tiles import WHOLE, Cut

__all__ = ["Forecast", "Level", "Plan", "again", "as_json", "forecast", "from_json", "make"]

Size = tuple[int, int]

_HISTORIES = (20, 10, 5, 3)
"""Shorter memories of L-BFGS, tried in this order where memory is short."""

_SIDES = (4096, 3072, 2048, 1536, 1024, 768, 640, 512, 448, 384, 320, 256, 192, 128, 64, 32, 16)
"""Sides of tiles that are tried."""

_USEFUL = 384
"""Tiles with shorter sides are mostly halo: sooner than that, L-BFGS remembers less."""

_STARTUP = 3.0
"""Seconds to load torch and the weights."""

_PLENTY_FIXED = 7 << 28
"""Bytes that no process needs besides, with all losses at once."""

_PLENTY = 5000
"""Bytes per pixel that no uncut picture needs, but for the optimiser's and the masks'."""

_KEPT = 2
"""How many times what a level needs it may hold, where what is gone is kept (1.7 has been seen)."""

_PLENTY_FOR_REGION = 64 << 20, 64
"""Bytes, and bytes per pixel, that no region needs."""


@dataclass(frozen=True)
class Level:
    """One size (height, width) of the picture: its share of the iterations, and how they are done."""

    size: Size
    iterations: int
    optimizer: str
    history: int
    cut: Cut = WHOLE
    extra: int = 0

    @property
    def held(self) -> int:
        """How many tensors of the picture's size are held: no more pairs than iterations.

        The optimiser's, and ``extra``: the mean of the iterates, the photograph whose colours are kept.
        """
        found = pictures_held(self.optimizer, min(self.history, self.iterations)) + self.extra
        if OPTIMIZERS[self.optimizer].per_pair:  # L-BFGS; a preconditioner of one picture is in it
            found += preconditioner.pictures_held(*self.size) - 1
        return found

    @property
    def making(self) -> int:
        """How many more such tensors are made for a moment, between two evaluations."""
        return OPTIMIZERS[self.optimizer].making

    def recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe as it is carried out on this level."""
        fields = {"optimizer": self.optimizer, "history": self.history}
        return replace(recipe, iterations=self.iterations, **fields)  # type: ignore[arg-type]

    def describe(self) -> str:
        """Say in words how the level is carried out.

        Example:
            >>> Level((384, 512), 33, "lbfgs", 20).describe()
            '512x384 px, 33 iterations, L-BFGS with history 20, whole'
        """
        height, width = self.size
        method = OPTIMIZERS[self.optimizer]
        how = method.title + (f" with history {self.history}" if method.per_pair else "")
        where = "whole"
        if self.cut.tile:
            where = f"tiles up to {self.cut.tile[1]} px, {self.cut.keep} kept"
        where += ", content's features on disk" if self.cut.on_disk else ""
        return f"{width}x{height} px, {self.iterations} iterations, {how}, {where}"


@dataclass(frozen=True)
class Plan:
    """The levels from coarse to fine, and where, in which precision and how they are computed.

    ``budget`` are the bytes that all processes of the run may hold together; they are ``ample`` where
    memory of tensors that are gone may be kept.
    """

    levels: tuple[Level, ...]
    device: torch.device
    precision: torch.dtype
    by_winograd: bool
    budget: int = 0
    ample: bool = True

    @property
    def size(self) -> Size:
        """The finished picture's (height, width)."""
        return self.levels[-1].size

    @property
    def arithmetic(self) -> str:
        """The precision, for people."""
        return str(self.precision).removeprefix("torch.") + " by Winograd" * self.by_winograd


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    said = asdict(plan)
    return {**said, "device": str(plan.device), "precision": str(plan.precision).removeprefix("torch.")}


def from_json(said: Mapping[str, Any]) -> Plan | None:
    """Return the plan that `as_json` gave; None where these values are none, or of another version.

    Example:
        >>> import json
        >>> made = make(Recipe(size=64), (48, 64))
        >>> from_json(json.loads(json.dumps(as_json(made)))) == made
        True
    """

    def level(one: Mapping[str, Any]) -> Level:
        tile, keep, on_disk = one["cut"]
        cut = Cut(None if tile is None else (tile[0], tile[1]), keep, on_disk)
        return Level(**{**one, "size": tuple(one["size"]), "cut": cut})

    try:
        fields = {
            "levels": tuple(map(level, said["levels"])),
            "device": torch.device(said["device"]),
            "precision": devices.DTYPES[said["precision"]],
        }
        return Plan(**{**said, **fields})
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None


def make(
    recipe: Recipe,
    content: Size | None,
    *styles: Size | None,
    ranks: int = 1,
    masks: Masks = NO_MASKS,
    snapshots: bool = False,
) -> Plan:
    """Return the plan for pictures of these sizes (height, width), in ``ranks`` processes.

    The picture has the content's aspect, without a content the first style's. ``masks`` are those of the
    run, as large as they were read; ``snapshots`` says whether steps are saved on the way.

    Raises:
        InputError: the network cannot take that size, the machine has no such device, or the memory
            is too small.
    """
    found = [size for size in styles if size]
    size = _size(recipe, content, found[0] if found else None)
    device = devices.choose_device(recipe.device)
    precision = devices.choose_precision(recipe.precision, device)
    # A precision that was asked for by name is meant to the last bit.
    fast = recipe.precision == "auto" and device.type == "cpu" and precision == torch.float32
    by_winograd = fast and winograd.available()
    auto = recipe.memory == "auto"
    budget = memory.free(device) if auto else memory_bytes(recipe.memory)
    wanted = looks(recipe, content is not None, bool(found))
    costs = Costs(recipe, precision, by_winograd, wanted, masks.regions)
    inputs = _inputs(recipe, size, content, found)
    smallest = schedule.smallest_side(recipe)
    levels: list[Level] = []
    remembered = recipe.color == "content" or masks.remembered > 0
    ample, extra = True, 2 * bool(recipe.average) + remembered
    stages = schedule.levels(recipe, *size, found)
    finished, _ = stages[-1]
    for stage, iterations in reversed(stages):
        schedule.check_sides(*stage, "the picture", smallest)
        for style in schedule.styles_at(recipe, stage, found):
            schedule.check_sides(*style, "a style", smallest)
        # What a search found is refined: another would leave it.
        refine = OPTIMIZERS[recipe.optimizer].refine if stage != stages[0][0] else ""
        level = Level(stage, iterations, refine or recipe.optimizer, recipe.history, extra=extra)
        saved = finished if snapshots else None
        room = _Room(budget, costs, inputs, found, masks, saved, last=not levels, ranks=ranks)
        level = _within(room, level)
        ample = ample and room.may_keep(level)
        levels.append(level)
    return Plan(tuple(reversed(levels)), device, precision, by_winograd, budget, ample)


def _inputs(recipe: Recipe, size: Size, content: Size | None, styles: Sequence[Size]) -> list[Size]:
    """Return the sizes of the pictures that are kept: none is larger than the finished one."""
    pictures = [size] if content else []
    placed = schedule.styles_at(recipe, size, styles)
    pictures += [min(pair, key=math.prod) for pair in zip(styles, placed, strict=True)]
    return pictures if recipe.init in schedule.STARTS else [*pictures, size]


class Forecast(NamedTuple):
    """What a plan is expected to take: the most bytes held at a time, and seconds."""

    memory: int
    seconds: float


def forecast(
    recipe: Recipe,
    plan: Plan,
    content: Size | None,
    *styles: Size | None,
    ranks: int = 1,
    masks: Masks = NO_MASKS,
    snapshots: bool = False,
) -> Forecast:
    """Return what a plan will take: bytes as counted, seconds from a measurement of some seconds.

    The seconds are those of one process.
    """
    most, seconds = 0, _STARTUP
    for level, room in _rooms(recipe, plan, content, styles, ranks, masks, snapshots):
        most = max(most, room.needed(level, level.cut))
        windows = room.costs.windows(level.size, level.cut)
        pace = room.costs.pace(windows.largest, plan.device)
        placed = schedule.styles_at(recipe, level.size, room.styles)
        seconds += room.costs.seconds(level.size, level.iterations, level.cut, placed, pace)
        if room.last:  # the saved picture is read and measured
            seconds += pace[0] * windows.pixels
    return Forecast(most, seconds)


def again(
    recipe: Recipe,
    plan: Plan,
    content: Size | None,
    *styles: Size | None,
    ranks: int = 1,
    masks: Masks = NO_MASKS,
    snapshots: bool = False,
) -> Plan:
    """Return a plan made earlier as it is carried out now: cut smaller where memory is short.

    It is short where a level takes more than the machine has free to the last byte, which is more than
    a plan allows itself: what is free changes from minute to minute, and other cuts change last bits.

    Raises:
        InputError: a level does not fit, however it is cut.
    """
    auto = recipe.memory == "auto"
    budget = memory.available(plan.device) if auto else memory_bytes(recipe.memory)
    levels, ample = [], plan.ample
    for level, room in _rooms(recipe, plan, content, styles, ranks, masks, snapshots):
        room = room._replace(budget=budget)
        if not room.is_ample(level) and room.needed(level, level.cut) > room.budget:
            cuts = sorted(_cuts(room, level), key=lambda cut: cut[1])
            if not cuts:
                needed, free = (spoken(size) for size in (room.needed(level, level.cut), room.budget))
                raise InputError(
                    f"the run takes about {needed} as it began, and may take {free}: free some memory "
                    "or allow more, or begin anew with --fresh"
                )
            level = replace(level, cut=cuts[0][0])
        levels.append(level)
        ample = ample and room.may_keep(level)
    return replace(plan, levels=tuple(levels), ample=ample)


def _rooms(
    recipe: Recipe,
    plan: Plan,
    content: Size | None,
    styles: Sequence[Size | None],
    ranks: int,
    masks: Masks,
    snapshots: bool,
) -> Iterator[tuple[Level, "_Room"]]:
    """Yield the levels of a plan, and the memory for each."""
    found = [size for size in styles if size]
    wanted = looks(recipe, content is not None, bool(found))
    costs = Costs(recipe, plan.precision, plan.by_winograd, wanted, masks.regions)
    inputs = _inputs(recipe, plan.size, content, found)
    saved = plan.size if snapshots else None
    for level in plan.levels:
        last = level is plan.levels[-1]
        yield level, _Room(plan.budget, costs, inputs, found, masks, saved, last, ranks)


def _size(recipe: Recipe, content: Size | None, style: Size | None) -> Size:
    like = content or style
    if like is None:
        raise InputError("nothing to do: give a content or a style picture")
    if recipe.size == "full":
        return like
    if len(recipe.sides) == 1:
        return schedule.fitted(*like, recipe.sides[0])
    if content is not None:
        raise InputError(
            f"--size {recipe.size}: a picture keeps its photograph's aspect; "
            "give the long side alone, e.g. --size 512"
        )
    width, height = recipe.sides
    return height, width


class _Room(NamedTuple):
    """The memory for a level, and what else is in it: pictures and masks as read, styles of any size."""

    budget: int
    costs: Costs
    inputs: list[Size]
    styles: list[Size]
    masks: Masks
    snapshots: Size | None
    last: bool
    ranks: int

    def needed(self, level: Level, cut: Cut) -> int:
        """Return the most bytes that the level takes, cut like this."""
        styles = schedule.styles_at(self.costs.recipe, level.size, self.styles)
        return self.costs.memory(
            level.size,
            level.held,
            level.making,
            cut,
            self.inputs,
            styles,
            self.last,
            self.ranks,
            self.masks,
            self.snapshots,
        )

    def is_ample(self, level: Level, times: int = 1) -> bool:
        """Say whether there is ``times`` what is needed, by an estimate that is never too low."""
        sizes = [
            level.size,
            *self.inputs,
            *schedule.styles_at(self.costs.recipe, level.size, self.styles),
        ]
        area = max(height * width for height, width in sizes)
        fixed, each = (self.masks.regions * plenty for plenty in _PLENTY_FOR_REGION)
        plenty = BASE + _PLENTY_FIXED + fixed + area * (_PLENTY + each + 24 * level.held)
        return self.ranks == 1 and self.budget > times * plenty

    def may_keep(self, level: Level) -> bool:
        """Say whether memory of tensors that are gone may be kept: it may lie around in pieces."""
        if self.is_ample(level, _KEPT):
            return True
        return self.ranks == 1 and _KEPT * self.needed(level, level.cut) <= self.budget


def _within(room: _Room, level: Level) -> Level:
    """Return the level as it is best carried out in the room there is.

    Raises:
        InputError: nothing fits.
    """
    if room.is_ample(level):
        return level
    best: tuple[float, Level] | None = None
    for choice in _choices(level):
        for cut, work in _cuts(room, choice):
            if best is None or work < best[0]:
                best = work, replace(choice, cut=cut)
        if best and (best[1].cut.tile is None or min(best[1].cut.tile) >= _USEFUL):
            break
    if best is None:
        raise InputError(_too_small(room, level))
    return best[1]


def _choices(level: Level) -> Iterator[Level]:
    """Yield the level with ever less to remember from one iteration to the next."""
    yield level
    if level.optimizer == "multistart":
        yield from _choices(replace(level, optimizer="lbfgs"))
    elif level.optimizer == "lbfgs":
        for history in _HISTORIES:
            if history < level.history:
                yield replace(level, history=history)
        yield replace(level, optimizer="adam")


def _cuts(room: _Room, level: Level) -> Iterator[tuple[Cut, float]]:
    """Yield the cuts that fit, with their work: a pixel seen counts 1, taken back 1 more."""
    for on_disk in (False, True):
        for side in (None, *(side for side in _SIDES if side < max(level.size))):
            cut = Cut((side, side) if side else None, 1, on_disk)
            try:
                needed = room.needed(level, cut)
            except InputError:  # circular padding that cannot be cut so
                continue
            if needed > room.budget:
                continue
            windows = room.costs.windows(level.size, cut)
            each = -(-windows.number // room.ranks)
            more = room.needed(level, cut._replace(keep=2)) - needed
            keep = min(each, 1 + (room.budget - needed) // more) if more > 0 else 1
            idle = each * room.ranks / windows.number
            work = windows.pixels * idle * (3 - keep / each) * (1.05 if on_disk else 1)
            yield cut._replace(keep=keep), work


def _too_small(room: _Room, level: Level) -> str:
    """Say that nothing fits, and what would."""
    height, width = level.size
    asked = f"--memory {spoken(room.budget)} is too little for {width}x{height} px"
    side = max(height, width)
    while (side := int(0.95 * side)) >= schedule.smallest_side(room.costs.recipe):
        size = schedule.fitted(height, width, side)
        shrunk = [schedule.fitted(*one, side) for one in room.inputs]
        masks = Masks(*(one and (one[0], *schedule.fitted(*one[1:], side)) for one in room.masks))
        *_, small = _choices(replace(level, size=size))
        saved = size if room.snapshots else None
        smaller = room._replace(inputs=shrunk, masks=masks, snapshots=saved, last=True)
        if min(size) >= schedule.SMALLEST_SIDE and any(_cuts(smaller, small)):
            return f"{asked}; --size {side} would fit"
    return f"{asked}, and for any other size; give more"
