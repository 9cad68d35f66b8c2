"""What this machine can do: device and precision, decided by what it has, never by a timing."""

import contextlib
import functools
import platform
from pathlib import Path

import torch

from impasto.errors import InputError

__all__ = [
    "DTYPES",
    "choose_device",
    "choose_precision",
    "describe",
    "has_bfloat16",
    "processor",
    "settle_vector_math",
]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}

VECTOR_MATH = (torch.acos, torch.cos, torch.exp, torch.sin, torch.sqrt)
"""The functions of the package that torch has Intel's MKL compute, in chunks, one for each thread."""


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is CUDA, else MPS, else the CPU.

    Raises:
        InputError: this machine, or this build of torch, has no such device.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    device = torch.device(name)
    missing = (
        device.type == "cuda" and not (cuda and (device.index or 0) < torch.cuda.device_count())
    ) or (device.type == "mps" and not mps)
    if missing:
        raise InputError(f"this machine has no device {name}; use --device auto or cpu")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of the features; ``auto`` is bf16 where there are instructions for it.

    Raises:
        InputError: the device cannot compute in that precision.
    """
    if name == "auto":
        name = "bfloat16" if has_bfloat16(device) else "float32"
    if name == "float64" and device.type == "mps":
        raise InputError("mps has no float64; use --precision float32 or --device cpu")
    return DTYPES[name]


def has_bfloat16(device: torch.device) -> bool:
    """Say whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16"})
    return False


def processor(device: torch.device) -> str:
    """Return the name of what computes.

    Example:
        >>> processor(torch.device("cpu")) != ""
        True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _of_cpu("model name") or f"{platform.machine()} {device.type}"


def describe(device: torch.device) -> str:
    """Return the device's name for people."""
    threads = torch.get_num_threads()
    with_threads = "" if device.type == "cuda" else f", {threads} thread{'s' * (threads != 1)}"
    return processor(device) + with_threads


@functools.cache
def settle_vector_math() -> None:
    """Call the elementary functions once, on one number each, before any large picture needs them.

    MKL chooses a function's kernel when it is first called. Where two threads ask at once, MKL 2024 may
    give one of them a kernel of low accuracy for this one call: other bytes by the same plan, once in a
    while (https://github.com/pytorch/pytorch/issues/188792).
    """
    for precision in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=precision, device="cpu")
        for function in VECTOR_MATH:
            function(number)


def _cpu_flags() -> set[str]:
    return set(_of_cpu("flags").split())


@functools.cache
def _of_cpu(field: str) -> str:
    """Return what Linux says of the first processor; nothing elsewhere."""
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""
