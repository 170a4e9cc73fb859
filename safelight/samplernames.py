"""Names of samplers and schedules: ours, and those that other programs write into pictures.

Theirs are facts of their menus (AUTOMATIC1111's web interface 1.10, ComfyUI, InvokeAI), November
2026. What has no counterpart here is kept as it was written.
"""

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["A1111_SAMPLERS", "A1111_SCHEDULES", "known_sampler", "known_schedule"]

A1111_SAMPLERS: Final[Mapping[str, str]] = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "lms": "LMS",
    "pndm": "PLMS",
    "tcd": "TCD",
    "unipc": "UniPC",
}
A1111_SCHEDULES: Final[Mapping[str, str]] = {
    "ays": "Align Your Steps",
    "beta": "Beta",
    "exponential": "Exponential",
    "karras": "Karras",
    "leading": "DDIM",
    "linspace": "Uniform",
    "sgm_uniform": "SGM Uniform",
    "trailing": "Turbo",
}
# Spellings of other programs, squeezed as `_squeeze` does.
_OTHER_SAMPLERS: Final[Mapping[str, str]] = {
    "dpm2ancestral": "dpm2_a",
    "dpmpp2sancestral": "dpmpp_2s_a",
    "eulerancestral": "euler_a",
    "unipcbh2": "unipc",
}
_OTHER_SCHEDULES: Final[Mapping[str, str]] = {
    "ddimuniform": "leading",
    "alignyoursteps": "ays",
    "normal": "linspace",
}
# What follows a sampler's name in one: a schedule, or where it ran.
_SUFFIXES: Final = ("karras", "exponential", "sgmuniform", "gpu")


def known_sampler(name: str) -> tuple[str, str]:
    """Give our sampler for another program's name, and the schedule that the name holds, or ''.

    Older pictures say `DPM++ 2M Karras`, InvokeAI `dpmpp_2m_k`. A sampler that is not known here
    comes back as it was written.
    """
    squeezed, schedule = _squeeze(name), ""
    if name.endswith("_k"):
        squeezed, schedule = squeezed[:-1], "karras"
    for suffix in _SUFFIXES:
        if squeezed.endswith(suffix) and squeezed != suffix:
            squeezed = squeezed.removesuffix(suffix)
            schedule = _SCHEDULES.get(suffix, "")
    found = _SAMPLERS.get(squeezed) or _SAMPLERS.get(squeezed.removeprefix("k"), "")
    return (found, schedule) if found else (name, "")


def known_schedule(name: str) -> str:
    """Give our schedule for another program's name; one that is not known as it was written."""
    return _SCHEDULES.get(_squeeze(name), name)


def _squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("++", "pp"))


_SAMPLERS: Final[Mapping[str, str]] = {
    **_OTHER_SAMPLERS,
    **{_squeeze(theirs): ours for ours, theirs in A1111_SAMPLERS.items()},
    **{_squeeze(ours): ours for ours in A1111_SAMPLERS},
}
_SCHEDULES: Final[Mapping[str, str]] = {
    **_OTHER_SCHEDULES,
    **{_squeeze(theirs): ours for ours, theirs in A1111_SCHEDULES.items()},
    **{_squeeze(ours): ours for ours in A1111_SCHEDULES},
}
