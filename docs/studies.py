"""Draw the list in `docs/studies.md` from what the studies say (`make fix`); --check compares it.

What stands before and after the list is written by hand.
"""

import re
import sys
from pathlib import Path

from impasto.studies import STUDIES, sections

PAGE = Path(__file__).with_name("studies.md")
BEGIN, END = "<!-- the list: make fix -->\n", "<!-- its end -->\n"


def listed() -> str:
    """Return the list."""
    lines = []
    for name in STUDIES:
        said = sections(name)
        lines += [f"### {said['Title']}", "", f"`{said['Command']}`", ""]
        lines += [f"{said['Shows']} {said['Takes']}", "", f"*Look for:* {said['Look for']}", ""]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with its list as it should be."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{listed()}\n{END}", text, flags=re.DOTALL)


def main() -> int:
    """Write the page, or compare it."""
    text = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        PAGE.write_text(page(text), encoding="utf-8")
        return 0
    if text == page(text):
        return 0
    sys.stderr.write("docs/studies.md is out of date; run: make fix\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
