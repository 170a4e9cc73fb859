"""`safelight reproduce`: make a sealed picture again and compare."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.access import Access
from safelight.cli.options import Json, with_access
from safelight.console import line, note, result
from safelight.exits import ApplicationError, ExitStatus
from safelight.settings import load_settings

if TYPE_CHECKING:
    from engine import Picture, Pipeline
    from safelight.reproduce import Original
    from safelight.settings import Settings
    from vault import Vault

__all__ = ["reproduce"]


class UnlikeError(ApplicationError):
    """The picture came out less like its original than was asked for."""

    status = ExitStatus.MODEL


@with_access
def reproduce(
    access: Access,
    record_id: Annotated[str, typer.Argument(metavar="ID", help="An id, or its first digits.")],
    device: Annotated[
        str | None, typer.Option("--device", help="Another device than the picture's own.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Another precision than the picture's own.")
    ] = None,
    at_least: Annotated[
        float | None,
        typer.Option(
            "--at-least", metavar="DB", help="Exit with 6 below this PSNR; inf: unless equal."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Seal the new picture as a record of its own.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a picture again and say whether it is equal, or why not.

    The exit status is 0 whenever it could be made and compared; --at-least is for scripts.
    """
    from safelight.reproduce import compare, differences, open_original

    settings = load_settings()
    with access.open() as vault:
        original = open_original(vault, vault.resolve(record_id))
        picture = _make(settings, original, device, precision)
        likeness = compare(original.pixels, picture.pixels)
        apart = differences(original.record.metadata, picture)
        fields: dict[str, Any] = {
            "id": original.record.id,
            "model": picture.model,
            "equal": likeness.equal,
            "psnr": round(likeness.psnr, 2) if math.isfinite(likeness.psnr) else None,
            "largest_difference": likeness.largest,
            "differs": [asdict(each) for each in apart],
            "backend": picture.backend,
            "device": picture.device,
            "precision": picture.precision,
            "kept": _keep(vault, picture, original) if keep else "",
        }
    line(fields) if json else _say(fields)
    if at_least is not None and not likeness.psnr >= at_least:  # NaN is below anything
        raise UnlikeError(
            f"the picture came out with {likeness.psnr:.1f} dB; --at-least asked for {at_least:g}"
        )


def _make(
    settings: "Settings", original: "Original", device: str | None, precision: str | None
) -> "Picture":
    from engine import Pipeline
    from safelight.addons import open_beside
    from safelight.reproduce import find_bundle, find_choice
    from safelight.shelf import Shelf

    recipe = original.recipe
    shelf = Shelf(settings.models, settings.cache)
    bundle = find_bundle(shelf, recipe)
    beside = open_beside(shelf, [recipe.request])
    if bundle.hash != recipe.model_hash:
        note(f"'{bundle.name}' is not the model of that name that drew this picture")
    choice = find_choice(recipe, device, precision, settings.cache)
    note(f"{bundle.name} on {choice.reason}")
    # as then, whatever the setting is now: a picture that was blacked out is compared with that
    checked = settings["safety_checker"] == "on" or bool(original.record.metadata.get("flagged"))
    return _draw(Pipeline(bundle, choice, check_safety=checked, beside=beside), original)


def _draw(pipeline: "Pipeline", original: "Original") -> "Picture":
    from engine import Step
    from safelight.interrupt import Interruption
    from safelight.progress import PictureProgress

    recipe = original.recipe
    with Interruption() as interrupted, PictureProgress(1) as progress:
        for event in pipeline.generate(recipe.request, interrupted, inputs=recipe.inputs):
            if not isinstance(event, Step):
                progress.picture()
                return event
            progress.step(event)
    note("stopped: there is nothing to compare yet")
    raise KeyboardInterrupt


def _keep(vault: "Vault", picture: "Picture", original: "Original") -> str:
    from safelight.drafts import picture_draft
    from vault import BlobDraft, Kind

    then = original.record
    inputs = [
        BlobDraft(
            name=name,
            kind=Kind.INPUT,
            media_type=blob.media_type,
            data=bytes(vault.read(then.id, name)),
        )
        for name, blob in then.blobs.items()
        if blob.kind is Kind.INPUT
    ]
    (record,) = vault.add([picture_draft(picture, {"reproduces": then.id}, inputs)])
    return record.id


def _say(fields: dict[str, Any]) -> None:
    if fields["equal"]:
        result("equal: every pixel is the same")
    elif fields["psnr"] is None:
        result("different: the sizes differ")
    else:
        largest = fields["largest_difference"]
        result(f"different: PSNR {fields['psnr']:.1f} dB, no value is off by more than {largest}")
    for each in fields["differs"]:
        result(f"  {each['what']}: {_short(each['then'])} then, {_short(each['now'])} now")
    if not fields["equal"] and not fields["differs"]:
        result("  nothing that the record knows of differs: perhaps the processor, or its threads")
    if fields["kept"]:
        result(f"kept as {fields['kept'][:8]}")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    text = str(value)
    return (text[:12] if len(text) == 64 else text) or "none"  # a sha256
