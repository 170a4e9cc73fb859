"""What somebody asks the workshop for, and the job that it becomes: every field resolved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from safelight.orders import checked_order, requests
from safelight.wildcards import fill_in, wildcards_of
from safelight.workshop.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Bundle, GenerationRequest
    from safelight.canvas import Canvas

__all__ = ["Order", "job_of"]

TEXTS = ("prompt", "negative_prompt")


@dataclass(frozen=True, kw_only=True)
class Order:
    """Pictures to make. model: a bundle's name. fields: of a request, with `prompt`, as `generate
    --request` takes them; what is left out comes from the preset named there, and the bundle.

    canvas: what is painted on, brought to size here. parent: the record that it is made of, where
    the canvas does not say. lists: word lists for wildcards, by name. incognito: nothing of it is
    sealed.
    """

    model: str
    fields: Mapping[str, Any] = field(repr=False)
    canvas: "Canvas | None" = field(default=None, repr=False)
    parent: str = ""
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    incognito: bool = False


def job_of(order: Order, bundle: "Bundle") -> Job:
    """Resolve an order. Raises UsageError and RequestError for what is not acceptable."""
    from engine.inputs import NO_INPUTS

    fields = checked_order(dict(order.fields), "the request")
    inputs, parent = NO_INPUTS, order.parent
    if order.canvas is not None:
        inputs, size = order.canvas.fitted(inputs, fields, bundle.manifest)
        fields |= size
        parent = order.canvas.parent or parent
    (request,) = requests(bundle, [fields], {})
    template = request.prompt if any(wildcards_of(getattr(request, n)) for n in TEXTS) else ""
    made = tuple(_filled(request, order.lists)) if template else (request,)
    return Job(
        model=order.model,
        requests=made,
        inputs=inputs,
        parent=parent,
        template=template,
        incognito=order.incognito,
    )


def _filled(
    request: "GenerationRequest", lists: Mapping[str, Sequence[str]]
) -> "Iterator[GenerationRequest]":
    """Fill in the wildcards of each picture by its own seed."""
    for index in range(request.count):
        one = request.of_picture(index)
        draw = one.variation_seed if one.variation_strength else one.seed
        prompt, negative = (fill_in(getattr(one, name), lists, draw) for name in TEXTS)
        yield replace(one, prompt=prompt, negative_prompt=negative)
