"""Layers have two names, and what needs no torch does not load it."""

import subprocess
import sys

import pytest

from impasto.errors import InputError
from impasto.layers import LAYERS, canonical, deepest, stride

# VGG-19, configuration E of Simonyan and Zisserman (2014), table 1.
CHANNELS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8


def test_the_layers_are_those_of_configuration_e() -> None:
    assert [layer.channels for layer in LAYERS.values()] == CHANNELS
    assert [layer.inputs for layer in LAYERS.values()] == [3, *CHANNELS[:-1]]
    assert [layer.block for layer in LAYERS.values()] == [1] * 2 + [2] * 2 + [3] * 4 + [4] * 4 + [5] * 4
    assert all(name == layer.name for name, layer in LAYERS.items())


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_answers_to_all_its_names(name: str) -> None:
    block, index = name[5], name[-1]
    for spelled in (name, f"conv{block}_{index}", f"relu{block}_{index}", f" {name.upper()}\n"):
        assert canonical(spelled) == name


@pytest.mark.parametrize(
    "name",
    ["", "block1_conv3", "conv6_1", "relu3_5", "conv0_1", "pool4", "block1_conv1x", "conv٤_2", "4"],
)
def test_a_name_that_no_layer_has_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="unknown layer") as caught:
        canonical(name)
    assert "\n" not in str(caught.value)
    assert "block1_conv1" in str(caught.value)


def test_a_misspelt_layer_is_told_the_near_one() -> None:
    with pytest.raises(InputError, match="did you mean block4_conv2"):
        canonical("blok4_conv2")


def test_the_deepest_layer_is_the_last_in_the_network_not_in_the_list() -> None:
    assert deepest(["block4_conv2", "block5_conv1", "block1_conv1"]) == "block5_conv1"
    assert deepest(["block3_conv4", "block3_conv1"]) == "block3_conv4"


def test_the_stride_doubles_with_every_pooling() -> None:
    assert [stride(f"block{block}_conv1") for block in range(1, 6)] == [1, 2, 4, 8, 16]
    assert stride("block3_conv4") == stride("block3_conv1")


HEAVY = "print(*sorted({'torch', 'numpy', 'PIL', 'skimage'} & set(sys.modules)))"


@pytest.mark.parametrize(
    "program",
    [
        "import impasto",
        "import impasto.recipe",
        "import impasto; impasto.Recipe(size=64)",
        "import impasto.layers, impasto.catalog, impasto.files, impasto.errors, impasto.events",
        "from impasto.__main__ import main; assert main(['--help']) == 0",
        "from impasto.__main__ import main; assert main(['--version']) == 0",
        "from impasto.__main__ import main; assert main(['transfr']) == 2",
        "from impasto.__main__ import main\ntry: main(['transfer', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_names_options_and_help_load_neither_torch_nor_numpy(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint()\n{HEAVY}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "", done.stdout


def test_everything_that_the_package_names_can_be_had_from_it() -> None:
    import impasto

    for name in impasto.__all__:
        assert getattr(impasto, name).__name__.endswith(name)
    with pytest.raises(AttributeError, match="no attribute 'paint'"):
        impasto.paint  # noqa: B018
