"""The built-in pictures: four photographs, and three paintings that the program paints itself.

The photographs are files that scikit-image ships. The paintings are this project's own, so a
demonstration needs neither a network nor anybody's licence. Each is made in three steps:

    strokes    a painter places brush strokes; all lengths are in units of the long side
    render     each stroke is drawn over those before it: its colour, and its paint's thickness
    light      a lamp at the upper left shines across the thickness

Pixels enter only in the second step: at every size it is the same picture.
"""

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto import files
from impasto.errors import InputError, near

__all__ = ["PAINTINGS", "PHOTOS", "painting", "photo", "write"]

PHOTOS: dict[str, str] = {
    "chelsea": "a tabby cat's face",
    "astronaut": "a woman in an orange space suit before a flag",
    "coffee": "a cup of coffee on a wooden table",
    "rocket": "a rocket on its launch pad",
}
"""The photographs by name, each with a one-line description."""

PAINTINGS: dict[str, str] = {
    "swirl": "a night wind over a lake, in long strokes that follow the air",
    "facets": "a mountain village in planes of hot colour between dark seams",
    "dabs": "a water garden in touches of broken colour",
}
"""The paintings by name, each with a one-line description."""

Array = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.float32]
Field = Callable[[Array, Array], Array]
Color = Callable[[Array, Array, np.random.Generator], Array]

_HEIGHT = 0.78125  # of every painting, for a width of 1: 600 for 768
_HAIR = 0.0055  # between two hairs of any brush: a painter's brushes all have the same hair
_FINE = 16  # rows of the bristle table from one hair to the next


def photo(name: str) -> Image.Image:
    """Return a sample photograph in RGB.

    Raises:
        InputError: there is no such photograph, or scikit-image lacks its file.

    Example:
        >>> photo("chelsea").size
        (451, 300)
    """
    _check(name, PHOTOS, "photograph")
    # Asking where the package lies is cheap; importing it takes longer than opening the picture.
    spec = importlib.util.find_spec("skimage")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else Path()
    for path in (folder / f"{name}.png", folder / f"{name}.jpg"):
        if spec and path.is_file():
            with Image.open(path) as image:
                return image.convert("RGB")
    raise InputError(
        f"the photograph {name!r} is missing: it comes with scikit-image's wheel; run "
        "'pip install --force-reinstall scikit-image' or give a picture of your own"
    )


def painting(name: str, long_side: int = 768) -> Image.Image:
    """Paint a sample painting, in RGB: ``long_side`` pixels wide and 25/32 of that high.

    The same bytes every time on one machine; at another size the same picture.

    Raises:
        InputError: there is no such painting, or ``long_side`` is not in 16..8192.

    Example:
        >>> painting("facets", 64).size
        (64, 50)
    """
    _check(name, PAINTINGS, "painting")
    if not 16 <= long_side <= 8192:
        raise InputError(f"a painting {long_side} pixels wide; give a width from 16 to 8192")
    paint, ground = _PAINTERS[name]
    rng = np.random.default_rng(1890)
    canvas = _render(paint(rng), ground, long_side, rng)
    return Image.fromarray((255 * _light(canvas) + 0.5).astype(np.uint8))


