"""Whether there is a browser to try a page in."""

import importlib.util
import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
"""Debian's Chromium, or nothing."""

FLAGS = [
    "--no-sandbox",  # a container's root has none, and the page is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

MISSING = " and ".join(
    name
    for name, found in (("Chromium", CHROMIUM), ("playwright", importlib.util.find_spec("playwright")))
    if not found
)
"""What a page cannot be tried without, and is not here."""
