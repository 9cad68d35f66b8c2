"""The objective: how far a picture is from the content and the style; value and gradient.

Everything the losses need of a picture is a sum over positions, and sums do not care how the picture
was cut: value and gradient are computed tile by tile, in any number of processes, to rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from impasto import losses, tiles
from impasto.events import Losses
from impasto.memory import Count
from impasto.parallel import ALONE, Team
from impasto.recipe import Recipe
from impasto.shelf import Shelf
from impasto.summaries import gram
from impasto.tiles import WHOLE, Cut, Tile
from impasto.vgg import VGG19

__all__ = ["Evaluation", "Needs", "Objective", "View", "needs", "pull", "see"]

_FLAT = 1e-4
"""A target with less than this share of white noise's energy counts as flat: see `_noise`."""

_STRIP = 1 << 20
"""Total variation is summed in strips of about so many pixels."""


@dataclass(frozen=True)
class Evaluation:
    """The losses of a picture and the gradient of their total, ``[3, H, W]``."""

    losses: Losses
    gradient: Tensor


@dataclass(frozen=True)
class _Content:
    """A layer's content target by tile, as numbers on the shelf, and its equation's factor."""

    numbers: dict[int, int]
    factor: float = 1.0


@dataclass(frozen=True)
class _Style:
    """A layer's style target ``[N, N]`` in float64, and its equation's factor: 1 as reported."""

    target: Tensor
    factor: float = 1.0


@dataclass(frozen=True)
class View:
    """What a tile shows: its window of the picture, content features, and parts of the summaries."""

    window: Tensor
    features: dict[str, Tensor]
    parts: dict[str, Tensor]


