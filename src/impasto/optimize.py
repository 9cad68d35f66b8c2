"""The descent: pixels that move inside the box 0..1, one optimiser step at a time.

An optimiser stands at a picture and takes steps; its state serialises to tensors and JSON scalars,
and a descent continued from it goes on bit for bit (on the CPU).
"""

import copy
import functools
import math
import sys
import zlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from impasto.errors import RunError
from impasto.events import Losses, Step
from impasto.objective import Evaluation
from impasto.preconditioner import Preconditioner
from impasto.recipe import Recipe

__all__ = ["OPTIMIZERS", "Method", "Outcome", "descend", "pictures_held", "spare_compiler"]

Evaluate = Callable[[Tensor], Evaluation]
Make = Callable[[list[Tensor], Recipe], torch.optim.Optimizer]

_FIRST_MOVE = 0.02
"""How far L-BFGS moves the mean pixel in its first step, of the range 0..1.

Without curvature yet, torch's first step is 1 / ||g||_1 long: below what bf16 features can see, and
eight evaluations of line search short of a useful one."""

_LINE_SEARCH = 25
"""The most evaluations that one line search may take."""

_PLATEAU = 0.01
"""A plateau is a fall of the total by less than this share."""

_HALVINGS = 3


class NotFiniteError(Exception):
    """An evaluation gave a loss or gradient that is not finite."""


class StuckError(Exception):
    """No step makes the loss smaller."""


