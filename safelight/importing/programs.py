"""Which program made a picture, from the texts in it, and what they say in our own words.

Facts of the formats: AUTOMATIC1111 and its kin (`parameters`), ComfyUI (`prompt`), InvokeAI
(`invokeai_metadata`, before 3.0 `sd-metadata`), Fooocus (`fooocus_scheme`), SwarmUI
(`sui_image_params`), as their pictures of 2023 to 2026 have them.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from safelight.importing.comfy import is_graph, read_graph
from safelight.importing.jsontext import json_object, number, text_of
from safelight.importing.texts import USER_COMMENT
from safelight.infotext import read_infotext, split_infotext
from safelight.samplernames import known_sampler, known_schedule

__all__ = ["recognise"]

Texts = Mapping[str, str]
# Our setting -> names that JSON of these programs has for it, and its kind.
_NUMBERS: Final[Mapping[str, tuple[tuple[str, ...], type]]] = {
    "seed": (("seed",), int),
    "steps": (("steps",), int),
    "guidance_scale": (("cfg_scale", "cfgscale", "guidance_scale"), float),
    "strength": (("strength", "initimagecreativity"), float),
    "clip_skip": (("clip_skip",), int),
}
_NEGATIVES: Final = ("negative_prompt", "negativeprompt")
_PROMPTS: Final = ("positive_prompt", "prompt")
_SAMPLERS: Final = ("sampler", "scheduler")  # InvokeAI says scheduler for a sampler
_VERSIONS: Final = (("SD.Next", "SD.Next"), ("Fooocus", "Fooocus"), ("ComfyUI", "ComfyUI"))


def recognise(texts: Texts) -> tuple[str, dict[str, Any]]:
    """Give the program's name and what it says: `prompt`, `negative_prompt`, `model`, `settings`.

    A picture without a text that is known gives ('', empty fields). Never raises.
    """
    for read in (_invoke, _old_invoke, _parameters, _comfy):
        program, fields = read(texts)
        if program:
            return program, fields
    return "", _fields()


def _invoke(texts: Texts) -> tuple[str, dict[str, Any]]:
    found = json_object(texts.get("invokeai_metadata"))
    if found is None:
        return "", {}
    model = found.get("model")
    name = ""
    if isinstance(model, dict):
        name = text_of(model.get("name")) or text_of(model.get("model_name"))
    return "InvokeAI", _of_json(found, model=name, sampler="scheduler")


def _old_invoke(texts: Texts) -> tuple[str, dict[str, Any]]:
    found = json_object(texts.get("sd-metadata"))
    image = found.get("image") if found else None
    if not found or not isinstance(image, dict):
        return "", {}
    words = image.get("prompt")
    if isinstance(words, list):
        parts = [text_of(part.get("prompt")) for part in words if isinstance(part, dict)]
        words = " ".join(filter(None, parts))
    text = text_of(words)
    negative = " ".join(re.findall(r"\[([^\[\]]{0,10000})\]", text))
    fields = _of_json(
        image | {"prompt": re.sub(r"\[[^\[\]]{0,10000}\]", "", text).strip()},
        model=text_of(found.get("model_weights")),
        sampler="sampler",
    )
    return "InvokeAI", fields | {"negative_prompt": negative}


def _parameters(texts: Texts) -> tuple[str, dict[str, Any]]:
    """Read what A1111's kin keep as `parameters` in PNG and as UserComment elsewhere."""
    text = texts.get("parameters") or texts.get(USER_COMMENT, "")
    found = json_object(text)
    if found is None:
        return _infotext(texts, text)
    swarm = found.get("sui_image_params")
    if isinstance(swarm, dict):
        return "SwarmUI", _of_json(swarm, model=text_of(swarm.get("model")), sampler="sampler")
    if "fooocus_scheme" in texts or "Fooocus" in text_of(found.get("version")):
        fields = _of_json(found, model=text_of(found.get("base_model")), sampler="sampler")
        return "Fooocus", fields
    if is_graph(found):
        return "ComfyUI", read_graph(found)
    return "", {}


def _infotext(texts: Texts, text: str) -> tuple[str, dict[str, Any]]:
    fields = split_infotext(text)[2]
    if not fields and "parameters" not in texts:
        return "", {}  # any photograph may have a comment
    said = f"{fields.get('Version', '')} {fields.get('App', '')}"
    program = next((name for mark, name in _VERSIONS if mark in said), "AUTOMATIC1111")
    return program, read_infotext(text)


def _comfy(texts: Texts) -> tuple[str, dict[str, Any]]:
    # WebP files have it in fields of EXIF, behind a word and a colon.
    candidates = [
        texts.get("prompt", ""),
        texts.get("Model", ""),
        texts.get("ImageDescription", ""),
    ]
    for text in candidates:
        graph = json_object(re.sub(r"^[Pp]rompt:\s{0,8}", "", text))
        if is_graph(graph):
            return "ComfyUI", read_graph(graph or {})
    return ("ComfyUI", _fields()) if "workflow" in texts else ("", {})


def _of_json(found: Mapping[str, Any], *, model: str, sampler: str) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for ours, (names, kind) in _NUMBERS.items():
        value = next((number(found[name], kind) for name in names if name in found), None)
        if value is not None:
            settings[ours] = value
    name = text_of(found.get(sampler))
    if name:
        settings["sampler"], schedule = known_sampler(name)
        if sampler == "sampler" and not schedule:
            schedule = known_schedule(text_of(found.get("scheduler")))
        if schedule:
            settings["schedule"] = schedule
    return _fields(
        prompt=next((text for key in _PROMPTS if (text := text_of(found.get(key)))), ""),
        negative_prompt=next((text for key in _NEGATIVES if (text := text_of(found.get(key)))), ""),
        model=model,
        settings=settings,
    )


def _fields(
    prompt: str = "",
    negative_prompt: str = "",
    model: str = "",
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "model": model,
        "settings": settings or {},
    }
