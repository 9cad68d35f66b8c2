"""How a picture was made, carried inside the picture: JSON in an XMP packet. No torch.

PNG, JPEG, WebP and TIFF all hold such a packet. What stands in it comes from the run alone: no path, no
name of a file, no date. What is read back is a stranger's word, and nothing in it is opened or run.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, unescape

__all__ = ["FILE", "packed", "unpacked"]

FILE = "file"
"""Stands for the name of a file of the user's."""

SCHEMA = 1
"""The form of what is written. Another one is refused, never guessed."""

_MOST = 60_000
"""A JPEG holds 64 kB of it."""

_OPENING, _CLOSING = b"<impasto:made>", b"</impasto:made>"
_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:impasto="urn:impasto:made:1">'
    "{}"
    "</rdf:Description></rdf:RDF></x:xmpmeta>"
    '<?xpacket end="r"?>'
)


def packed(made: Mapping[str, Any]) -> bytes:
    """Return the XMP packet that says so; nothing if that would be more than a JPEG holds.

    Reference: ISO 16684-1, "Extensible metadata platform (XMP)".

    Example:
        >>> unpacked(packed({"recipe": {"size": 512}}))
        {'recipe': {'size': 512}, 'schema': 1}
    """
    said = json.dumps({**made, "schema": SCHEMA}, separators=(",", ":"))
    packet = _PACKET.format(_OPENING.decode() + escape(said) + _CLOSING.decode()).encode()
    return packet if len(packet) <= _MOST else b""


def unpacked(packet: bytes) -> dict[str, Any] | None:
    """Return what a packet says, or None if it says nothing of this kind, or damaged.

    Example:
        >>> unpacked(b"<x:xmpmeta>of another program</x:xmpmeta>") is None
        True
    """
    found = re.search(re.escape(_OPENING) + rb"([^<]{2,%d})" % _MOST + re.escape(_CLOSING), packet)
    if found is None:
        return None
    try:
        said = json.loads(unescape(found[1].decode()))
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) and said.get("schema") == SCHEMA else None