class Optimizer(Protocol):
    """One optimiser over explicit state. Final: implementations share nothing.

    ``picture`` is where it stands, ``losses`` are those of that picture.
    """

    picture: Tensor
    losses: Losses

    def step(self) -> None:
        """Take one step."""

    def back(self) -> None:
        """Return to the last finite picture and halve the step."""

    def state(self) -> dict[str, Any]:
        """Return all that is needed to go on, no copy: the next step may change it."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""


class FirstOrder:
    """One of torch's first-order methods on the pixels themselves, clamped to 0..1 after every step.

    The step is absolute: Adam and its variants at a rate of 0.02 move a pixel by up to 0.02 of its
    range. Gradient descent is ``relative``, for gradients are of any size: its rate is divided by the
    largest mean gradient so far, so that without momentum it never moves the mean pixel further, and
    in the first step just as far as the rate. With velocity v, momentum m and gradients g_1 ... g_k:

        v <- m v + g_k
        x <- clamp(x - rate v / max_j mean|g_j|)

    With a temperature T it is Langevin dynamics: step k of K adds noise, in the last step exactly none,

        T_k = T (1 - k/K)^2
        x <- clamp(x - rate v / max_j mean|g_j| + sqrt(2 rate T_k) noise)

    References: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015); Polyak, "Some Methods
    of Speeding Up the Convergence of Iteration Methods" (1964); Welling and Teh, "Bayesian Learning via
    Stochastic Gradient Langevin Dynamics" (2011).
    """

    def __init__(
        self,
        recipe: Recipe,
        start: Tensor,
        evaluate: Evaluate,
        make: Make,
        relative: bool = False,
        hot: bool = False,
    ) -> None:
        """Stand at ``start``; ``hot`` with the recipe's temperature, else with none."""
        self.evaluate, self.relative = evaluate, relative
        self.temperature = recipe.temperature if hot else 0.0
        self.rate, self.iterations = recipe.learning_rate, recipe.iterations
        self.taken, self.steepest = 0, 0.0
        self.generator = _generator(recipe.seed, "noise")
        self.pixels = start.clone().requires_grad_()
        self.method = make([self.pixels], recipe)
        self._stand_at(start)

    def _stand_at(self, picture: Tensor) -> None:
        found = self.evaluate(picture)
        self.picture, self.losses, self.pixels.grad = picture, found.losses, found.gradient
        if self.relative:
            self.steepest = max(self.steepest, found.gradient.abs().mean().item())

    def step(self) -> None:
        """Move against the gradient, then evaluate there."""
        if self.pixels.grad is None:  # the last evaluation failed
            self._stand_at(self.picture)
        # A picture that was shown is never changed: the pixels move to a copy of it.
        self.pixels.data = self.picture.clone()
        (group,) = self.method.param_groups
        group["lr"] = self.rate / (self.steepest or 1)
        self.method.step()
        with torch.no_grad():
            self._shake()
            self.pixels.clamp_(0, 1)
        self.pixels.grad = None
        self._stand_at(self.pixels.detach())
        self.taken += 1

    def _shake(self) -> None:
        cooled = self.temperature * max(0.0, 1 - (self.taken + 1) / self.iterations) ** 2
        gradient = self.pixels.grad
        if not cooled or gradient is None:
            return
        # Drawn on the CPU, the noise is the same on every device.
        noise = torch.randn(gradient.shape, generator=self.generator, dtype=gradient.dtype)
        noise = noise.to(gradient.device).masked_fill_(gradient == 0, 0)  # such pixels are to stay
        self.pixels.add_(noise, alpha=math.sqrt(2 * self.rate * cooled))

    def back(self) -> None:
        """Halve rate and temperature, so the whole step, and forget the moments."""
        self.rate /= 2
        self.temperature /= 2
        self.method.state.clear()

    def state(self) -> dict[str, Any]:
        """Return the pixels, the method's moments, and what rate and noise have come to."""
        return {
            "pixels": self.picture,
            "moments": dict(self.method.state[self.pixels]),
            "rate": self.rate,
            "steepest": self.steepest,
            "temperature": self.temperature,
            "taken": self.taken,
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        # torch's own way would bring every number to the pixels' precision, and lose bits.
        self.method.state[self.pixels] = copy.deepcopy(state["moments"])
        self.rate, self.steepest = state["rate"], state["steepest"]
        self.temperature, self.taken = state["temperature"], state["taken"]
        self.generator.set_state(state["generator"])
        self._stand_at(state["pixels"])


class LBFGS:
    """torch's L-BFGS with strong-Wolfe line search, on u of pixels x = (1 - cos z) / 2, z = z_0 + A u.

    Reference: Nocedal and Wright, "Numerical Optimization" (2006), chapters 3 and 7. The picture on
    disk is what counts, and L-BFGS without a box walks far outside it; these pixels are in 0..1 for any
    angle z. A cosine leaves the walls of the box sooner than a sigmoid does: its slope there is
    sqrt(x (1 - x)), not x (1 - x). A is the `Preconditioner`, `Recipe.precondition` its power.

    Nothing is evaluated twice: torch asks for value and gradient at the point where the last line
    search ended, which is among the points evaluated there. The value is divided by the start's, as
    torch compares curvature with an absolute 1e-10.
    """

    _EDGE = 1 / 512
    """Pixels start this far inside the box, half a grey level: on its walls the slope is zero."""

    def __init__(
        self, recipe: Recipe, start: Tensor, evaluate: Evaluate, other: "LBFGS | None" = None
    ) -> None:
        """Stand at ``start``, brought inside the box; an ``other`` of its size has the same map A."""
        self.evaluate = evaluate
        self.history = recipe.history
        self.move = _FIRST_MOVE
        self.precondition: Preconditioner = (
            other.precondition if other else Preconditioner(start, recipe.precondition, recipe.tileable)
        )
        self.held: Tensor | None = (
            None  # known with the first evaluation, where u is 0 and nothing moves
        )
        self.last: tuple[_Point, Tensor] | None = None
        angles = torch.acos(1 - 2 * start.clamp(self._EDGE, 1 - self._EDGE))
        self._stand_at(angles, torch.zeros_like(angles))
        self.unit = abs(self.losses.total) or 1.0
        self._restart()

    def _stand_at(self, origin: Tensor, u: Tensor) -> None:
        self.origin = origin
        self.tried: list[_Point] = []
        self._go_to(self._point(u))

    def _go_to(self, point: "_Point") -> None:
        self.here, self.losses = point, point.losses
        known = self.last is not None and self.last[0] is point
        self.picture = self.last[1] if known and self.last else _picture_at(self._angles(point.u))

    def _restart(self) -> None:
        """Forget the curvature; the next step is a scaled step along the gradient."""
        self.u = self.here.u.clone().requires_grad_()
        self.lbfgs = torch.optim.LBFGS(
            [self.u],
            max_iter=1,
            max_eval=_LINE_SEARCH + 1,
            history_size=self.history,
            line_search_fn="strong_wolfe",
            tolerance_grad=0,
            tolerance_change=0,
        )
        self.fresh = True

    def step(self) -> None:
        """Search along L-BFGS's direction; forget the curvature where that finds nothing lower.

        Raises:
            StuckError: nor is anything lower found along the gradient.
        """
        for _ in range(2):
            was_fresh = self.fresh
            self._set_rate()
            self.lbfgs.step(self._value)  # type: ignore[no-untyped-call]
            end = self._point(self.u.detach())
            if end.losses.total < self.losses.total:
                self._go_to(end)
                self.tried, self.fresh = [end], False
                return
            self._restart()
            if was_fresh:
                break
        raise StuckError

    def _set_rate(self) -> None:
        """Set torch's rate: 1, but in a fresh start what moves the mean pixel by ``self.move``."""
        (group,) = self.lbfgs.param_groups
        group["lr"] = 1.0
        if not self.fresh:
            return
        gradient = self.here.gradient / self.unit
        turn = self._turned(gradient)
        per_unit = (_slope_at(self._angles(self.here.u)) * turn).abs().mean().item()
        if per_unit > 0:
            # No angle turns by more than half a turn: beyond it the cosine only comes back.
            rate = min(self.move / per_unit, math.pi / turn.abs().max().item())
            # torch multiplies its first step by min(1, 1 / ||g||_1): undo that.
            group["lr"] = rate * max(1.0, gradient.abs().sum().item())

    def _value(self) -> float:
        point = self._point(self.u.detach())
        self.u.grad = point.gradient / self.unit
        return point.losses.total / self.unit

    def _turned(self, u: Tensor) -> Tensor:
        """Return A u, but no turn for pixels that are to stay."""
        turned = self.precondition(u)
        return turned if self.held is None else turned.masked_fill(self.held, 0)

    def _angles(self, u: Tensor) -> Tensor:
        return self.origin + self._turned(u)

    def _point(self, u: Tensor) -> "_Point":
        """Return losses and gradient at u, from memory where they are known."""
        for point in self.tried:
            if torch.equal(point.u, u):
                return point
        self.last = None
        angles = self._angles(u)
        slope, picture = _slope_at(angles), _picture_at(angles)
        del angles
        found = self.evaluate(picture)
        self.held = found.held
        # Pixels that are to stay have no gradient.
        gradient = self.precondition.transposed(slope.mul_(found.gradient))
        point = _Point(u.clone(), found.losses, gradient)
        self.last = point, picture
        # torch asks again for where a line search began, and where it ended: at its last or its
        # lowest point. Nothing else is kept.
        lowest = min([*self.tried[1:], point], key=lambda tried: tried.losses.total)
        self.tried = [*self.tried[:1], *({id(kept): kept for kept in (lowest, point)}.values())]
        return point

    def back(self) -> None:
        """Return to the last finite picture, forget the curvature, halve the first step."""
        self.tried = [self.here]
        self.move /= 2
        self._restart()

    def state(self) -> dict[str, Any]:
        """Return where it began, how far it has come, and torch's L-BFGS state."""
        return {
            "origin": self.origin,
            "u": self.here.u,
            "fresh": self.fresh,
            "move": self.move,
            "unit": self.unit,
            "lbfgs": self.lbfgs.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.move, self.unit = state["move"], state["unit"]
        self._stand_at(state["origin"], state["u"])
        self._restart()
        self.fresh = state["fresh"]
        self.lbfgs.load_state_dict(copy.deepcopy(state["lbfgs"]))


class _Point(NamedTuple):
    """Where a line search has been."""

    u: Tensor
    losses: Losses
    gradient: Tensor
    """Of the total, by u."""


def _picture_at(angles: Tensor) -> Tensor:
    """Return the pixels x = (1 - cos z) / 2."""
    return torch.cos(angles).neg_().add_(1).div_(2)


def _slope_at(angles: Tensor) -> Tensor:
    """Return the derivative dx/dz = sin(z) / 2."""
    return torch.sin(angles).div_(2)


class Multistart:
    """L-BFGS from several starts; the one that came lowest goes on.

    The first start is the picture given, each other one half of it and half white noise. They share
    the first half of the iterations equally, one after the other; the second half is the best one's.

    Reference: Marti, "Multi-Start Methods", in the Handbook of Metaheuristics (2003).
    """

    def __init__(self, recipe: Recipe, start: Tensor, evaluate: Evaluate) -> None:
        """Stand at ``start``."""
        self.recipe, self.evaluate = recipe, evaluate
        search = recipe.iterations // 2
        self.starts = max(1, min(recipe.starts, search))
        self.share = search // self.starts
        self.start, self.index, self.taken = start, 0, 0
        self.best: LBFGS | None = None
        self._follow(LBFGS(recipe, start, evaluate))

    def _follow(self, lbfgs: LBFGS) -> None:
        self.now, self.picture, self.losses = lbfgs, lbfgs.picture, lbfgs.losses

    @property
    def _searches(self) -> bool:
        return self.starts > 1 and self.index < self.starts

    def step(self) -> None:
        """Take a step of L-BFGS, from the next start where this one has had its share.

        Raises:
            StuckError: nothing lower is found from the best of the starts.
        """
        while True:
            if self._searches and self.taken >= self.share:
                self._turn()
            try:
                self.now.step()
                break
            except StuckError:
                if not self._searches:
                    raise
                self.taken = self.share
        self.taken += 1
        self._follow(self.now)

    def _turn(self) -> None:
        """Go on to the next start, after the last one back to the best."""
        if self.best is None or self.now.losses.total < self.best.losses.total:
            self.best = self.now
        self.index += 1  # also where that start turns out to have no finite loss
        if self._searches:
            other = LBFGS(self.recipe, self._blend(self.index), self.evaluate, self.now)
            other.move = self.now.move  # what was too far for one start is for the next
            self._follow(other)
        else:
            self._follow(self.best)
            self.best = None
        self.taken = 0

    def _blend(self, index: int) -> Tensor:
        generator = _generator(self.recipe.seed, f"start {index}")
        noise = torch.rand(self.start.shape, generator=generator, dtype=self.start.dtype)
        noise = noise.to(self.start.device).lerp_(self.start, 0.5)
        return noise if self.now.held is None else torch.where(self.now.held, self.start, noise)

    def back(self) -> None:
        """Return to the last finite picture, forget the curvature, halve the first step."""
        self.now.back()

    def state(self) -> dict[str, Any]:
        """Return the states of the descent under way and of the best one before it."""
        return {
            "start": self.start,
            "index": self.index,
            "taken": self.taken,
            "now": self.now.state(),
            "best": self.best and self.best.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.start, self.index, self.taken = state["start"], state["index"], state["taken"]
        self.now.load(state["now"])
        self._follow(self.now)
        if state["best"]:
            self.best = LBFGS(self.recipe, self.start, self.evaluate, self.now)
            self.best.load(state["best"])


def spare_compiler() -> None:
    """Keep torch's optimisers from loading its compiler, a second's work, only to be left alone by it.

    For the whole process. Where torch does not look for this mark, nothing changes.

    Example:
        >>> spare_compiler()
    """
    if "torch._dynamo" not in sys.modules:
        for method in vars(torch.optim.Optimizer).values():
            if plain := getattr(method, "__wrapped__", None):
                plain.__dynamo_disable = plain


def _generator(seed: int, what: str) -> torch.Generator:
    """Return a generator of its own for each use: the seed's is that of the noise a run begins with."""
    return torch.Generator().manual_seed((seed + zlib.crc32(what.encode())) % 2**63)


class Outcome(NamedTuple):
    """How a descent ended: why, after how much work, and its picture.

    That is the one with the lowest total, or the iterates' mean where `Recipe.average` asks for it.
    """

    reason: str
    iterations: int
    evaluations: int
    best: Tensor


class Method(NamedTuple):
    """A row of `OPTIMIZERS`: its name in a plan, how it is made, and what it holds."""

    title: str
    make: Callable[[Recipe, Tensor, Evaluate], Optimizer]
    held: int
    """Tensors of a picture's size while it waits for an evaluation, gradient and best picture too."""
    making: int
    """As many more for a moment, between two evaluations."""
    per_pair: int = 0
    """As many more for each pair of steps that L-BFGS remembers."""
    refine: str = ""
    """A search is for the coarsest level: the optimiser of the finer ones."""


def _adam(kind: Callable[..., torch.optim.Optimizer], **options: bool) -> Callable[..., Optimizer]:
    def make(pixels: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
        # Balanced losses have gradients near 1e-7 per pixel, where the usual 1e-8 would bite.
        return kind(pixels, betas=recipe.adam_betas, eps=1e-20, **options)

    return functools.partial(FirstOrder, make=make)


def _sgd(hot: bool = False) -> Callable[..., Optimizer]:
    def make(pixels: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
        return torch.optim.SGD(pixels, momentum=recipe.momentum)

    return functools.partial(FirstOrder, make=make, relative=True, hot=hot)


OPTIMIZERS: dict[str, Method] = {
    "lbfgs": Method("L-BFGS", LBFGS, 23, making=4, per_pair=2),
    "adam": Method("Adam", _adam(torch.optim.Adam), 6, making=1),
    "amsgrad": Method("AMSGrad", _adam(torch.optim.Adam, amsgrad=True), 7, making=1),
    "nadam": Method("NAdam", _adam(torch.optim.NAdam), 6, making=2),
    "adamax": Method("AdaMax", _adam(torch.optim.Adamax), 6, making=1),
    "sgd": Method("gradient descent with momentum", _sgd(), 5, making=2),
    "langevin": Method("Langevin dynamics", _sgd(hot=True), 5, making=2, refine="sgd"),
    "multistart": Method(
        "L-BFGS from several starts", Multistart, 30, making=4, per_pair=4, refine="lbfgs"
    ),
}


def pictures_held(optimizer: str, history: int) -> int:
    """Return how many tensors of a picture's size an optimiser holds while it waits for an evaluation.

    The evaluation's gradient and the best picture are among them.

    Example:
        >>> pictures_held("adam", 20), pictures_held("lbfgs", 20)
        (6, 63)
    """
    method = OPTIMIZERS[optimizer]
    return method.held + method.per_pair * history


def descend(
    recipe: Recipe, start: Tensor, evaluate: Evaluate, state: dict[str, Any] | None = None
) -> Generator[Step, None, Outcome]:
    """Yield a `Step` per iteration from ``start`` ``[3, H, W]``, 0 first; return how it ended.

    With no iterations the start itself is the result, bit for bit. ``state`` is what a step's
    ``state()`` gave: the descent goes on after that step, with the same ``recipe`` and ``evaluate``.

    Raises:
        RunError: losses are not finite, also after stepping back and halving three times.
    """
    evaluations = 0
    state = None if state is None else _placed(state, start.device)

    def count(picture: Tensor) -> Evaluation:
        nonlocal evaluations
        evaluations += 1
        found = evaluate(picture)
        if not (math.isfinite(found.losses.total) and found.gradient.isfinite().all()):
            raise NotFiniteError
        return found

    try:
        if recipe.iterations == 0:
            found = count(start)
            yield Step(0, evaluations, found.losses, start, start, dict)
            return Outcome("no iterations asked for", 0, evaluations, start)
        optimizer = OPTIMIZERS[recipe.optimizer].make(recipe, start, count)
        if state is not None:
            optimizer.load(state["optimizer"])
    except NotFiniteError:
        raise RunError(
            "the start has no finite loss: lower --alpha and --beta or use --precision float32"
        ) from None

    del start  # it may be large
    iteration, halvings, best, totals = 0, 0, optimizer.picture, [optimizer.losses.total]
    mean = torch.zeros_like(best) if recipe.average else None
    if state is not None:
        mean = None if state["mean"] is None else state["mean"].clone()
        iteration, halvings, best = state["iteration"], state["halvings"], state["best"]
        evaluations, totals = state["evaluations"], list(state["totals"])
    goes_on = state is not None
    del state  # the optimiser has its own copy

    def here() -> Step:
        capture = functools.partial(state_at, iteration)
        return Step(iteration, evaluations, optimizer.losses, optimizer.picture, best, capture)

    def state_at(asked: int, copied: bool = True) -> dict[str, Any]:
        if asked != iteration:
            raise RuntimeError("the descent has moved on; call state() before asking for the next step")
        found = {
            "iteration": iteration,
            "evaluations": evaluations,
            "halvings": halvings,
            "totals": list(totals),
            "best": best,
            "mean": mean,
            "optimizer": optimizer.state(),
        }
        return copy.deepcopy(found) if copied else found

    if not goes_on:
        yield here()
    reason = "all iterations done"
    while iteration < recipe.iterations:
        if _on_plateau(totals, recipe.patience):
            reason = f"the total fell by less than {_PLATEAU:.0%} in {recipe.patience} iterations"
            break
        try:
            optimizer.step()
        except NotFiniteError:
            halvings += 1
            if halvings > _HALVINGS:
                raise RunError(
                    f"the loss is not finite after iteration {iteration}, nor after stepping back "
                    f"{_HALVINGS} times; lower --learning-rate or use --precision float32"
                ) from None
            optimizer.back()
            continue
        except StuckError:
            reason = "nothing lower found"
            break
        iteration += 1
        if mean is None and optimizer.losses.total < min(totals):
            best = optimizer.picture
        totals.append(optimizer.losses.total)
        if mean is not None:
            mean.lerp_(optimizer.picture, 1 - recipe.average)
            best = mean / (1 - recipe.average**iteration)
        yield here()
    return Outcome(reason, iteration, evaluations, best)


def _placed(value: Any, device: torch.device) -> Any:  # noqa: ANN401 (a state, or a part of one)
    """Return a state whose pictures are where the run computes; counters and random states stay."""
    match value:
        case Tensor() if value.ndim and value.is_floating_point():
            return value.to(device)
        case dict():
            return {key: _placed(one, device) for key, one in value.items()}
        case list() | tuple():
            return type(value)(_placed(one, device) for one in value)
    return value


def _on_plateau(totals: list[float], patience: int) -> bool:
    """Say whether the last ``patience`` iterations lowered the lowest total by next to nothing."""
    if not patience or len(totals) <= patience:
        return False
    return min(totals) >= (1 - _PLATEAU) * min(totals[:-patience])
