"""What can be chosen by name, each with one line of help. No torch.

A preset is a set of recipe fields; what it does not name keeps the default.
"""

from typing import NamedTuple

from impasto.layers import REPORT_CONTENT, REPORT_STYLE

__all__ = ["COMMANDS", "OPTIMIZERS", "PRESETS", "STYLE_LOSSES", "Preset"]

COMMANDS: dict[str, str] = {
    "transfer": "paint a photograph in the manner of one or several paintings",
    "texture": "style reconstruction: a painting's manner without a photograph",
    "reconstruct": "content reconstruction: what the content layers keep of a photograph",
    "measure": "losses of a finished picture under a recipe, and measures beside them",
    "show": "say how a picture was made, as it says itself",
    "replay": "make a picture again from its files, and say whether the pixels agree",
    "style": "learn a painting's style into a file that stands for the painting",
    "sweep": "many runs: every combination of the values of some options, on one sheet",
    "study": "the figures of the report, and the studies its conclusion asks for",
    "demo": "stylise a built-in photograph with a built-in painting",
    "samples": "write the built-in pictures into a folder",
    "weights": "list, verify and fetch VGG-19 weights",
    "runs": "list, show or remove what is kept of runs that were stopped",
    "info": "machine, versions, precision and weights",
}


STYLE_LOSSES: dict[str, str] = {
    "gram": "Gram matrices, the report's",
    "covariance": "covariances: Gram matrices without the mean",
    "mmd-linear": "means alone",
    "mmd-poly": "polynomial kernel of degree 2: Gram matrices and --mmd-constant times the means",
    "mmd-gaussian": "Gaussian kernel, by random Fourier features",
    "mmd-gaussian-paired": "Gaussian kernel, by pairs of positions",
    "bn": "means and standard deviations",
    "gram-mean-std": "Gram matrices, means and standard deviations",
    "wasserstein": "2-Wasserstein distance of Gaussians",
    "sliced": "sliced Wasserstein distance of sampled positions",
    "histogram": "each channel's histogram, by sorted samples",
    "nearest": "nearest neighbours by cosine, over all layers at once",
    "nearest-patches": "nearest neighbours of 3x3 patches, layer by layer",
}
"""The style losses; `losses.STYLE_LOSSES` has their rows."""


OPTIMIZERS: dict[str, str] = {
    "lbfgs": "L-BFGS, inside the box 0..1: few iterations",
    "adam": "Adam, the report's",
    "amsgrad": "Adam by the largest second moment so far",
    "nadam": "Adam with Nesterov's momentum",
    "adamax": "Adam by the largest gradient so far instead of the second moment",
    "sgd": "gradient descent with --momentum",
    "langevin": "sgd with noise of a --temperature that falls to zero; finer levels take sgd",
    "multistart": "L-BFGS from several --starts, the best goes on; finer levels take lbfgs",
}
"""The optimisers; `optimize.OPTIMIZERS` has their rows."""


class Preset(NamedTuple):
    """A named recipe: its line of help and the fields it sets."""

    help: str
    fields: dict[str, object]


_REPORT: dict[str, object] = {
    "weighting": "report",
    "alpha": 1e-3,
    "beta": 1.0,
    "tv": 0.0,
    "content_layers": REPORT_CONTENT,
    "style_layers": REPORT_STYLE,
    "pooling": "average",
    "padding": "zeros",
    "init": "noise",
    "levels": (1,),
    "patience": 0,
    "iterations": 1000,
}

PRESETS: dict[str, Preset] = {
    "default": Preset("what we find best to look at", {}),
    "draft": Preset(
        "a first look in well under a minute: 256 px, 40 iterations",
        {"size": 256, "iterations": 40},
    ),
    "report": Preset(
        "exactly the report: equations 1 to 5, white noise, Adam 0.02, 1000 iterations",
        {**_REPORT, "optimizer": "adam", "learning_rate": 0.02, "adam_betas": (0.9, 0.999)},
    ),
    "gatys": Preset(
        "the report's equations with L-BFGS, as Gatys et al. descend",
        {**_REPORT, "optimizer": "lbfgs", "precondition": 0.0},
    ),
}