class Objective:
    """Equation 5, alpha L_content + beta L_style + tv TV, held against its targets.

    Both losses are squared distances; the two weightings differ in a factor alone:

        report    content 1/2 ||F - P||^2,          style 1/(4 N^2) ||G - A||^2  (equations 1, 3)
        balanced  content ||F - P||^2 / ||P||^2,    style ||G - A||^2 / ||A||^2

    Departure from equation 3: Gram matrices are divided by their own M, so that the style may have
    another size than the content; the two are identical when sizes agree.

    Without a content picture there is no content loss, without styles no style loss.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: VGG19,
        content: Tensor | None,
        styles: Sequence[Tensor],
        cut: Cut = WHOLE,
        team: Team = ALONE,
    ) -> None:
        """Take the targets from the content ``[3, H, W]`` and the styles, each of its own size.

        ``cut`` says how pictures are cut; all ranks of a ``team`` make their objective together.

        Raises:
            InputError: alpha and beta leave nothing to compare with.
        """
        self.recipe = recipe
        self.network = network
        self.cut = cut
        self.team = team
        self._shelf = Shelf(cut.on_disk)
        self.content_layers, self.style_layers = recipe.layers_in_use(content is not None, bool(styles))
        with torch.no_grad():
            self.content = self._aim_at_content(content) if self.content_layers else {}
            self.style = self._aim_at_styles(styles) if self.style_layers else {}

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers in use."""
        return (*self.content_layers, *self.style_layers)

    # --- targets --------------------------------------------------------------------------------

    def _aim_at_content(self, content: Tensor | None) -> dict[str, _Content]:
        assert content is not None
        layers, pieces = self.content_layers, self._cut(content)
        numbers: dict[str, dict[int, int]] = {name: {} for name in layers}
        energies = torch.zeros(len(pieces), len(layers), dtype=torch.float64)
        for index in self._mine(pieces):
            features = see(self.network, content, pieces[index], layers).features
            for column, name in enumerate(layers):
                target = features[name]
                energies[index, column] = losses.squared_distance(target, torch.zeros_like(target))
                numbers[name][index] = self._shelf.put(target)
        energy = self._over_tiles(energies)
        if self.recipe.weighting == "report":
            return {name: _Content(numbers[name]) for name in layers}
        factors: dict[str, float] = {}
        for column, (name, gram_of_noise) in enumerate(self._noise(layers, content).items()):
            floor = _FLAT * _positions(content, name) * gram_of_noise.trace().item()
            factors[name] = 2 / max(energy[column].item(), floor)
        return {name: _Content(numbers[name], factors[name]) for name in layers}

    def _aim_at_styles(self, styles: Sequence[Tensor]) -> dict[str, _Style]:
        layers = self.style_layers
        targets: dict[str, Tensor] = {}
        for picture, share in zip(styles, self.recipe.weight_of_styles(len(styles)), strict=True):
            for name, part in self._style_of(picture).items():
                targets[name] = targets.get(name, torch.zeros_like(part)) + share * part
        if self.recipe.weighting == "report":
            return {name: _Style(target) for name, target in targets.items()}
        factors: dict[str, float] = {}
        for name, gram_of_noise in self._noise(layers, styles[0]).items():
            target = targets[name]
            energy = target.square().sum().item()
            floor = _FLAT**2 * gram_of_noise.square().sum().item()
            factors[name] = 4 * target.shape[0] ** 2 / max(energy, floor)
        return {name: _Style(target, factors[name]) for name, target in targets.items()}

    def _style_of(self, picture: Tensor) -> dict[str, Tensor]:
        def look(_: int, tile: Tile) -> View:
            return see(self.network, picture, tile, style=self.style_layers)

        return _means(self._sum(self._cut(picture), look), picture)

    def _noise(self, layers: Sequence[str], like: Tensor) -> dict[str, Tensor]:
        """Return the Gram matrices of white noise: the yardstick for what counts as flat.

        A flat picture may leave a layer silent; relative to nothing, every error is infinite. So no
        error is taken relative to less than a small share of the network's own response to noise,
        which fits any weights and pooling.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(3, 64, 64, generator=generator).to(like)
        features = self.network(noise, layers)
        return _means({name: losses.exact(gram(found)) for name, found in features.items()}, noise)

    # --- value and gradient ---------------------------------------------------------------------

    def __call__(self, picture: Tensor) -> Evaluation:
        """Return losses and gradient at a picture ``[3, H, W]`` in 0..1."""
        self.team.tell("evaluate")
        return self._evaluate(self.team.share(picture.detach().contiguous()))

    @torch.no_grad()
    def losses(self, picture: Tensor) -> Losses:
        """Return the losses alone, in a third of the time."""
        self.team.tell("losses")
        return self._losses(self.team.share(picture.detach().contiguous()))

    def follow(self, like: Tensor) -> object:
        """Do this rank's part of what rank 0 asks for; return its first word that asks for neither."""
        while (word := self.team.tell()) in ("evaluate", "losses"):
            picture = self.team.share(torch.empty_like(like))
            if word == "evaluate":
                self._evaluate(picture)
            else:
                with torch.no_grad():
                    self._losses(picture)
        return word

    def _evaluate(self, picture: Tensor) -> Evaluation:
        pieces = self._cut(picture)
        keep = self._mine(pieces)[-self.cut.keep :]
        kept: dict[int, View] = {}

        def first(index: int, tile: Tile) -> View:
            if index not in keep:
                return see(self.network, picture, tile, style=self.style_layers)
            kept[index] = self._see(picture, tile, graph=True)
            return kept[index]

        # One pass for the summaries, one for the gradient. The tiles kept from the first were its
        # last, and come first in the second: then their memory is free for the others.
        style = self._style_losses(self._sum(pieces, first), picture)
        content = torch.zeros(len(pieces), len(self.content), dtype=torch.float64)
        gradient = torch.zeros_like(picture) if self.team.leads else picture.new_empty(0)
        # Round by round, so that every rank computes a tile before rank 0 waits for the others'.
        for start in reversed(range(0, len(pieces), self.team.size)):
            ours = torch.empty(0)
            dealt = list(enumerate(pieces[start : start + self.team.size], start))
            for index, tile in dealt:
                if self.team.has(index):
                    view = kept.pop(index, None) or self._see(picture, tile, graph=True)
                    ours, content[index] = self._pull(index, view, style)
                    del view
            for index, tile in reversed(dealt):
                room = (3, tile.rows.length, tile.columns.length) if self.team.leads else (0,)
                part = ours if self.team.has(index) else picture.new_empty(room)
                part = self.team.hand_in(index, part)
                if self.team.leads:
                    tiles.add(gradient, tile, part)
        tv = self._total_variation(picture, gradient)
        return Evaluation(self._found(self._over_tiles(content), style, tv), gradient)

    def _losses(self, picture: Tensor) -> Losses:
        pieces = self._cut(picture)
        content = torch.zeros(len(pieces), len(self.content), dtype=torch.float64)

        def only(index: int, tile: Tile) -> View:
            view = self._see(picture, tile)
            content[index] = self._content_losses(index, view)
            return view

        style = self._style_losses(self._sum(pieces, only), picture)
        return self._found(self._over_tiles(content), style, self._total_variation(picture))

    def _found(self, content: Tensor, style: "_StyleLosses", tv: float) -> Losses:
        recipe = self.recipe
        layers = dict(zip(self.content, content.tolist(), strict=True))
        content_loss = sum(layers.values()) / max(1, len(layers))
        return Losses(
            total=recipe.alpha * content_loss + recipe.beta * style.loss + recipe.tv * tv,
            content=content_loss,
            style=style.loss,
            tv=tv,
            content_layers=layers,
            style_layers=style.layers,
        )

    # --- the parts ------------------------------------------------------------------------------

    def _cut(self, picture: Tensor) -> list[Tile]:
        size = picture.shape[1], picture.shape[2]
        return tiles.cut(size, self.layers, self.cut.tile, self.network.padding)

    def _mine(self, pieces: Sequence[Tile]) -> list[int]:
        return [index for index in range(len(pieces)) if self.team.has(index)]

    def _see(self, picture: Tensor, tile: Tile, graph: bool = False) -> View:
        return see(self.network, picture, tile, self.content_layers, self.style_layers, graph)

    def _sum(self, pieces: Sequence[Tile], look: Callable[[int, Tile], View]) -> dict[str, Tensor]:
        """Return the summaries on every rank: the tiles' parts, added in the tiles' order in float64."""
        sums: dict[str, Tensor] = {}
        for index, tile in enumerate(pieces):
            parts = look(index, tile).parts if self.team.has(index) else {}
            for name in self.style_layers:
                part = parts[name].detach() if parts else self.network.empty_gram(name)
                part = losses.exact(self.team.hand_in(index, part))
                sums[name] = sums[name] + part if name in sums else part
        return {name: self.team.share(found) for name, found in sums.items()}

    def _style_losses(self, sums: Mapping[str, Tensor], picture: Tensor) -> "_StyleLosses":
        """Return the style losses, and how the total changes with each summary."""
        with torch.enable_grad():
            sums = {name: found.detach().requires_grad_() for name, found in sums.items()}
            layers = {
                name: losses.style_layer_loss(mean, self.style[name].target) * self.style[name].factor
                for name, mean in _means(sums, picture).items()
            }
            if not layers:
                return _StyleLosses(0.0, {}, {})
            loss = losses.style_loss(layers, self.recipe.weight_of_layer)
            pulls = torch.autograd.grad(self.recipe.beta * loss, list(sums.values()))
        found = {name: layer.item() for name, layer in layers.items()}
        return _StyleLosses(loss.item(), found, dict(zip(sums, pulls, strict=True)))

    def _content_losses(self, index: int, view: View) -> Tensor:
        """Return a tile's share of each content layer's loss, in float64."""
        found = [
            losses.exact(losses.content_loss(view.features[name], self._shelf.get(aim.numbers[index])))
            * aim.factor
            for name, aim in self.content.items()
        ]
        return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)

    def _pull(self, index: int, view: View, style: "_StyleLosses") -> tuple[Tensor, Tensor]:
        """Return the gradient of the total at a tile's window, and the tile's content losses."""
        with torch.enable_grad():
            content = self._content_losses(index, view)
        weight = self.recipe.alpha / max(1, len(content))
        return pull(view, style.pulls, weight * content.sum()), content.detach()

    def _total_variation(self, picture: Tensor, gradient: Tensor | None = None) -> float:
        """Return total variation; add its weighted gradient to ``gradient``. In strips of rows."""
        weight = self.recipe.tv
        if not (weight and self.team.leads):
            return 0.0
        _, height, width = picture.shape
        rows = max(1, _STRIP // width)
        value = 0.0
        for top in range(0, height, rows):
            with torch.set_grad_enabled(gradient is not None):
                strip = picture[:, top : top + rows + 1].detach().requires_grad_(gradient is not None)
                across, _ = losses.squared_steps(strip[:, :rows])
                _, down = losses.squared_steps(strip)
                part = losses.mean_steps(across, down, (height, width))
            value += part.item()
            if gradient is not None:
                (change,) = torch.autograd.grad(part, strip)
                gradient[:, top : top + rows + 1].add_(change, alpha=weight)
        return value

    def _over_tiles(self, table: Tensor) -> Tensor:
        """Return the sums of a table ``[tiles, layers]`` of which each rank has its tiles' rows."""
        for index, row in enumerate(table):
            table[index] = self.team.hand_in(index, row)
        return self.team.share(table.sum(0))


def see(
    network: VGG19,
    picture: Tensor,
    tile: Tile,
    content: Sequence[str] = (),
    style: Sequence[str] = (),
    graph: bool = False,
) -> View:
    """Return what a tile shows of content and style layers, with what a gradient needs if asked to."""
    window = tiles.gather(picture, tile).detach()
    features: dict[str, Tensor] = {}
    parts: dict[str, Tensor] = {}
    with torch.set_grad_enabled(graph):
        layers = (*content, *style)
        for name, found in network.walk(window.requires_grad_(graph), layers, tile) if layers else ():
            if name in content:
                features[name] = found
            if name in style:
                parts[name] = gram(found)
    return View(window, features, parts)


def pull(view: View, pulls: Mapping[str, Tensor], local: Tensor) -> Tensor:
    """Return the gradient at a tile's window of its local terms and, through its parts, of the rest."""
    with torch.enable_grad():
        total = local
        for name, derivative in pulls.items():
            total = total + losses.exact((view.parts[name] * derivative.to(view.parts[name])).sum())
    (gradient,) = torch.autograd.grad(total, view.window)
    return gradient


class Needs(NamedTuple):
    """Bytes of a tile: at most while it is seen, kept for its gradient, at most with the way back."""

    look: int
    kept: int
    pull: int


def needs(network: VGG19, tile: Tile, content: Sequence[str], style: Sequence[str]) -> Needs:
    """Return what a tile needs, counted; ``network`` is on the device ``meta``, nothing is computed."""
    picture = torch.empty(3, tile.rows.stop, tile.columns.stop, device="meta", dtype=network.real)
    with Count() as count:
        see(network, picture, tile, content, style)
    look = count.peak
    with Count() as count:
        view = see(network, picture, tile, content, style, graph=True)
        kept = count.live
        with torch.enable_grad():
            terms = [losses.content_loss(found, found.detach()) for found in view.features.values()]
            local = sum(map(losses.exact, terms), losses.exact(picture.new_zeros(())))
        pull(view, view.parts, local)
    return Needs(look, kept, count.peak)


class _StyleLosses(NamedTuple):
    """The style loss, its layers, and the derivative of beta times it by each layer's summary."""

    loss: float
    layers: dict[str, float]
    pulls: dict[str, Tensor]


def _positions(picture: Tensor, layer: str) -> int:
    """Return M, the positions of the whole picture's features: a tile has some of them."""
    height, width = tiles.extent((picture.shape[1], picture.shape[2]), layer)
    return height * width


def _means(sums: Mapping[str, Tensor], picture: Tensor) -> dict[str, Tensor]:
    """Return summaries divided by the number of positions they were summed over."""
    return {name: found / _positions(picture, name) for name, found in sums.items()}