def write(folder: Path) -> list[Path]:
    """Write every sample into ``folder`` as ``NAME.png``, and return the files written.

    Raises:
        InputError: the folder cannot be made or written to, the disk is full, or a photograph's file is
            missing.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {str(folder)!r} ({error.strerror}); name a folder "
            "that exists or can be made"
        ) from error
    paths = []
    for name in (*PHOTOS, *PAINTINGS):
        picture = photo(name) if name in PHOTOS else painting(name)
        path = folder / f"{name}.png"
        try:
            with files.atomic_write(path) as file:
                picture.save(file, format="PNG")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from None
        paths.append(path)
    return paths


def _check(name: str, known: Iterable[str], kind: str) -> None:
    if name not in known:
        names = ", ".join(known)
        raise InputError(f"unknown {kind} {name!r}; there are {names}{near(name, known)}")


# --- From strokes to a picture -------------------------------------------------------------------


class _Strokes(NamedTuple):
    """Brush strokes in the order they are laid: n of each, lengths in units of the long side."""

    x: Array
    y: Array
    angle: Array  # radians; clockwise from the right, since y points down
    bend: Array  # curvature, 1 / length
    length: Array
    width: Array
    body: Array  # thickness of the paint / width
    tints: Array  # [n, 2, 3]: a brush holds two colours that its hairs do not quite mix


def _render(strokes: _Strokes, ground: str, long_side: int, rng: np.random.Generator) -> Pixels:
    """Return the canvas ``[H, W, 4]``: red, green and blue in 0..1, and thickness in pixels."""
    canvas = np.zeros((round(_HEIGHT * long_side), long_side, 4), np.float32)
    canvas[..., :3] = _ramp(ground, np.zeros(1))
    bristles = _bristles(rng)
    to_pixels = np.array([long_side, long_side, 1, 1 / long_side, long_side, long_side, 1])
    shapes = np.stack(strokes[:-1], axis=1) * to_pixels
    dips = rng.integers(len(bristles), size=len(shapes))
    tints = strokes.tints.astype(np.float32)
    for shape, dip, pair in zip(shapes.tolist(), dips.tolist(), tints, strict=True):
        _stamp(canvas, shape, pair, bristles, dip, _HAIR * long_side)
    return canvas


def _stamp(
    canvas: Pixels,
    shape: Sequence[float],
    tints: Pixels,
    bristles: Pixels,
    dip: int,
    hair: float,
) -> None:
    """Draw one stroke on the canvas; lengths in pixels, ``dip`` chooses how the hairs are wet."""
    x, y, angle, bend, length, width, body = shape
    cos, sin, half, radius = np.cos(angle), np.sin(angle), length / 2, width / 2
    side = 1.4 * radius + abs(bend) * half**2 / 2
    reach_x, reach_y = abs(cos) * half + abs(sin) * side, abs(sin) * half + abs(cos) * side
    left, top = max(int(x - reach_x) - 1, 0), max(int(y - reach_y) - 1, 0)
    patch = canvas[top : max(int(y + reach_y) + 3, 0), left : max(int(x + reach_x) + 3, 0)]
    dx = np.arange(left, left + patch.shape[1], dtype=np.float32) - np.float32(x)
    dy = np.arange(top, top + patch.shape[0], dtype=np.float32)[:, None] - np.float32(y)
    # Along and across the stroke; an arc as short as a stroke is a parabola.
    u = np.float32(cos) * dx + np.float32(sin) * dy
    v = np.float32(cos) * dy - np.float32(sin) * dx - np.float32(bend / 2) * u * u
    t = u / np.float32(half)
    row = np.floor(v * np.float32(_FINE / hair)).astype(np.intp) + dip
    column = np.clip(32 * t + 32, 0, 63).astype(np.intp)
    paint = bristles[row % len(bristles), column]
    # A round start; at the end the hairs leave the canvas one by one, the dry ones first.
    t += 0.3 * (paint - 0.5) * (t > 0)
    edge = np.float32(radius) * np.sqrt(np.clip(1 - t * t, 0, None)) * (1 - 0.35 * t)
    cover = np.clip(np.minimum(edge, edge - np.abs(v) + 0.5), 0, 1)
    cover *= np.clip(1 - 1.2 * t + 2.6 * paint, 0, 1)
    # The brush pushes paint to its sides, and its hairs leave furrows.
    rim = np.clip(np.abs(v) / (edge + 1), 0, 1) ** 3
    fresh = np.empty_like(patch)
    fresh[..., :3] = tints[0] + np.clip(1.6 * paint - 0.3, 0, 1)[..., None] * (tints[1] - tints[0])
    fresh[..., 3] = body * (width * (0.35 + 0.25 * rim) + 0.9 * hair * paint)
    patch += cover[..., None] * (fresh - patch)


def _bristles(rng: np.random.Generator) -> Pixels:
    """Return ``[_FINE * hairs, 64]`` in 0..1: how wet each hair is, which changes on its way."""
    wet = rng.normal(size=(256, 1)) + 0.5 * rng.normal(size=(256, 8))
    fine = np.asarray(Image.fromarray(wet.astype(np.float32)).resize((64, 256 * _FINE)))
    wetness: Pixels = 1 / (1 + np.exp(-1.8 * fine / fine.std(axis=0)))
    return wetness


def _light(canvas: Pixels) -> Pixels:
    """Return colours ``[H, W, 3]`` in 0..1: paint that rises away from the lamp shines."""
    down, right = np.gradient(canvas[..., 3])
    slope = np.tanh(1.1 * (right + down))[..., None]
    lit: Pixels = canvas[..., :3] * (1 + 0.32 * slope) + 0.10 * np.clip(slope, 0, None) ** 2
    return lit.clip(0, 1)


# --- What every painter needs --------------------------------------------------------------------


def _ramp(stops: str, t: Array) -> Array:
    """Return the colours ``[n, 3]`` found at ``t`` in 0..1 along hexadecimal ``stops``."""
    colors = np.array([list(bytes.fromhex(stop)) for stop in stops.split()]) / 255
    at = np.clip(t, 0, 1) * (len(colors) - 1)
    return np.stack([np.interp(at, np.arange(len(colors)), channel) for channel in colors.T], -1)


def _blend(a: Array, b: Array, weight: Array) -> Array:
    """Return ``a`` where ``weight`` is 0 or less, ``b`` where it is 1 or more."""
    return a + np.clip(weight, 0, 1)[..., None] * (b - a)


def _choose(where: npt.NDArray[np.bool_], a: Array, b: Array) -> Array:
    """Return colour ``a`` where ``where`` holds, else ``b``."""
    return np.where(where[:, None], a, b)


def _along(stream: Field, x: Array, y: Array) -> Array:
    """Return the direction of the level lines of ``stream``: the flow that conserves it."""
    step = 1e-4
    across_x = stream(x + step, y) - stream(x - step, y)
    across_y = stream(x, y + step) - stream(x, y - step)
    return np.arctan2(-across_x, across_y)


def _spread(rng: np.random.Generator, count: int) -> Array:
    """Return ``count`` numbers spread evenly over a little more than 0..1, in no order."""
    return 1.1 * (rng.permutation(count) + rng.random(count)) / count - 0.05


def _scatter(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Return points that cover the canvas and a margin evenly, in no order and on no grid."""
    # Roberts' R2 sequence leaves no holes; the jitter hides that it is a lattice.
    index = rng.permutation(count)
    x, y = index * 0.7548776662466927 % 1, index * 0.5698402909980532 % 1
    jitter = rng.normal(size=(2, count)) * 0.4 / np.sqrt(count)
    return 1.06 * (x + jitter[0]) - 0.03, _HEIGHT * (1.06 * (y + jitter[1]) - 0.03)


