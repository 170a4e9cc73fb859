"""Find prompts and settings in the graph that ComfyUI keeps in its pictures (chunk `prompt`).

The graph is an object of nodes by id, each `{"class_type": ..., "inputs": {...}}`; an input is a
value, or a link `[id, output]`. Nodes of extensions are unknown, so what counts is the names of
inputs and which node is nearest.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from safelight.importing.jsontext import number, text_of
from safelight.samplernames import known_sampler, known_schedule

__all__ = ["is_graph", "read_graph"]

MAX_NODES: Final = 2000  # looked at for one value
_PROMPT_KEYS: Final = (
    "text",
    "text_g",
    "prompt",
    "string",
    "populated_text",
    "wildcard_text",
    "value",
)
_SIDES: Final = {"positive": ("positive", "conditioning"), "negative": ("negative",)}
# Our setting -> names of inputs that hold it, and its kind.
_NUMBERS: Final[Mapping[str, tuple[tuple[str, ...], type]]] = {
    "seed": (("seed", "noise_seed"), int),
    "steps": (("steps",), int),
    "guidance_scale": (("cfg", "guidance"), float),
    "strength": (("denoise",), float),
}
_MODEL_KEYS: Final = ("ckpt_name", "unet_name")
Graph = Mapping[str, Any]


def is_graph(value: Mapping[str, Any] | None) -> bool:
    """Say whether an object is such a graph."""
    return bool(value) and all(
        isinstance(node, dict) and isinstance(node.get("inputs"), dict) for node in value.values()
    )


def read_graph(graph: Graph) -> dict[str, Any]:
    """Read the graph into a record's `prompt`, `negative_prompt`, `model` and `settings`."""
    sampler = _sampler(graph)
    settings: dict[str, Any] = {}
    for ours, (keys, kind) in _NUMBERS.items():
        value = next(
            (n for x in _values(graph, sampler, keys) if (n := number(x, kind)) is not None), None
        )
        if value is not None:
            settings[ours] = value
    name = _first_text(graph, sampler, ("sampler_name",))
    if name:
        settings["sampler"], _ = known_sampler(name)
    schedule = _first_text(graph, sampler, ("scheduler",))
    if schedule:
        settings["schedule"] = known_schedule(schedule)
    return {
        "prompt": _prompt(graph, sampler, "positive"),
        "negative_prompt": _prompt(graph, sampler, "negative"),
        "model": _first_text(graph, sampler, _MODEL_KEYS),
        "settings": settings,
    }


def _sampler(graph: Graph) -> str:
    """Find the first of the samplers that led to the saved picture; '' for none."""
    outputs = [key for key, node in graph.items() if "save" in _class(node).lower()]
    found = ""
    for start in outputs or list(graph):
        found = next((key for key in _reached(graph, start) if _is_sampler(graph[key])), "")
        if found:
            break
    passes = 0
    while found and passes < MAX_NODES:  # a second pass begins with latents of a first
        link = _link(graph, graph[found]["inputs"].get("latent_image"))
        before = (
            ""
            if not link
            else next(
                (key for key in _reached(graph, link) if key != found and _is_sampler(graph[key])),
                "",
            )
        )
        if not before:
            break
        found, passes = before, passes + 1
    return found


def _is_sampler(node: Any) -> bool:
    return "sampler" in _class(node).lower() and "latent_image" in node["inputs"]


def _class(node: Any) -> str:
    return text_of(node.get("class_type"))


def _reached(graph: Graph, start: str) -> Iterator[str]:
    """Yield the nodes that a node depends on, itself first, nearest first."""
    waiting, seen = [start] if start in graph else [], {start}
    for key in waiting:  # grows while it is read
        yield key
        for value in graph[key]["inputs"].values():
            link = _link(graph, value)
            if link and link not in seen and len(seen) < MAX_NODES:
                seen.add(link)
                waiting.append(link)


def _link(graph: Graph, value: Any) -> str:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int):
        key = str(value[0])
        return key if key in graph else ""
    return ""


def _values(graph: Graph, start: str, keys: tuple[str, ...]) -> Iterator[Any]:
    """Yield plain values of these inputs, the nearest first; a linked one from where it leads."""
    for node in _reached(graph, start):
        inputs = graph[node]["inputs"]
        for key in keys:
            link = _link(graph, inputs.get(key))
            if link:
                yield from graph[link]["inputs"].values()
            elif key in inputs:
                yield inputs[key]


def _first_text(graph: Graph, start: str, keys: tuple[str, ...]) -> str:
    return next((text for x in _values(graph, start, keys) if (text := text_of(x))), "")


def _prompt(graph: Graph, sampler: str, side: str) -> str:
    """Follow the positive or the negative side from the sampler, or from its guider, to a text."""
    for node in _reached(graph, sampler):
        for key in _SIDES[side]:
            link = _link(graph, graph[node]["inputs"].get(key))
            if link:
                return _text_at(graph, link, side)
    return ""


def _text_at(graph: Graph, start: str, side: str) -> str:
    """Find the nearest text; where both sides pass through one node only this side is followed."""
    other = "negative" if side == "positive" else "positive"
    waiting, seen = [start], {start}
    for key in waiting:
        inputs = graph[key]["inputs"]
        for name in _PROMPT_KEYS:
            if text_of(inputs.get(name)).strip():
                return text_of(inputs[name]).strip()
        for name, value in inputs.items():
            link = _link(graph, value)
            if link and name != other and link not in seen and len(seen) < MAX_NODES:
                seen.add(link)
                waiting.append(link)
    return ""
