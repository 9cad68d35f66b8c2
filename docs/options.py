"""Draw `docs/options.md` from the fields of `Recipe` (`make fix`); --check compares it."""

import ast
import dataclasses
import inspect
import sys
from pathlib import Path

from impasto import recipe
from impasto.catalog import OPTIMIZERS, PRESETS

PAGE = Path(__file__).with_name("options.md")


def helps() -> dict[str, str]:
    """Return the line of help below each field of `Recipe`."""
    (tree,) = (
        node
        for node in ast.parse(inspect.getsource(recipe)).body
        if isinstance(node, ast.ClassDef) and node.name == "Recipe"
    )
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} has no help"
            assert isinstance(text.value, ast.Constant)
            found[field.target.id] = str(text.value.value)
    return found


def plain(value: object) -> str:
    """Return a value as a user writes it."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def page() -> str:
    """Return the page."""
    text = helps()
    lines = [
        "# Options",
        "",
        "Every option of `transfer`, `texture` and `reconstruct`, and what `measure` takes of them.",
        "`style_layers` is a key of a recipe file (TOML) and a name in Python; its flag is",
        "`--style-layers`. A flag wins over the recipe file, the recipe file over the preset;",
        "what is true or false has two, `--tileable` and `--no-tileable`.",
        "",
        "| option | default | meaning |",
        "|---|---|---|",
    ]
    for field in dataclasses.fields(recipe.Recipe):
        shown = plain(field.default)
        cell = f"`{shown}`" if shown else ""
        lines.append(f"| `{field.name}` | {cell} | {text[field.name]} |".replace("|  |", "| |"))
    lines += ["", "## Optimizers", "", "| optimizer | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {line} |" for name, line in OPTIMIZERS.items()]
    lines += ["", "## Presets", "", "| preset | what it is | sets |", "|---|---|---|"]
    for name, preset in PRESETS.items():
        fields = ", ".join(f"{key} {plain(value)}" for key, value in preset.fields.items())
        lines.append(f"| `{name}` | {preset.help} | {fields or 'nothing'} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or compare it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write("docs/options.md is out of date; run: make fix\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
