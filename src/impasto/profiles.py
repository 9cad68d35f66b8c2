"""ICC colour profiles: what a file's numbers mean, to sRGB and back. Pure.

Pixels are arrays ``[H, W, C]``: bytes, 16-bit levels, or floats in 0..1.
"""

import functools

import imagecodecs
import numpy
import numpy.typing as npt

__all__ = ["Pixels", "from_srgb", "space", "srgb", "to_floats", "to_srgb"]

Pixels = npt.NDArray[numpy.uint8 | numpy.uint16 | numpy.float32]

_SPACES = {b"GRAY": ("gray", 1), b"RGB ": ("rgb", 3), b"CMYK": ("cmyk", 4)}
"""The colour spaces of a profile's header that pictures come in, and their channels."""


@functools.cache
def srgb() -> bytes:
    """Return the profile of sRGB, without the date that its maker stamps on it.

    Example:
        >>> space(srgb()), any(srgb()[24:36])
        ('rgb', False)
    """
    made = bytes(imagecodecs.cms_profile("srgb"))
    return made[:24] + bytes(12) + made[36:]


def space(profile: bytes) -> str | None:
    """Return gray, rgb or cmyk, or None if it is a profile of something else, or none at all."""
    return _SPACES[profile[16:20]][0] if profile[16:20] in _SPACES else None


def to_srgb(pixels: Pixels, profile: bytes) -> Pixels | None:
    """Return pixels of a profile as sRGB, ``[H, W, 3]``; what sRGB cannot show is clipped.

    Of bytes it makes 16-bit levels, of these and of floats floats; sRGB itself stays as it is.
    None means that the profile cannot be used: it is damaged, or of another colour space.

    Example:
        >>> to_srgb(numpy.full((1, 1, 3), 255, numpy.uint8), srgb()).tolist()
        [[[255, 255, 255]]]
    """
    name, channels = _SPACES.get(profile[16:20], ("", 0))
    if name == "rgb" and pixels.shape[2] == 1:  # greys in a picture of colours
        pixels = pixels.repeat(3, axis=2)
    if channels != pixels.shape[2]:
        return None
    if profile == srgb():  # what this project writes is read back to the last bit
        return pixels
    if channels > 1:
        return _transformed(pixels, profile, srgb(), name)
    if pixels.dtype != numpy.uint8:
        return _transformed(pixels[:, :, 0], profile, srgb(), name)
    # Little CMS is up to nine levels off for dark bytes of grey; there are only so many of them.
    ramp = _transformed(
        numpy.arange(256, dtype=numpy.float32)[None] / numpy.float32(255), profile, srgb(), name
    )
    return None if ramp is None else numpy.rint(ramp[0] * 65535).astype(numpy.uint16)[pixels[:, :, 0]]


def to_floats(pixels: Pixels) -> npt.NDArray[numpy.float32]:
    """Return bytes, 16-bit levels or floats as floats in 0..1.

    Example:
        >>> to_floats(numpy.full((1, 1, 1), 65535, numpy.uint16)).item()
        1.0
    """
    most = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
    return pixels.astype(numpy.float32) / numpy.float32(most)


def from_srgb(pixels: npt.NDArray[numpy.float32], profile: bytes) -> npt.NDArray[numpy.float32] | None:
    """Return sRGB floats ``[H, W, 3]`` in the colours of an RGB profile; None if that cannot be done."""
    if space(profile) != "rgb":
        return None
    if profile == srgb():
        return pixels
    found = _transformed(pixels, srgb(), profile, "rgb")
    return None if found is None else to_floats(found)


def _transformed(pixels: Pixels, source: bytes, target: bytes, name: str) -> Pixels | None:
    try:
        found: Pixels = imagecodecs.cms_transform(
            numpy.ascontiguousarray(pixels),
            source,
            target,
            colorspace=name,
            outcolorspace="rgb",
            # From bytes, levels of 16 bits are near enough and far sooner; from those they are not.
            outdtype="uint16" if pixels.dtype == numpy.uint8 else "float32",
        )
    except imagecodecs.CmsError:
        return None
    return found.clip(0, 1) if found.dtype == numpy.float32 else found