def _brush(
    rng: np.random.Generator,
    at: tuple[Array, Array],
    flow: Field,
    color: Color,
    *,
    length: float | Array,
    width: float,
    body: float = 1.0,
    wander: float = 0.12,
    jitter: float = 0.03,
) -> _Strokes:
    """Lay a stroke at each point: along the flow, in the colour there, with a hand's errors."""
    x, y = at
    count = len(x)
    angle = flow(x, y) + wander * rng.normal(size=count)
    length = length * np.exp(0.25 * rng.normal(size=count))
    ahead_x, ahead_y = 0.25 * length * np.cos(angle), 0.25 * length * np.sin(angle)
    turn = flow(x + ahead_x, y + ahead_y) - flow(x - ahead_x, y - ahead_y)
    turn = np.arctan2(np.sin(turn), np.cos(turn))
    width_ = width * np.exp(0.2 * rng.normal(size=count))
    tints = np.stack([color(x, y, rng) for _ in range(2)], axis=1)
    tints = np.clip(tints + jitter * rng.normal(size=tints.shape), 0, 1)
    bend = np.clip(2 * turn, -1.6, 1.6) / length
    return _Strokes(x, y, angle, bend, length, width_, np.full(count, body), tints)


def _layers(*layers: _Strokes) -> _Strokes:
    return _Strokes(*(np.concatenate(parts) for parts in zip(*layers, strict=True)))


