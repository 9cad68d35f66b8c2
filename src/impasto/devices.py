"""What this machine can do: device and precision, decided by what it has, never by a timing."""

import platform
from pathlib import Path

import torch

from impasto.errors import InputError

__all__ = ["DTYPES", "choose_device", "choose_precision", "describe", "has_bfloat16"]

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


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


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return set()
    lines = (line for line in text.splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())


def describe(device: torch.device) -> str:
    """Return the device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{platform.machine()} {device.type}, {threads} thread{'s' * (threads != 1)}"
