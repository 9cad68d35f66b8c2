"""The objective: how far a picture is from the content and the style; value and gradient."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from impasto import losses
from impasto.errors import InputError
from impasto.events import Losses
from impasto.recipe import Recipe
from impasto.summaries import as_matrix, gram
from impasto.vgg import VGG19

__all__ = ["Evaluation", "Objective"]

_FLAT = 1e-4
"""A target with less than this share of white noise's energy counts as flat: see `_noise`."""


@dataclass(frozen=True)
class Evaluation:
    """The losses of a picture and the gradient of their total, ``[3, H, W]``."""

    losses: Losses
    gradient: Tensor


@dataclass(frozen=True)
class _Term:
    """One layer's target, and the factor that its equation is multiplied with: 1 as reported."""

    target: Tensor
    factor: float = 1.0


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
        self, recipe: Recipe, network: VGG19, content: Tensor | None, styles: Sequence[Tensor]
    ) -> None:
        """Take the targets from the content ``[3, H, W]`` and the styles, each of its own size.

        Raises:
            InputError: alpha and beta leave nothing to compare with.
        """
        self.recipe = recipe
        self.network = network
        self.content: dict[str, _Term] = {}
        self.style: dict[str, _Term] = {}
        with torch.no_grad():
            if content is not None and recipe.alpha > 0:
                self._aim_at_content(content)
            if styles and recipe.beta > 0:
                self._aim_at_styles(styles)
        if not (self.content or self.style):
            raise InputError(
                "nothing to compare with: a photograph counts only with --alpha over 0, "
                "a painting only with --beta over 0"
            )

    def _aim_at_content(self, content: Tensor) -> None:
        layers = self.recipe.content_layers
        self.content = {name: _Term(target) for name, target in self.network(content, layers).items()}
        if self.recipe.weighting == "report":
            return
        for name, gram_of_noise in self._noise(layers, content).items():
            target = self.content[name].target
            energy = losses.squared_distance(target, torch.zeros_like(target)).item()
            floor = _FLAT * as_matrix(target).shape[1] * gram_of_noise.trace().item()
            self.content[name] = _Term(target, 2 / max(energy, floor))

    def _aim_at_styles(self, styles: Sequence[Tensor]) -> None:
        layers = self.recipe.style_layers
        shares = self.recipe.weight_of_styles(len(styles))
        targets: dict[str, Tensor] = {}
        for picture, share in zip(styles, shares, strict=True):
            for name, part in self._mean_grams(picture, layers).items():
                targets[name] = targets.get(name, torch.zeros_like(part)) + share * part
        self.style = {name: _Term(target) for name, target in targets.items()}
        if self.recipe.weighting == "report":
            return
        for name, gram_of_noise in self._noise(layers, styles[0]).items():
            target = targets[name]
            energy = target.square().sum().item()
            floor = _FLAT**2 * gram_of_noise.square().sum().item()
            self.style[name] = _Term(target, 4 * target.shape[0] ** 2 / max(energy, floor))

    def _mean_grams(self, picture: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        return {
            name: losses.exact(_mean_gram(features))
            for name, features in self.network(picture, layers).items()
        }

    def _noise(self, layers: Sequence[str], like: Tensor) -> dict[str, Tensor]:
        """Return the Gram matrices of white noise: the yardstick for what counts as flat.

        A flat picture may leave a layer silent; relative to nothing, every error is infinite. So no
        error is taken relative to less than a small share of the network's own response to noise,
        which fits any weights and pooling.
        """
        generator = torch.Generator().manual_seed(0)
        return self._mean_grams(torch.rand(3, 64, 64, generator=generator).to(like), layers)

    def __call__(self, picture: Tensor) -> Evaluation:
        """Return losses and gradient at a picture ``[3, H, W]`` in 0..1."""
        picture = picture.detach().requires_grad_()
        value, found = self._losses(picture)
        (gradient,) = torch.autograd.grad(value, picture)
        return Evaluation(found, gradient)

    @torch.no_grad()
    def losses(self, picture: Tensor) -> Losses:
        """Return the losses alone, in a third of the time."""
        return self._losses(picture)[1]

    def _losses(self, picture: Tensor) -> tuple[Tensor, Losses]:
        recipe = self.recipe
        features = self.network(picture, (*self.content, *self.style))
        zero = losses.exact(picture.new_zeros(()))
        content = {
            name: losses.exact(losses.content_loss(features[name], term.target)) * term.factor
            for name, term in self.content.items()
        }
        style = {
            name: losses.style_layer_loss(_mean_gram(features[name]), term.target) * term.factor
            for name, term in self.style.items()
        }
        content_loss = sum(content.values(), zero) / max(1, len(content))
        style_loss = losses.style_loss(style, recipe.weight_of_layer) if style else zero
        total = losses.total_loss(content_loss, style_loss, recipe.alpha, recipe.beta)
        tv = losses.exact(losses.total_variation(picture)) if recipe.tv else zero
        total = total + recipe.tv * tv
        found = Losses(
            total=total.item(),
            content=content_loss.item(),
            style=style_loss.item(),
            tv=tv.item(),
            content_layers={name: loss.item() for name, loss in content.items()},
            style_layers={name: loss.item() for name, loss in style.items()},
        )
        return total, found


def _mean_gram(features: Tensor) -> Tensor:
    return gram(features) / as_matrix(features).shape[1]