# --- The paintings -------------------------------------------------------------------------------


def _swirl(rng: np.random.Generator) -> _Strokes:
    """Air that turns about lamps and eddies; colours, too, are carried along its stream lines."""
    # x, y, radius, and how strongly the air turns, clockwise or not.
    eddies = [(0.66, 0.23, 0.088, -3.0), (0.43, 0.33, 0.058, 3.0)]
    lamps = [(0.20, 0.18, 0.075, 3.2), (0.90, 0.11, 0.032, -3.0), (0.74, 0.06, 0.022, 3.0)]
    lamps += [(0.46, 0.10, 0.030, -3.0), (0.87, 0.36, 0.026, 3.0), (0.07, 0.40, 0.024, -3.0)]
    shore = 0.585

    def hills(x: Array) -> Array:
        return 0.50 + 0.045 * np.sin(5.2 * x + 3.7) + 0.022 * np.sin(13 * x + 2)

    def stream(x: Array, y: Array) -> Array:
        air = y + 0.035 * np.sin(5.5 * x + 9 * y) + 0.02 * np.sin(11 * x - 5 * y + 1)
        for cx, cy, radius, turn in eddies + lamps:
            air = air + turn * radius * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2 / 2)
        land = 1.3 * y - hills(x) + 0.02 * np.sin(20 * x)
        water = y + 0.004 * np.sin(30 * x + 40 * y)
        return np.where(y < hills(x), air, np.where(y < shore, land, water))

    def air(x: Array, y: Array, noise: Array) -> Array:
        line = stream(x, y)
        value = 0.34 + 0.19 * np.sin(52 * line) + 0.10 * np.sin(23 * line + 1) + 0.8 * y**2
        for cx, cy, radius, _ in eddies:
            r = np.hypot(x - cx, y - cy) / radius
            value = value + (0.25 + 0.25 * np.cos(6 * r)) * np.exp(-(r**2))
        color = _ramp("0a0f33 12215f 1b3f93 2f6bb5 6aa2c6 b9cfc0", value + 0.09 * noise)
        streak = np.where((np.sin(31 * line + 2) > 0.8) & (noise > 0), 0.75, 0.0)
        color = _blend(color, _ramp("8f6a2a c99a3c d9b75a", noise), streak)
        glow, halo = np.zeros_like(x), np.zeros_like(x)
        for cx, cy, radius, _ in lamps:
            r = np.hypot(x - cx, y - cy) / radius
            glow = np.maximum(glow, np.exp(-((r / 0.9) ** 2)))
            halo = np.maximum(halo, np.exp(-((r / 2.1) ** 2)) * (0.55 + 0.45 * np.cos(7 * r)))
        color = _blend(color, _ramp("7fa6a0 c9bf72 e8c64e", halo + 0.1 * noise), 1.1 * halo)
        return _blend(color, _ramp("d98a1e f0b428 f8dd6b fff6c9", glow + 0.1 * noise), 2.2 * glow)

    def lake(x: Array, y: Array, noise: Array) -> Array:
        ripple = np.sin(140 * y + 9 * np.sin(6 * x)) + 0.6 * noise
        color = _ramp("080d2b 10245c 1d4a8c 4f86b0 a3bfb4", 0.36 + 0.18 * ripple)
        for cx, _, radius, _ in lamps:
            spread = 0.35 * radius + 0.22 * (y - shore) * (0.4 + 4 * radius)
            shine = np.exp(-(((x - cx) / spread) ** 2)) * np.clip(0.7 + 0.5 * ripple, 0, 1)
            color = _blend(color, _ramp("b8751f eab23a f7e08a", 0.5 + 0.3 * noise), shine)
        return color

    def color(x: Array, y: Array, rng: np.random.Generator) -> Array:
        noise = rng.normal(size=len(x))
        value = 0.33 + 0.2 * np.sin(70 * stream(x, y)) + 0.15 * noise
        land = _ramp("070b1f 0d1f33 163f41 2c5f45 7a7434 b98c35", value)
        ground = _choose(y < shore, land, lake(x, y, noise))
        return _choose(y < hills(x), air(x, y, noise), ground)

    def flow(x: Array, y: Array) -> Array:
        return _along(stream, x, y)

    return _layers(
        _brush(rng, _scatter(rng, 900), flow, color, length=0.11, width=0.034, body=0.5),
        _brush(rng, _scatter(rng, 3600), flow, color, length=0.062, width=0.0135),
        _brush(rng, _scatter(rng, 1500), flow, color, length=0.034, width=0.0085, jitter=0.05),
    )


