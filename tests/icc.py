"""Colour profiles for tests: what they mean is known, and they bear no date."""

import itertools
import struct

import imagecodecs

ADOBE = [0.64, 0.33, 1, 0.21, 0.71, 1, 0.15, 0.06, 1]
"""The primaries of Adobe RGB, as xyY."""


def undated(profile: bytes) -> bytes:
    """Return a profile without the date that its maker stamps on it."""
    return profile[:24] + bytes(12) + profile[36:]


def wide() -> bytes:
    """Return a profile with Adobe RGB's primaries, the white of D65 and a gamma of 2.2."""
    white = [0.3127, 0.3290, 1.0]
    return undated(bytes(imagecodecs.cms_profile("rgb", whitepoint=white, primaries=ADOBE, gamma=2.2)))


def linear() -> bytes:
    """Return a profile of greys that are proportional to light."""
    return undated(bytes(imagecodecs.cms_profile("gray", gamma=1.0)))


def inks() -> bytes:
    """Return a profile of inks, each of which takes a quarter of the lightness L*."""
    corners = itertools.product((0, 1), repeat=4)
    lab = b"".join(bytes([round(255 * (1 - sum(inks) / 4)), 128, 128]) for inks in corners)
    one = (65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *one)
    table += bytes(range(256)) * 4 + lab + bytes(range(256)) * 3
    head = bytearray(128)
    struct.pack_into(">I", head, 0, 144 + len(table))
    head[8:24] = b"\x02\x40\x00\x00prtrCMYKLab "
    head[36:40] = b"acsp"
    struct.pack_into(">3i", head, 68, 63190, 65536, 54061)
    return bytes(head) + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table
