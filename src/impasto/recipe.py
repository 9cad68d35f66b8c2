"""Every option of a run, declared once: type, default, range, help. No torch.

The command line's flags, the recipe file's keys and the reference in ``docs/options.md`` are derived
from here.
"""

import dataclasses
import json
import math
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass

from impasto.catalog import OPTIMIZERS, PRESETS, STYLE_LOSSES
from impasto.errors import InputError, near
from impasto.layers import LAYERS, REPORT_CONTENT, REPORT_STYLE, canonical, deepest

__all__ = ["Recipe", "as_toml", "memory_bytes", "read_toml"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

_SMALLEST_SIDE, _LARGEST_SIDE = 16, 30_000
_MOST_LEVELS = 12
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_COLOR_METHODS = {
    "style": (),
    "content": ("lab", "luminance"),
    "match": ("monge", "pca", "cholesky", "histogram"),
}
_SEARCHES = {"langevin": ("patience",), "multistart": ("patience", "average")}
"""Optimisers that climb at times, and what is refused beside them."""

_MAX_FILE_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """How the picture is made; also the keys of a recipe file (TOML).

    Raises:
        InputError: a value is out of its range, or two of them contradict each other.

    Example:
        >>> Recipe(size=256, style_layers=("conv1_1", "conv2_1")).style_layers
        ('block1_conv1', 'block2_conv1')
    """

    size: int | str = 512
    """Long side in pixels, enlarging if need be, or full, the photo's; for texture also WIDTHxHEIGHT."""
    levels: tuple[int | Literal["auto"], ...] = ("auto",)
    """Coarse to fine: auto (from 256 px, doubling), a number of levels, or rising long sides."""
    alpha: Weight = 0.03
    """Weight of the content loss."""
    beta: Weight = 1.0
    """Weight of the style loss."""
    tv: Weight = 0.1
    """Weight of total variation, a mean per pixel: against speckle and checkerboard in flat areas."""
    tv_norm: Literal["l2", "l1"] = "l2"
    """Of the differences of neighbours: l2 squares them, l1 spares edges."""
    weighting: Literal["balanced", "report"] = "balanced"
    """balanced: each loss relative to its target, the same at any size; report: equations 1 to 5."""
    style_loss: tuple[str, ...] = ("gram",)
    """What is compared of the style: one or several of the losses listed above."""
    style_loss_weights: tuple[Weight, ...] = ()
    """One weight per style loss; without it each is 1 / their number."""
    mmd_constant: Weight = 1.0
    """The constant c of mmd-poly's kernel, times each layer's mean squared feature; 0 is gram."""
    content_loss: Literal["mse", "self-similarity", "none"] = "mse"
    """mse: equation 1; self-similarity: how alike places are to each other; none: no content loss."""
    content_layers: tuple[str, ...] = REPORT_CONTENT
    """Layers of the content loss, averaged (block4_conv2, conv4_2 or relu4_2 mean the same)."""
    style_layers: tuple[str, ...] = REPORT_STYLE
    """Layers of the style loss."""
    layer_weights: tuple[Weight | str, ...] = ()
    """One w_l per style layer, or LAYER=w ..., or a rule: equal (1 / number of layers, the default),
    1/N^2 by channels, geometric R, each R times the one before; rules sum to 1."""
    style_weights: tuple[Weight, ...] = ()
    """One weight per style picture, scaled to sum to 1; without it all are equal."""
    style_scale: tuple[Annotated[float, Field(ge=1 / 64, le=8)], ...] = (1.0,)
    """The style's long side over the picture's, one for all or one per style: the size of strokes."""
    style_mix: Literal["mixture", "barycenter"] = "mixture"
    """Of several styles: the mixture of their summaries, or, for wasserstein, the barycentre."""
    color: Literal["style", "content", "match"] = "style"
    """style: the painting's colours; content: the photograph's, put back at the end; match: the
    painting's are first matched to the photograph's."""
    color_method: Literal["auto", "lab", "luminance", "monge", "pca", "cholesky", "histogram"] = "auto"
    """Of content: lab (auto) or luminance alone; of match: monge (auto), pca, cholesky or histogram."""
    color_strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How much of that is done, 0 to 1."""
    denoise: Weight = 0.0
    """Weight of Chambolle's total variation denoising of the finished picture; 0.1 is much."""
    tileable: bool = False
    """Make it repeat without a seam: circular padding, sides rounded up to multiples of 16."""
    mask_spread: Literal["area", "inside", "all"] = "area"
    """Of a layer's cells a region counts: area, each by its share; inside, those that see nothing else;
    all, those that see any of it."""
    optimizer: str = "lbfgs"
    """How the picture descends: a name from the list of optimizers."""
    iterations: Count = 100
    """Optimiser steps, over all levels; 0 returns the start."""
    patience: Count = 0
    """Stop when the total fell by less than 1 % over this many iterations; 0 never does."""
    learning_rate: Positive = 0.02
    """Adam's step, in units of the 0..1 pixel range; of sgd, how far its first moves the mean pixel."""
    adam_betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the first and second moments, of Adam and its variants."""
    momentum: Share = 0.9
    """How much of its last step sgd repeats; langevin too."""
    temperature: Weight = 1e-3
    """Strength of langevin's noise at first; it falls to zero over the iterations."""
    starts: Annotated[int, Field(ge=1, le=100)] = 4
    """How many multistart tries in the first half of the iterations: as given, the others half noise."""
    average: Share = 0.0
    """Return the mean of the iterates, each weighing this much of the next: 0.9 for a calmer picture."""
    history: Annotated[int, Field(ge=1, le=1000)] = 20
    """Pairs of steps that L-BFGS remembers; each costs 24 bytes per pixel."""
    precondition: Annotated[float, Field(ge=0, le=2)] = 0.5
    """L-BFGS steps further at low frequencies f, by f to minus twice this power; 0 for plain L-BFGS."""
    init: str = "content"
    """Start from content, noise (the report's white noise), style, gray, or a picture file."""
    pooling: Literal["average", "max", "l2"] = "average"
    """Pooling between the network's blocks; average is the report's."""
    padding: Literal["zeros", "replicate", "reflect", "circular"] = "replicate"
    """Border of every convolution; zeros is the paper's and leaves a faint frame."""
    transparency: Literal["keep", "white", "black"] = "keep"
    """keep: the photograph's alpha is put back, colours go on below it; white, black: laid over it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all that is drawn by chance."""
    weights: str = "vgg19-embedded"
    """VGG-19 weights: a name from `impasto weights list`, or a .pth, .h5 or .safetensors file."""
    weights_sha256: str = ""
    """SHA-256 that the weights file must have."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    memory: str = "auto"
    """The most memory that the run may hold, e.g. 4GiB; auto is most of what is free."""
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """Of the features; auto is bfloat16 where the machine has instructions for it, else fast float32."""

    @field_validator("levels", "layer_weights", "style_loss", "style_scale", mode="before")
    @classmethod
    def _several(cls, values: Any) -> Any:  # noqa: ANN401
        return values if isinstance(values, list | tuple) else (values,)

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, data: Any, handler: Any) -> Self:  # noqa: ANN401 (pydantic's own signature)
        try:
            return handler(data)  # type: ignore[no-any-return]
        except ValidationError as error:
            raise InputError(_describe(error)) from None

    def __post_init__(self) -> None:
        """Bring layer names to one form and check what one field alone cannot."""
        for field in ("content_layers", "style_layers"):
            names = tuple(canonical(name) for name in getattr(self, field))
            object.__setattr__(self, field, names)
            if len(set(names)) < len(names):
                raise InputError(f"{_flag(field)} names a layer twice; name each layer once")
            if not names:
                raise InputError(f"{_flag(field)} needs at least one layer")
        if not any(self.weight_of_layer.values()):
            raise InputError("--layer-weights are all zero; at least one must be positive")
        allowed = _COLOR_METHODS[self.color]
        if self.color_method not in ("auto", *allowed):
            known = " or ".join(("auto", *allowed))
            raise InputError(
                f"--color {self.color} has no --color-method {self.color_method}; use {known}"
            )
        if self.color_method == "luminance" and self.color_strength not in (0, 1):
            raise InputError("--color-method luminance has no --color-strength between 0 and 1; use lab")
        if self.tileable and self.padding not in (type(self).padding, "circular"):
            raise InputError("--tileable needs --padding circular; leave --padding out")
        if self.style_weights and sum(self.style_weights) == 0:
            raise InputError("--style-weights are all zero; at least one must be positive")
        for name in self.style_loss:
            if name not in STYLE_LOSSES:
                known = ", ".join(STYLE_LOSSES)
                raise InputError(
                    f"unknown style loss {name!r}; there are {known}{near(name, STYLE_LOSSES)}"
                )
        if self.optimizer not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise InputError(
                f"unknown optimizer {self.optimizer!r}; there are {known}"
                f"{near(self.optimizer, OPTIMIZERS)}"
            )
        for field in _SEARCHES.get(self.optimizer, ()):
            if getattr(self, field):
                raise InputError(
                    f"--{field} needs one steady descent, and --optimizer {self.optimizer} searches; "
                    f"leave --{field} out or use another optimizer"
                )
        if self.style_mix == "barycenter" and self.style_loss != ("wasserstein",):
            raise InputError("--style-mix barycenter is for --style-loss wasserstein alone")
        if len(set(self.style_loss)) < max(1, len(self.style_loss)):
            raise InputError("--style-loss needs at least one loss, and each only once")
        if self.style_loss_weights and len(self.style_loss_weights) != len(self.style_loss):
            raise InputError(
                f"--style-loss-weights has {len(self.style_loss_weights)} weights for "
                f"{len(self.style_loss)} losses; give one per loss of --style-loss"
            )
        if self.style_loss_weights and sum(self.style_loss_weights) == 0:
            raise InputError("--style-loss-weights are all zero; at least one must be positive")
        if self.alpha == self.beta == 0:
            raise InputError("--alpha and --beta are both zero; at least one must be positive")
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,2})?|mps", self.device):
            raise InputError(f"unknown device {self.device!r}; use auto, cpu, cuda, cuda:N or mps")
        if self.weights_sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", self.weights_sha256):
            raise InputError("--weights-sha256 needs 64 hexadecimal digits")
        if len(self.sides) == 1:
            object.__setattr__(self, "size", self.sides[0])  # "512" is 512
        self._check_levels()
        if self.memory != "auto" and memory_bytes(self.memory) < 1:
            raise InputError("--memory is nothing; use for example 4GiB")
        for side in self.sides:
            if not _SMALLEST_SIDE <= side <= _LARGEST_SIDE:
                raise InputError(
                    f"--size {self.size} is out of range; use {_SMALLEST_SIDE} to {_LARGEST_SIDE}"
                )

    def _check_levels(self) -> None:
        numbers = [level for level in self.levels if level != "auto"]
        if len(self.levels) == 1 and (not numbers or 1 <= numbers[0] <= _MOST_LEVELS):
            return
        named = len(numbers) == len(self.levels) > 0 and numbers[0] >= _SMALLEST_SIDE
        if not (named and all(one < two for one, two in pairwise(numbers))):
            raise InputError(
                f"--levels {' '.join(map(str, self.levels))}: use auto, a number of levels up to "
                f"{_MOST_LEVELS}, or rising long sides from {_SMALLEST_SIDE} px"
            )

    @property
    def sides(self) -> tuple[int, ...]:
        """The size as (long side,) or (width, height); nothing where it is the picture's own, full."""
        if self.size == "full":
            return ()
        match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(self.size))
        if not match:
            raise InputError(f"--size {self.size!r} is not a size; use a long side, e.g. 512, or full")
        return tuple(int(side) for side in match.groups() if side)

    def layers_in_use(self, content: bool, style: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the content and the style layers that count where there are such pictures.

        Raises:
            InputError: none does.
        """
        found = (
            self.content_layers if content and self.wants_content else (),
            self.style_layers if style and self.beta else (),
        )
        if not any(found):
            raise InputError(
                "nothing to compare with: a photograph counts only with --alpha over 0 and a "
                "--content-loss, a painting only with --beta over 0"
            )
        return found

    @property
    def border(self) -> str:
        """The padding in force."""
        return "circular" if self.tileable else self.padding

    @property
    def wants_content(self) -> bool:
        """Whether a content picture counts, where there is one."""
        return self.alpha > 0 and self.content_loss != "none"

    @property
    def deepest_layer(self) -> str:
        """The last layer that the network is needed for."""
        return deepest((*self.content_layers, *self.style_layers))

    @property
    def weight_of_layer(self) -> dict[str, float]:
        """The weight w_l of each style layer.

        Example:
            >>> Recipe(style_layers=("conv1_1", "conv2_1"), layer_weights=("1/N^2",)).weight_of_layer
            {'block1_conv1': 0.8, 'block2_conv1': 0.2}
        """
        layers = self.style_layers
        numbers = [weight for weight in self.layer_weights if not isinstance(weight, str)]
        words = [weight for weight in self.layer_weights if isinstance(weight, str)]
        match words:
            case [] if numbers:
                if len(numbers) != len(layers):
                    raise InputError(
                        f"--layer-weights has {len(numbers)} weights for {len(layers)} style layers; "
                        "give one per layer of --style-layers"
                    )
                return dict(zip(layers, numbers, strict=True))
            case [] | ["equal"] if not numbers:
                rule = [1.0] * len(layers)
            case ["1/N^2"] if not numbers:
                rule = [1 / LAYERS[name].channels ** 2 for name in layers]
            case ["geometric"] if len(numbers) == 1 and 1e-6 <= numbers[0] <= 1e6:
                rule = [numbers[0] ** index for index in range(len(layers))]
            case _ if not numbers and all("=" in word for word in words):
                return self._named_weights(words)
            case _:
                raise InputError(
                    f"--layer-weights {' '.join(map(str, self.layer_weights))}: give one number per "
                    "style layer, LAYER=w ..., equal, 1/N^2, or geometric R"
                )
        return {name: weight / sum(rule) for name, weight in zip(layers, rule, strict=True)}

    def _named_weights(self, words: list[str]) -> dict[str, float]:
        found = dict.fromkeys(self.style_layers, 0.0)
        for word in words:
            name, _, number = word.partition("=")
            if (layer := canonical(name)) not in found:
                raise InputError(f"--layer-weights {word}: {layer} is none of the --style-layers")
            try:
                found[layer] = float(number)
            except ValueError:
                found[layer] = math.nan
            if not 0 <= found[layer] < math.inf:
                raise InputError(f"--layer-weights {word}: the weight must be a number of 0 or more")
        return found

    def scale_of_styles(self, count: int) -> tuple[float, ...]:
        """Return the scale of each of ``count`` style pictures.

        Raises:
            InputError: ``style_scale`` are of another number.
        """
        scales = self.style_scale
        if len(scales) not in (1, count):
            raise InputError(
                f"--style-scale has {len(scales)} scales for {count} style "
                f"picture{'s' * (count != 1)}; give one for all or one per style"
            )
        return scales * count if len(scales) == 1 else scales

    @property
    def weight_of_style_loss(self) -> dict[str, float]:
        """The weight of each style loss."""
        weights = self.style_loss_weights or (1 / len(self.style_loss),) * len(self.style_loss)
        return dict(zip(self.style_loss, weights, strict=True))

    def weight_of_styles(self, count: int) -> tuple[float, ...]:
        """Return the weight of each of ``count`` style pictures, summing to 1.

        Raises:
            InputError: ``style_weights`` are of another number.
        """
        weights = self.style_weights or (1.0,) * count
        if len(weights) != count:
            raise InputError(
                f"--style-weights has {len(weights)} weights for {count} style "
                f"picture{'s' * (count != 1)}; give one per style"
            )
        return tuple(weight / sum(weights) for weight in weights)

    def words(self) -> list[str]:
        """Return the command line's words for all that is not the default.

        Example:
            >>> Recipe(size=64, layer_weights=("geometric", 2), tileable=True).words()
            ['--size', '64', '--layer-weights', 'geometric', '2.0', '--tileable']
        """
        words = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                several = value if isinstance(value, tuple) else () if value is True else (value,)
                words += [_flag(field.name), *map(str, several)]
        return words

    @staticmethod
    def preset_fields(name: str) -> dict[str, object]:
        """Return the fields that a preset sets.

        Raises:
            InputError: there is no such preset.
        """
        if name not in PRESETS:
            known = ", ".join(PRESETS)
            raise InputError(f"unknown preset {name!r}; there are {known}{near(name, PRESETS)}")
        return dict(PRESETS[name].fields)

    @classmethod
    def from_preset(cls, name: str, **fields: object) -> Self:
        """Return the recipe of a preset, with ``fields`` laid over it.

        Raises:
            InputError: there is no such preset, or a field is not allowed.

        Example:
            >>> Recipe.from_preset("report").iterations
            1000
        """
        return cls(**{**cls.preset_fields(name), **fields})  # type: ignore[arg-type]


def memory_bytes(text: str) -> int:
    """Return the bytes that a text like 4GiB, 500M or 2.5g means; units are powers of 1024.

    Raises:
        InputError: it means none.

    Example:
        >>> memory_bytes("2GiB"), memory_bytes("1.5k")
        (2147483648, 1536)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise InputError(f"--memory {text!r} is no amount of memory; use for example 4GiB or 500MiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def read_toml(path: Path) -> dict[str, object]:
    """Return the fields of a recipe file: TOML with the recipe's names as keys.

    Raises:
        InputError: the file is missing, too large, no TOML, or has an unknown key.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"recipe {path} is over 256 KiB; a recipe is a few lines of TOML")
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read recipe {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"recipe {path} is not TOML: {error}") from None
    known = [field.name for field in dataclasses.fields(Recipe)]
    keys = [key.replace("-", "_") for key in fields]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise InputError(f"recipe {path} has {twice.pop()!r} twice, with - and with _; keep one")
    fields = dict(zip(keys, fields.values(), strict=True))
    for key in fields:
        if key not in known:
            raise InputError(f"recipe {path}: unknown key {key!r}{near(key, known)}")
    return fields


def as_toml(recipe: Recipe) -> str:
    """Return a recipe as the text of a recipe file, with every option.

    Example:
        >>> as_toml(Recipe(size=64)).splitlines()[:2]
        ['size = 64', 'levels = ["auto"]']
    """
    # TOML writes words, numbers, truth and lists of them as JSON does.
    fields = dataclasses.asdict(recipe).items()
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields)


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _describe(error: ValidationError) -> str:
    """Return pydantic's first complaint in one line that names the flag."""
    first = error.errors(include_url=False)[0]
    field, *_ = (str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        known = [entry.name for entry in dataclasses.fields(Recipe)]
        return f"a recipe has no field {field!r}{near(field, known)}"
    value, message = first["input"], first["msg"]
    message = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{_flag(field)} {value!r} is not allowed; it should be {message}"