def _facets(rng: np.random.Generator) -> _Strokes:
    """Lines cut the canvas into planes, each hatched its own way; the seams are drawn dark."""
    sun_x, sun_y = 0.68, 0.19
    # Most lines lie near two diagonals, which gives the picture its rhythm.
    slopes = np.array([0.95, 1.15, 0.85, 1.05, -0.95, -1.2, -0.85, -1.05, -0.7, 0.6, 0.15, -0.1])
    line_x, line_y = _spread(rng, 12), _HEIGHT * (0.35 + 0.5 * _spread(rng, 12))
    hatches = rng.choice([-1.15, -0.8, 0.45, 0.85, 1.3], size=1 << 16)
    values, tilts, kinds = rng.random((3, 1 << 16))

    def zigzag(t: Array) -> Array:
        return 2 * np.abs(t % 1 - 0.5)

    def edges(x: Array, y: Array) -> Array:
        """Return ``[n, 16]``, about the signed distance to each line, of which four are bent."""
        peaks = 0.6 * (y - 0.24 - 0.20 * zigzag(2.3 * x + 0.1) + 0.05 * np.sin(5 * x))
        roofs = 0.6 * (y - 0.50 - 0.07 * zigzag(7 * x + 0.3) + 0.03 * np.sin(9 * x))
        fields = 0.6 * (y - 0.64 - 0.08 * zigzag(5 * x + 0.1))
        disc = np.hypot(x - sun_x, y - sun_y) - 0.085
        lines = (y[:, None] - line_y) * np.cos(slopes) - (x[:, None] - line_x) * np.sin(slopes)
        wave = 0.006 * np.sin(19 * x + 11 * y)
        return np.column_stack([peaks, roofs, fields, disc, lines]) + wave[:, None]

    def plane(x: Array, y: Array) -> npt.NDArray[np.intp]:
        """Return the number of each point's plane: on which side of every line it lies."""
        return (edges(x, y) > 0) @ (1 << np.arange(16))

    def nearest(x: Array, y: Array) -> Array:
        """Return the signed distance to the nearest line."""
        distance = edges(x, y)
        return np.take_along_axis(distance, np.abs(distance).argmin(axis=1)[:, None], axis=1)[:, 0]

    def color(x: Array, y: Array, rng: np.random.Generator) -> Array:
        land, town, field, outside = (edges(x, y)[:, :4] > 0).T
        here = plane(x, y)
        # Every plane runs from light to dark, so that its edges are contrasts.
        tilt = 2 * np.pi * tilts[here]
        across = x * np.cos(tilt) + y * np.sin(tilt)
        shade = values[here] + 0.28 * np.sin(16 * across + 6 * tilt)
        shade = shade + 0.08 * rng.normal(size=len(x))
        r = np.hypot(x - sun_x, y - sun_y)
        dusk = 1.5 * r - 0.35 + 0.12 * np.sin(75 * r) + 0.5 * shade
        sky = _ramp("fff0a8 fbc93d f08a24 dd4f2a b02a4c 6a1f5e", dusk)
        blue = _ramp("140f3d 26258a 2f5fc4 3f9fb8 9fd6c0 7a3f9a", shade)
        red = _ramp("5c0f1f b3202a e8432a f58a33 f9c95a", shade)
        green = _ramp("0b3b34 12695a 2f9d6a a5c64a f0e2a0", shade)
        cool = _choose(kinds[here] < 0.75, green, blue)
        village = _choose(kinds[here] < np.where(field, 0.22, 0.50), red, cool)
        ground = _choose(town | field, village, blue)
        disc = _ramp("fff9d8 ffe98a ffcf4a", 8 * r)
        return _choose(land, ground, _choose(outside, sky, disc))

    def flow(x: Array, y: Array) -> Array:
        around = np.arctan2(x - sun_x, sun_y - y)
        return np.where(edges(x, y)[:, 0] < 0, around, hatches[plane(x, y)])

    def fill(count: int, length: float, width: float, body: float = 1.0) -> _Strokes:
        x, y = _scatter(rng, count)
        # Strokes grow shorter where a seam is near, and so respect it.
        room = np.minimum(length, 0.35 * length + 1.8 * np.abs(nearest(x, y)))
        return _brush(rng, (x, y), flow, color, length=room, width=width, body=body)

    def dark(x: Array, _: Array, rng: np.random.Generator) -> Array:
        return _ramp("0a0818 1a1030 2a0f2a 10203a", rng.random(len(x)))

    def along(x: Array, y: Array) -> Array:
        return _along(nearest, x, y)

    x, y = _scatter(rng, 20000)
    on = np.abs(nearest(x, y)) < 0.0016
    seams = _brush(rng, (x[on], y[on]), along, dark, length=0.05, width=0.0095, wander=0.03)
    return _layers(
        fill(900, 0.10, 0.045, body=0.5), fill(2600, 0.085, 0.021), seams, fill(500, 0.045, 0.012)
    )


