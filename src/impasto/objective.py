"""The objective: how far a picture is from the content and the style; value and gradient.

Everything the losses need of a picture is a sum over positions, and sums do not care how the picture
was cut: value and gradient are computed tile by tile, in any number of processes, to rounding.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from impasto import losses, masks, tiles
from impasto.errors import InputError
from impasto.events import Losses
from impasto.losses import SELF_SIMILARITY, STYLE_LOSSES, SummaryLoss
from impasto.memory import Count
from impasto.parallel import ALONE, Team
from impasto.recipe import Recipe
from impasto.shelf import Shelf
from impasto.styles import Learned
from impasto.summaries import FOURIER, SQUARES, Place, Statistic
from impasto.tiles import WHOLE, Cut, Tile
from impasto.vgg import VGG19

__all__ = [
    "Evaluation",
    "Key",
    "Known",
    "Looks",
    "Needs",
    "Objective",
    "Regions",
    "View",
    "looks",
    "needs",
    "positions",
    "pull",
    "see",
    "summarise",
]

_FLAT = 1e-4
"""A target with less than this share of white noise's energy counts as flat: see `_noise`."""

_NARROW = 1e-2
"""A Gaussian kernel is no narrower than this share of the features' mean energy: they are no rounder."""

_STRIP = 1 << 20
"""Total variation is summed in strips of about so many pixels."""


_MOST_KNOWN = 64 << 20


class Key(NamedTuple):
    """A summary: its statistic, its layer, and the region it is of."""

    statistic: str
    layer: str
    region: int = 0


class Regions(NamedTuple):
    """What is painted by what: weights ``[R, H, W]`` of the content's regions, and of the styles'.

    The i-th region of the content is painted by the i-th style as a whole, or, where there are the
    ``style``'s regions, by the i-th of these, of a single style.
    """

    content: Tensor
    style: Tensor | None = None


@dataclass(frozen=True)
class Evaluation:
    """A picture's losses, the gradient of their total, ``[3, H, W]``, and which pixels are to stay."""

    losses: Losses
    gradient: Tensor
    held: Tensor | None = None


@dataclass(frozen=True)
class _Content:
    """A layer's content target by tile, as numbers on the shelf, and its equation's factor."""

    numbers: dict[int, int]
    factor: float = 1.0


@dataclass(frozen=True)
class _Term:
    """A loss of summaries: its targets by layer, and its equation's factors, 1 as reported."""

    loss: SummaryLoss
    targets: dict[str, Any]
    factors: dict[str, float]
    region: int = 0

    def layers(self, means: Mapping[Key, Tensor]) -> dict[str, Tensor]:
        """Return the loss of each layer."""
        summaries = {
            name: means[Key(self.loss.statistic.name, name, self.region)] for name in self.targets
        }
        found = self.loss.distances(summaries, self.targets)
        return {name: self.factors[name] * loss for name, loss in found.items()}


@dataclass(frozen=True)
class Looks:
    """What is looked at: layers whose features are kept, and the summaries of layers.

    ``spreads`` are the variances of the style's features, where a statistic depends on them;
    ``regions`` the weights ``[R, h, w]`` on each layer's grid, where summaries are of regions.
    """

    content: tuple[str, ...] = ()
    summaries: Mapping[str, tuple[Statistic, ...]] = field(default_factory=dict)
    seed: int = 0
    spreads: Mapping[str, float] = field(default_factory=dict)
    regions: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that are looked at."""
        return (*self.content, *self.summaries)

    def statistics(self) -> dict[Key, Statistic]:
        """Return the summaries that are taken."""
        return {
            Key(one.name, name, region): one
            for name, several in self.summaries.items()
            for one in several
            for region in range(len(self.regions.get(name, "1")))
        }

    def place(self, key: Key, tile: Tile) -> Place:
        """Return where a tile's cells of a layer lie."""
        name = key.layer
        own, size = tile.cells(name), tiles.extent(tile.size, name)
        place = Place(name, *own, size, self.seed, self.spreads.get(name, 1.0))
        if name not in self.regions:
            return place
        anchor = next(iter(self.regions.values()))[key.region]
        return place._replace(region=self.regions[name][key.region], anchor=anchor)


