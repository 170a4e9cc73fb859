"""`safelight status`, `doctor`, `config`: what protects, what computes, what is set."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.access import Access
from safelight.cli.options import Json, with_access
from safelight.console import line, result
from safelight.hardening import swap_warning
from safelight.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from safelight.offline import NetworkWatch
    from safelight.settings import Settings

__all__ = ["config", "doctor", "protection", "status"]


@with_access
def status(
    access: Access,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take this copy as right after an old-copy warning.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what protects the vault now, what opens it, what does not."""
    from vault import VaultError

    summary = access.summary()
    fields: dict[str, Any] = {
        "vault": str(access.settings.vault),
        "vault_id": summary.vault_id,
        "format": summary.format,
        "protection": protection({slot.type for slot in summary.slots}, summary.keystore),
        "opens_with": [slot.name for slot in summary.slots],
        "state": "unlocked",
    }
    warnings = [warning] if (warning := swap_warning()) else []
    fields["swap"] = warning or "none, or encrypted"
    try:
        with access.open(warn=False) as vault:
            if accept:
                vault.accept_copy()
            inside = vault.status()
            policy = asdict(vault.retention)
    except VaultError as error:
        fields["state"] = f"locked: {error}"
    else:
        fields |= {
            "opened_by": inside.opened_by,
            "epoch": inside.epoch,
            "generation": inside.generation,
            "records": {kind.name.lower(): count for kind, count in inside.records.items()},
            "trashed": inside.trashed,
            "bytes": inside.bytes_on_disk,
            "waiting_to_be_unlinked": inside.waiting,
            "backup": inside.backup or "none yet: the folder is the only copy",
            "verified": inside.verified or "never",
            "retention": {name: value for name, value in policy.items() if value is not None},
        }
        if inside.read_only:
            warnings.append("the vault lies on read-only media: nothing can be added or changed")
        warnings += inside.warnings
    fields["warnings"] = warnings
    _print(fields, json=json)


def protection(types: "Collection[str]", keystore: int | None) -> str:
    """Say in one sentence what stands between a stolen folder and the pictures in it."""
    from vault.keystore import KERNEL, keystore_name

    store = "" if keystore is None else keystore_name(keystore)
    if keystore == KERNEL:
        return f"Sealed; the key is in the {store} until the machine stops; nothing else opens it."
    if "both" in types:
        return (
            f"Sealed; it takes {store} and the passphrase together, or the recovery phrase alone."
        )
    ways = [f"{store}, as strong as your login"] if "keyring" in types else []
    ways += ["the passphrase"] if "passphrase" in types else []
    ways += ["the recovery phrase"] if "phrase" in types else []
    return f"Sealed; each of these opens it: {'; '.join(ways)}."


def doctor(
    context: typer.Context,
    network: Annotated[
        bool, typer.Option("--network", help="Draw a picture and count what asked for the network.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what would compute here, and why: devices, libraries."""
    from engine import describe

    settings = load_settings()
    fields = dict(describe(settings["device"], settings["precision"], settings.cache))
    if network:
        fields["drawn by"] = _draw_one(settings)
        watch: NetworkWatch = context.obj
        fields["network"] = {
            "this process refused": watch.refused,
            "this process used locally": watch.local,
        }
    _print(fields, json=json)


def _draw_one(settings: "Settings") -> str:
    """Draw one picture and forget it: the whole engine runs, and nothing is written. Gives what
    really ran: on a card also whether a step was one graph, and whether it was captured.
    """
    from engine import Picture, Pipeline
    from safelight.checkpoints import open_model
    from safelight.shelf import Shelf

    model = open_model(settings, Shelf(settings.models, settings.cache))
    bundle = model.bundle
    events = Pipeline(bundle, model.choose(settings)).generate(
        bundle.request(prompt="", seed=0, steps=2)
    )
    reasons = [event.reason for event in events if isinstance(event, Picture)]
    return reasons[-1]


def config(
    explain: Annotated[
        bool, typer.Option("--explain", help="Also say where each value came from.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the settings in force, and where each comes from.

    Flags go over environment over file over built-in.
    """
    settings = load_settings()
    for setting in settings.values.values():
        if json:
            line({"name": setting.name, "value": setting.value, "source": setting.source})
        else:
            source = f"  ({setting.source})" if explain else ""
            result(f"{setting.name:<16} {setting.value}{source}")
    if explain and not json:
        result(f"{'file':<16} {settings.config}")


def _print(fields: "Mapping[str, Any]", *, json: bool) -> None:
    if json:
        line(fields)
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        for part in _parts(value):
            result(f"{name:<{width}}  {part}")


def _parts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {part}" for key, part in value.items()] or ["none"]
    if isinstance(value, (list, tuple)):
        return [str(part) for part in value] or ["none"]
    return [str(value)]