def _dabs(rng: np.random.Generator) -> _Strokes:
    """Bushes, their reflections, and islands of lilies: each colour beside its complement."""
    bank = 0.16
    bush_x, bush_y = _spread(rng, 26), bank * (1.05 * rng.random(26) - 0.05)
    bush_r, bush_kind = 0.045 + 0.03 * rng.random(26), rng.random(26)
    # Perspective: the islands grow towards the viewer.
    depth = np.linspace(0, 1, 13) ** 0.9
    leaf_x, leaf_y = _spread(rng, 13), bank + 0.05 + (_HEIGHT - bank - 0.10) * depth
    leaf_w = (0.05 + 0.10 * depth) * (0.7 + 0.6 * rng.random(13))
    leaf_h = leaf_w * (0.22 + 0.12 * depth)

    def within(dx: Array, dy: Array) -> tuple[npt.NDArray[np.intp], Array, Array]:
        """Return which disc each point lies deepest in, and its place there, -1..1 inside."""
        best = (dx**2 + dy**2).argmin(axis=1)
        rows = np.arange(len(best))
        return best, dx[rows, best], dy[rows, best]

    def bushes(x: Array, y: Array, noise: Array) -> Array:
        bush, dx, dy = within((x[:, None] - bush_x) / bush_r, (y[:, None] - bush_y) / bush_r)
        lit = 0.45 - 0.42 * dy - 0.2 * dx + 0.13 * noise
        green = _ramp("231a55 1d3f66 1f6a50 5aa03f b9cc4a f6ea8e", lit)
        warm = _ramp("3a1a5a 7a2f6a c9502f f0963a f9d46a fff0b0", lit)
        return _choose(bush_kind[bush] < 0.22, warm, green)

    def water(x: Array, y: Array, noise: Array, other: Array) -> Array:
        ripple = np.sin(80 * y + 5 * np.sin(4 * x + 2 * y)) + 0.4 * np.sin(190 * y + 20 * x)
        glow = 0.60 - 0.5 * np.abs(x - 0.42) + 0.3 * np.sin(7 * y - 1) + 0.2 * ripple + 0.1 * noise
        sky = _ramp("2a3f9a 4a6cc0 8a8fd8 b57cc8 e88a9c f8b070 fde29a", glow)
        shade = _ramp("15235a 17465f 1f6f66 4a9a58 9fbf5a", 0.4 + 0.2 * ripple + 0.15 * noise)
        # The nearer the water, the more its ripples tear the reflected trunks apart.
        closer = (y - bank) / (_HEIGHT - bank)
        sway = x + 0.008 * ripple + 0.015 * np.sin(17 * y) + 0.012 * other
        trees = np.sin(11 * sway + 0.4) + 0.8 * np.sin(23 * sway + 3 * y) + 0.4 * np.sin(47 * sway)
        torn = 0.3 + trees + 0.9 * closer * (ripple - 1)
        return _blend(sky, shade, 1.2 * torn + 0.2 * noise)

    def lilies(x: Array, y: Array, noise: Array, other: Array) -> tuple[Array, Array]:
        """Return the colour of the islands, and the distance from their middle, 1 at the rim."""
        wave = 0.006 * np.sin(40 * x)
        dx, dy = (x[:, None] - leaf_x) / leaf_w, ((y - wave)[:, None] - leaf_y) / leaf_h
        _, right, low = within(dx, dy)
        r = np.hypot(right, low)
        value = 0.5 - 0.3 * low + 0.2 * np.sin(70 * x + 90 * y) + 0.1 * noise
        leaf = _ramp("1f5560 2f8560 73b552 c3d666 f3eca0", value)
        bloom = _ramp("c22f6b ef6f9c ffc4d0 fffaf0", 0.6 - 0.3 * low + 0.25 * noise)
        clump = np.sin(37 * x + 9) * np.sin(61 * y + 3 * np.sin(20 * x)) > 0.45
        color = _choose(clump & (other < 0.8), bloom, leaf)
        wet = _ramp("141f55 35256f", other)
        return _blend(color, wet, 3.5 * (r - 0.78) + 0.8 * low * (r > 0.7)), r

    def color(x: Array, y: Array, rng: np.random.Generator) -> Array:
        noise, other = rng.normal(size=(2, len(x)))
        lily, r = lilies(x, y, noise, other)
        pond = _choose(r < 1, lily, water(x, y, noise, other))
        color = _choose(y < bank + 0.008 * np.sin(30 * x), bushes(x, y, noise), pond)
        # Broken colour: now and then a touch of the complement, as bright as its neighbours.
        grey = color @ np.array([[0.299], [0.587], [0.114]])
        return _choose(rng.random(len(x)) < 0.07, grey + 0.7 * (grey - color), color)

    def flow(x: Array, y: Array) -> Array:
        foliage = np.sin(25 * x + 30 * y) - 0.9
        return np.where(y < bank, foliage, 0.2 * np.sin(12 * x + 25 * y))

    def dab(count: int, length: float, width: float, wander: float, jitter: float) -> _Strokes:
        at = _scatter(rng, count)
        size = {"length": length, "width": width}
        return _brush(rng, at, flow, color, **size, body=0.7, wander=wander, jitter=jitter)

    return _layers(
        dab(1300, 0.075, 0.028, 0.12, 0.03),
        dab(4200, 0.034, 0.0165, 0.30, 0.04),
        dab(2800, 0.021, 0.0115, 0.40, 0.06),
    )


_PAINTERS: dict[str, tuple[Callable[[np.random.Generator], _Strokes], str]] = {
    "swirl": (_swirl, "1a2348"),
    "facets": (_facets, "5a1f1c"),
    "dabs": (_dabs, "5d7a86"),
}
"""Who paints each painting, and the colour of the priming below."""