def looks(recipe: Recipe, content: bool, style: bool) -> Looks:
    """Return what a recipe looks at, where there are such pictures.

    Raises:
        InputError: at nothing.
    """
    content_layers, style_layers = recipe.layers_in_use(content, style)
    alike = recipe.content_loss == "self-similarity"
    wanted: dict[str, dict[str, Statistic]] = {}
    for layers, rows in (
        (content_layers if alike else (), [SELF_SIMILARITY]),
        (style_layers, [STYLE_LOSSES[name] for name in recipe.style_loss]),
    ):
        for name in layers:
            wanted.setdefault(name, {}).update({row.statistic.name: row.statistic for row in rows})
    summaries = {name: tuple(several.values()) for name, several in wanted.items()}
    return Looks(() if alike else content_layers, summaries, recipe.seed)


@dataclass(frozen=True)
class View:
    """What a tile shows: its window of the picture, content features, and parts of the summaries."""

    window: Tensor
    features: dict[str, Tensor]
    parts: dict[Key, Tensor]


class Known:
    """Summaries of styles that several runs of one recipe share, up to some megabytes.

    Example:
        >>> known = Known()
        >>> known.put("painting", {"block1_conv1": torch.ones(2)})
        >>> known.get("painting")
        {'block1_conv1': tensor([1., 1.])}
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._summaries: dict[Hashable, dict[str, Tensor]] = {}
        self._left = _MOST_KNOWN

    def get(self, key: Hashable) -> dict[str, Tensor] | None:
        """Return the summaries by layer, if they are known."""
        return self._summaries.get(key)

    def put(self, key: Hashable, summaries: dict[str, Tensor]) -> None:
        """Remember summaries, unless there are too many already: no plan counts them."""
        size = sum(one.nbytes for one in summaries.values())
        if size <= self._left:
            self._summaries[key] = summaries
            self._left -= size


class Objective:
    """Equation 5, alpha L_content + beta L_style + tv TV, held against its targets.

    The style loss is a weighted sum of distances between summaries, by default of Gram matrices. The two
    weightings differ in a factor alone:

        report    content 1/2 ||F - P||^2,          style 1/(4 N^2) ||G - A||^2  (equations 1, 3)
        balanced  content ||F - P||^2 / ||P||^2,    style ||G - A||^2 / ||A||^2

    Balanced, any distance is divided by that of silent features, or of the content picture
    (`losses.SummaryLoss`).

    Departure from equation 3: Gram matrices are divided by their own M, so that the style may have
    another size than the content; the two are identical when sizes agree.

    Without a content picture there is no content loss, without styles no style loss.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: VGG19,
        content: Tensor | None,
        styles: Sequence[Tensor | Learned],
        cut: Cut = WHOLE,
        team: Team = ALONE,
        regions: Regions | None = None,
        known: "Known | None" = None,
    ) -> None:
        """Take the targets from the content ``[3, H, W]`` and the styles, each of its own size.

        A learned style brings its summaries with it; it has no regions.

        ``regions`` are of the sizes of content and style. ``cut`` says how pictures are cut; all ranks
        of a ``team`` make their objective together. What is ``known`` of the styles is not taken again.

        Raises:
            InputError: alpha and beta leave nothing to compare with.
        """
        self.recipe = recipe
        self.network = network
        self.cut = cut
        self.team = team
        self._shelf = Shelf(cut.on_disk)
        self._known = known
        self.looks = looks(recipe, content is not None, bool(styles))
        if regions:
            if recipe.content_loss == "self-similarity" and set(self.looks.summaries) - set(
                recipe.style_layers
            ) != set(recipe.content_layers):
                raise InputError(
                    "with masks, self-similarity needs --content-layers that are no --style-layers"
                )
            self.looks = replace(self.looks, regions=self._on_grids(regions.content))
        self.content_layers, self.style_layers = recipe.layers_in_use(content is not None, bool(styles))
        self.content: dict[str, _Content] = {}
        self.alike: _Term | None = None
        self.style: list[tuple[float, _Term]] = []
        with torch.no_grad():
            if self.style_layers:
                self.style = self._aim_at_styles(styles, content, regions)
            if content is not None and self.content_layers:
                if self.looks.content:
                    self.content = self._aim_at_content(content)
                else:
                    (found,) = self._summaries(content, SELF_SIMILARITY.statistic, self.content_layers)
                    self.alike = self._term(SELF_SIMILARITY, found, None)

    # --- targets --------------------------------------------------------------------------------

    def _aim_at_content(self, content: Tensor) -> dict[str, _Content]:
        layers, pieces = self.content_layers, self._cut(content)
        numbers: dict[str, dict[int, int]] = {name: {} for name in layers}
        energies = torch.zeros(len(pieces), len(layers), dtype=torch.float64)
        for index in self._mine(pieces):
            features = see(self.network, content, pieces[index], Looks(layers)).features
            for column, name in enumerate(layers):
                target = features[name]
                energies[index, column] = losses.squared_distance(target, torch.zeros_like(target))
                numbers[name][index] = self._shelf.put(target)
        energy = self._over_tiles(energies)
        if self.recipe.weighting == "report":
            return {name: _Content(numbers[name]) for name in layers}
        factors: dict[str, float] = {}
        for column, (name, sums) in enumerate(self._noise(SQUARES, layers).items()):
            floor = _FLAT * positions(content, name) * sums[:, 1].sum().item()
            factors[name] = 2 / max(energy[column].item(), floor)
        return {name: _Content(numbers[name], factors[name]) for name in layers}

    def _aim_at_styles(
        self, styles: Sequence[Tensor | Learned], content: Tensor | None, regions: Regions | None
    ) -> list[tuple[float, _Term]]:
        """Return each loss of each region with its share of the style loss."""
        recipe, layers = self.recipe, self.style_layers
        chosen = {name: STYLE_LOSSES[name] for name in recipe.style_loss}
        weights = recipe.weight_of_styles(len(styles))

        def mixed(statistic: Statistic, shares: Sequence[float]) -> dict[str, Tensor]:
            several = [
                self._of_style(number, picture, statistic) for number, picture in enumerate(styles)
            ]
            mix = losses.barycenter if recipe.style_mix == "barycenter" else statistic.mix
            return {name: mix([one[name] for one in several], shares) for name in layers}

        if any(row.statistic is FOURIER for row in chosen.values()):
            noise = self._noise(SQUARES, layers)
            spreads = {}
            for name, found in mixed(SQUARES, weights).items():
                energy, loud = found[:, 1].sum().item(), _variance(noise[name])
                spreads[name] = max(_variance(found), _NARROW * energy, _FLAT * loud)
            self.looks = replace(self.looks, spreads=spreads)

        def of_regions(statistic: Statistic) -> list[dict[str, Tensor]]:
            if regions is None:
                return [mixed(statistic, weights)]
            if regions.style is None:
                return [self._of_style(number, one, statistic) for number, one in enumerate(styles)]
            return self._summaries(styles[0], statistic, layers, self._on_grids(regions.style))

        statistics = {row.statistic.name: row.statistic for row in chosen.values()}
        targets = {name: of_regions(statistic) for name, statistic in statistics.items()}
        areas = torch.ones(1) if regions is None else regions.content.sum((1, 2), dtype=torch.float64)
        terms = []
        for name, row in chosen.items():
            like = content if row.from_content and recipe.weighting == "balanced" else None
            for region, target in enumerate(targets[row.statistic.name]):
                # By area, so that style and content are as strong to a pixel everywhere.
                share = recipe.weight_of_style_loss[name] * (areas[region] / areas.sum()).item()
                terms.append((share, self._term(row, target, like, region)))
        return terms

    def _of_style(
        self, number: int, picture: Tensor | Learned, statistic: Statistic
    ) -> dict[str, Tensor]:
        """Return the summaries of one kind of the style of that number, by layer."""
        if self._known is None or isinstance(picture, Learned):
            return self._summaries(picture, statistic, self.style_layers)[0]
        # All that they depend on where recipe, network and styles are the same.
        spreads = tuple(self.looks.spreads.items())
        key = (number, picture.shape, picture.device, self.cut, self.team.size, statistic.name, spreads)
        found = self._known.get(key)
        if found is None:
            (found,) = self._summaries(picture, statistic, self.style_layers)
            self._known.put(key, found)
        return found

    def _on_grids(self, regions: Tensor) -> dict[str, Tensor]:
        """Return the weights of regions on the grids of the style layers."""
        spread = self.recipe.mask_spread
        return {name: masks.at_layer(regions, name, spread) for name in self.recipe.style_layers}

    def _term(
        self, row: SummaryLoss, found: dict[str, Tensor], content: Tensor | None, region: int = 0
    ) -> _Term:
        """Return a loss held against these summaries; ``content`` may be its yardstick."""

        def aims(summaries: Mapping[str, Tensor]) -> dict[str, Any]:
            return {name: row.aim(summary, self.recipe) for name, summary in summaries.items()}

        targets, layers = aims(found), tuple(found)
        if self.recipe.weighting == "report":
            return _Term(row, targets, dict.fromkeys(layers, 1.0), region)
        noise = self._noise(row.statistic, layers)
        if row.from_content:
            loud = row.distances(noise, targets)
            size = loud
            if content is not None:
                on = self.looks.regions
                seen = self._summaries(content, row.statistic, layers, on)[region]
                size = row.distances(seen, targets)
        else:
            size, loud = (
                row.distances(
                    {name: self._silence(row.statistic, name, like) for name, like in one.items()},
                    aims(one),
                )
                for one in (found, noise)
            )
        floor = _FLAT ** max(1, row.degree)
        factors = {
            name: row.balance / max(size[name].item(), floor * loud[name].item()) for name in layers
        }
        return _Term(row, targets, factors, region)

    def _summaries(
        self,
        picture: Tensor | Learned,
        statistic: Statistic,
        layers: Sequence[str],
        regions: Mapping[str, Tensor] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Return a picture's summaries of one kind by layer, of each region, in float64."""
        if isinstance(picture, Learned):
            seed, spreads = self.looks.seed, self.looks.spreads
            place = losses.exact(torch.empty(0, device=self.network.device)).device
            taken = {
                name: picture.take(statistic, name, seed, spreads.get(name, 1.0)) for name in layers
            }
            return [{name: summary.to(place) for name, summary in taken.items()}]
        wanted = dict.fromkeys(layers, (statistic,))
        only = replace(self.looks, content=(), summaries=wanted, regions=regions or {})
        found: list[dict[str, Tensor]] = []
        for key, summary in summarise(
            self.network, picture, only, self._cut(picture), self.team
        ).items():
            if key.region == len(found):
                found.append({})
            found[key.region][key.layer] = summary
        return found

    def _noise(self, statistic: Statistic, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the summaries of white noise: the yardstick for what counts as flat.

        A flat picture may leave a layer silent; relative to nothing, every error is infinite. So no
        error is taken relative to less than a small share of the network's own response to noise,
        which fits any weights and pooling.
        """
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(3, 64, 64, generator=generator).to(self.network.device, self.network.real)
        wanted = dict.fromkeys(layers, (statistic,))
        only = replace(self.looks, content=(), summaries=wanted, regions={})
        found = summarise(self.network, noise, only, tiles.cut((64, 64), layers))
        return {key.layer: summary for key, summary in found.items()}

    def _silence(self, statistic: Statistic, layer: str, like: Tensor) -> Tensor:
        """Return the summary of features that are zero everywhere."""
        if not statistic.mean:
            return torch.zeros_like(like)
        nothing = torch.zeros(self.network.channels(layer), 1, 1, dtype=like.dtype, device=like.device)
        spread = self.looks.spreads.get(layer, 1.0)
        return statistic.summarise(nothing, Place.whole(nothing, layer, self.looks.seed, spread))

    # --- value and gradient ---------------------------------------------------------------------

    def __call__(self, picture: Tensor) -> Evaluation:
        """Return losses and gradient at a picture ``[3, H, W]`` in 0..1."""
        self.team.tell("evaluate")
        return self._evaluate(self.team.share(picture.detach().contiguous()))

    @torch.no_grad()
    def losses(self, picture: Tensor) -> Losses:
        """Return the losses alone, in a third of the time."""
        self.team.tell("losses")
        picture = picture.detach().to(self.network.device)  # a finished one is on the CPU
        return self._losses(self.team.share(picture.contiguous()))

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
                return see(self.network, picture, tile, replace(self.looks, content=()))
            kept[index] = see(self.network, picture, tile, self.looks, graph=True)
            return kept[index]

        # One pass for the summaries, one for the gradient. The tiles kept from the first were its
        # last, and come first in the second: then their memory is free for the others.
        summed = self._summed(
            _sums(self.network, picture, self.looks, pieces, self.team, first), picture
        )
        content = torch.zeros(len(pieces), len(self.content), dtype=torch.float64)
        gradient = torch.zeros_like(picture) if self.team.leads else picture.new_empty(0)
        # Round by round, so that every rank computes a tile before rank 0 waits for the others'.
        for start in reversed(range(0, len(pieces), self.team.size)):
            ours = torch.empty(0)
            dealt = list(enumerate(pieces[start : start + self.team.size], start))
            for index, tile in dealt:
                if self.team.has(index):
                    view = kept.pop(index, None) or see(
                        self.network, picture, tile, self.looks, graph=True
                    )
                    ours, content[index] = self._pull(index, view, summed)
                    del view
            for index, tile in reversed(dealt):
                room = (3, tile.rows.length, tile.columns.length) if self.team.leads else (0,)
                part = ours if self.team.has(index) else picture.new_empty(room)
                part = self.team.hand_in(index, part)
                if self.team.leads:
                    tiles.add(gradient, tile, part)
        tv = self._total_variation(picture, gradient)
        return Evaluation(self._found(self._over_tiles(content), summed, tv), gradient)

    def _losses(self, picture: Tensor) -> Losses:
        pieces = self._cut(picture)
        content = torch.zeros(len(pieces), len(self.content), dtype=torch.float64)

        def only(index: int, tile: Tile) -> View:
            view = see(self.network, picture, tile, self.looks)
            content[index] = self._content_losses(index, view)
            return view

        summed = self._summed(_sums(self.network, picture, self.looks, pieces, self.team, only), picture)
        return self._found(self._over_tiles(content), summed, self._total_variation(picture))

    def _found(self, content: Tensor, summed: "_Summed", tv: float) -> Losses:
        recipe = self.recipe
        layers = {**dict(zip(self.content, content.tolist(), strict=True)), **summed.content}
        content_loss = sum(layers.values()) / max(1, len(layers))
        style_loss = sum(recipe.weight_of_layer[name] * loss for name, loss in summed.style.items())
        return Losses(
            total=recipe.alpha * content_loss + recipe.beta * style_loss + recipe.tv * tv,
            content=content_loss,
            style=style_loss,
            tv=tv,
            content_layers=layers,
            style_layers=summed.style,
        )

    # --- the parts ------------------------------------------------------------------------------

    def _cut(self, picture: Tensor) -> list[Tile]:
        size = picture.shape[1], picture.shape[2]
        layers = (*self.content_layers, *self.style_layers)
        return tiles.cut(size, layers, self.cut.tile, self.network.padding)

    def _mine(self, pieces: Sequence[Tile]) -> list[int]:
        return [index for index in range(len(pieces)) if self.team.has(index)]

    def _summed(self, sums: Mapping[Key, Tensor], picture: Tensor) -> "_Summed":
        """Return the losses of summaries, and how the total changes with each summary."""
        if not sums:
            return _Summed({}, {}, {})
        recipe = self.recipe
        with torch.enable_grad():
            sums = {key: found.detach().requires_grad_() for key, found in sums.items()}
            means = _means(sums, self.looks, picture)
            content = self.alike.layers(means) if self.alike else {}
            style: dict[str, Tensor] = {}
            for share, term in self.style:
                for layer, loss in term.layers(means).items():
                    style[layer] = style[layer] + share * loss if layer in style else share * loss
            total = torch.zeros((), dtype=torch.float64)
            if content:
                total = total + recipe.alpha * torch.stack(list(content.values())).mean()
            if style:
                total = total + recipe.beta * losses.style_loss(style, recipe.weight_of_layer).to(total)
            pulls = torch.autograd.grad(total, list(sums.values()))
        contents, styles = (
            {name: loss.item() for name, loss in part.items()} for part in (content, style)
        )
        return _Summed(contents, styles, dict(zip(sums, pulls, strict=True)))

    def _content_losses(self, index: int, view: View) -> Tensor:
        """Return a tile's share of each content layer's loss, in float64."""
        found = [
            losses.exact(losses.content_loss(view.features[name], self._shelf.get(aim.numbers[index])))
            * aim.factor
            for name, aim in self.content.items()
        ]
        return torch.stack(found) if found else torch.zeros(0, dtype=torch.float64)

    def _pull(self, index: int, view: View, summed: "_Summed") -> tuple[Tensor, Tensor]:
        """Return the gradient of the total at a tile's window, and the tile's content losses."""
        with torch.enable_grad():
            content = self._content_losses(index, view)
        weight = self.recipe.alpha / max(1, len(content))
        return pull(view, summed.pulls, weight * content.sum()), content.detach()

    def _total_variation(self, picture: Tensor, gradient: Tensor | None = None) -> float:
        """Return total variation; add its weighted gradient to ``gradient``. In strips of rows."""
        weight = self.recipe.tv
        if not (weight and self.team.leads):
            return 0.0
        _, height, width = picture.shape
        norm, wrap = self.recipe.tv_norm, self.recipe.tileable
        rows = max(1, _STRIP // width)
        value = 0.0
        for top in range(0, height, rows):
            # Below the last row is the first, where the picture repeats.
            below = min(top + rows + 1, height + wrap)
            places = torch.arange(top, below, device=picture.device) % height
            with torch.set_grad_enabled(gradient is not None):
                strip = picture[:, places].detach().requires_grad_(gradient is not None)
                count = min(rows, height - top)
                part = losses.strip_variation(strip, count, (height, width), norm, wrap)
            value += part.item()
            if gradient is not None:
                (change,) = torch.autograd.grad(part, strip)
                gradient.index_add_(1, places, change, alpha=weight)
        return value

    def _over_tiles(self, table: Tensor) -> Tensor:
        """Return the sums of a table ``[tiles, layers]`` of which each rank has its tiles' rows."""
        for index, row in enumerate(table):
            table[index] = self.team.hand_in(index, row)
        return self.team.share(table.sum(0))


def see(network: VGG19, picture: Tensor, tile: Tile, wanted: Looks, graph: bool = False) -> View:
    """Return what a tile shows of what is ``wanted``, with what a gradient needs if asked to."""
    window = tiles.gather(picture, tile).detach()
    features: dict[str, Tensor] = {}
    parts: dict[Key, Tensor] = {}
    with torch.set_grad_enabled(graph):
        seen = network.walk(window.requires_grad_(graph), wanted.layers, tile) if wanted.layers else ()
        for name, found in seen:
            if name in wanted.content:
                features[name] = found
            for key, statistic in wanted.statistics().items():
                if key.layer == name:
                    parts[key] = statistic.summarise(found, wanted.place(key, tile))
    return View(window, features, parts)


def pull(view: View, pulls: Mapping[Key, Tensor], local: Tensor) -> Tensor:
    """Return the gradient at a tile's window of its local terms and, through its parts, of the rest."""
    with torch.enable_grad():
        total = local
        for key, derivative in pulls.items():
            total = total + losses.exact((view.parts[key] * derivative.to(view.parts[key])).sum())
    (gradient,) = torch.autograd.grad(total, view.window)
    return gradient


def summarise(
    network: VGG19, picture: Tensor, wanted: Looks, pieces: Sequence[Tile], team: Team = ALONE
) -> dict[Key, Tensor]:
    """Return a picture's summaries in float64, means over positions or samples, from its pieces."""
    sums = _sums(
        network, picture, wanted, pieces, team, lambda _, tile: see(network, picture, tile, wanted)
    )
    return _means(sums, wanted, picture)


def _sums(
    network: VGG19,
    picture: Tensor,
    wanted: Looks,
    pieces: Sequence[Tile],
    team: Team,
    look: Callable[[int, Tile], View],
) -> dict[Key, Tensor]:
    """Return the summaries on every rank: the tiles' parts, added in the tiles' order in float64."""
    sums: dict[Key, Tensor] = {}
    for index, tile in enumerate(pieces):
        parts = look(index, tile).parts if team.has(index) else {}
        for key, statistic in wanted.statistics().items():
            if parts:
                part = parts[key].detach()
            else:
                shape = statistic.shape(network.channels(key.layer), wanted.place(key, tile))
                part = picture.new_empty(shape)
            part = losses.exact(team.hand_in(index, part))
            sums[key] = sums[key] + part if key in sums else part
    return {key: team.share(found) for key, found in sums.items()}


class Needs(NamedTuple):
    """Bytes of a tile: at most while it is seen, kept for its gradient, at most with the way back.

    ``sums`` are those of its summaries in float64.
    """

    look: int
    kept: int
    pull: int
    sums: int


def needs(network: VGG19, tile: Tile, wanted: Looks) -> Needs:
    """Return what a tile needs, counted; ``network`` is on the device ``meta``, nothing is computed."""
    picture = torch.empty(3, tile.rows.stop, tile.columns.stop, device="meta", dtype=network.real)
    see(network, picture, tile, wanted)  # kernels are made ready: they are the network's, not the tile's
    with Count(network.tensors) as count:
        see(network, picture, tile, wanted)
    look = count.peak
    with Count(network.tensors) as count:
        view = see(network, picture, tile, wanted, graph=True)
        kept = count.live
        with torch.enable_grad():
            terms = [losses.content_loss(found, found.detach()) for found in view.features.values()]
            local = sum(map(losses.exact, terms), losses.exact(picture.new_zeros(())))
        pull(view, view.parts, local)
    sums = sum(losses.exact(part).nbytes for part in view.parts.values())
    return Needs(look, kept, count.peak, sums)


class _Summed(NamedTuple):
    """Content and style losses of summaries by layer, and the total's derivative by each summary."""

    content: dict[str, float]
    style: dict[str, float]
    pulls: dict[Key, Tensor]


def positions(picture: Tensor, layer: str) -> int:
    """Return M, the positions of the whole picture's features: a tile has some of them."""
    height, width = tiles.extent((picture.shape[1], picture.shape[2]), layer)
    return height * width


def _means(sums: Mapping[Key, Tensor], wanted: Looks, picture: Tensor) -> dict[Key, Tensor]:
    """Return summaries divided by the number of positions, where they are sums over all of them."""

    def count(key: Key) -> float:
        on = wanted.regions.get(key.layer)
        return positions(picture, key.layer) if on is None else on[key.region].sum().item()

    statistics = wanted.statistics()
    return {key: found / count(key) if statistics[key].mean else found for key, found in sums.items()}


def _variance(squares: Tensor) -> float:
    """Return the trace of the covariance, from means of features and of their squares ``[N, 2]``."""
    mean, square = squares.unbind(1)
    return float((square - mean.square()).sum())
