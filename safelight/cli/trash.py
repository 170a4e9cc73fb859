"""`safelight trash`, `untrash`, `purge` and `vault retention`: hide, bring back, delete, shred."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.access import Access
from safelight.cli.asking import agree, confirmation, new_passphrase
from safelight.cli.keys import NewFile, Retire, report, retiring
from safelight.cli.look import print_records
from safelight.cli.options import AskPhrase, Json, PhraseFile, with_access
from safelight.console import line, note, result
from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Expiry, Record, Retention, Strict, Vault

__all__ = ["expire", "purge", "retention", "trash", "untrash"]

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="Ids, or their first digits.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
KIB = 1024


@with_access
def trash(
    access: Access,
    ids: Ids = None,
    ls: Annotated[bool, typer.Option("--ls", help="List what is in the trash.")] = False,
    empty: Annotated[bool, typer.Option("--empty", help="Delete what is in it for good.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Move records to the trash. `untrash` brings them back."""
    if [bool(ids), ls, empty].count(True) != 1:
        raise UsageError("give the ids to trash, or --ls, or --empty")
    with access.open() as vault:
        if ls:
            print_records(vault.list(kinds=_kinds(), trashed=True), json=json)
        elif empty:
            _empty(vault, yes=yes)
        else:
            records = vault.trash([vault.resolve(each) for each in ids or ()])
            note(f"{len(records)} in the trash; `safelight untrash` brings them back.")


def _empty(vault: "Vault", *, yes: bool) -> None:
    from safelight.progress import StageProgress

    ids = [record.id for record in vault.list(kinds=_kinds(), trashed=True)]
    if ids:
        agree(f"{len(ids)} records will be gone for good.", yes=yes)
        with StageProgress() as bar:
            vault.delete(ids, lambda done, total: bar.stage("deleting", done / total))
    note(f"{len(ids)} deleted. `safelight purge` shreds what the disk may keep of them.")


@with_access
def untrash(access: Access, ids: Ids = None) -> None:
    """Bring records back from the trash."""
    if not ids:
        raise UsageError("give the ids to bring back; `safelight trash --ls` lists the trash")
    with access.open() as vault:
        records = vault.untrash([vault.resolve(each) for each in ids])
    note(f"{len(records)} back from the trash.")


@with_access
def purge(
    access: Access,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also replace recovery phrase and passphrase.")
    ] = False,
    recovery_file: Annotated[
        Path | None,
        typer.Option("--recovery-file", help="With --strict: the new phrase goes here."),
    ] = None,
    new_file: NewFile = None,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    retire: Retire = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Shred the trash and what is left of all that was deleted.

    The receipt says what remains.
    """
    if not strict and (recovery_file or new_file):
        raise UsageError("--recovery-file and --new-passphrase-file go with --strict")
    with access.open_somehow(phrase_file, ask_phrase=phrase) as vault:
        waiting = vault.status().trashed
        if waiting:
            agree(f"{waiting} records in the trash will be shredded.", yes=yes)
        chosen = _strict(vault, recovery_file, new_file) if strict else None
        receipt = vault.purge(strict=chosen, retire=retiring(vault, retire))
        note(f"{receipt.records} records shredded.")
        report(receipt, json=json)


def _strict(vault: "Vault", recovery_file: Path | None, new_file: Path | None) -> "Strict":
    from vault import Strict

    types = {slot.type for slot in vault.status().slots}
    secret = None
    if types & {"passphrase", "both"}:
        secret = new_passphrase(new_file, nothing="nothing was changed")
    elif new_file is not None:
        raise UsageError("this vault has no passphrase to replace")
    if "phrase" not in types:
        raise UsageError("an ephemeral vault has no phrase or passphrase: purge without --strict")
    return Strict(confirm=confirmation(recovery_file), passphrase=secret)


@with_access
def retention(
    access: Access,
    trash_days: Annotated[
        float | None, typer.Option("--trash-days", help="Days in the trash; -1: for ever.")
    ] = None,
    max_age: Annotated[
        float | None, typer.Option("--max-age", help="Days that pictures stay; -1: no limit.")
    ] = None,
    max_count: Annotated[
        int | None, typer.Option("--max-count", help="Pictures that stay; -1: no limit.")
    ] = None,
    max_bytes: Annotated[
        str | None, typer.Option("--max-bytes", help="Their bytes, such as 20G; -1: no limit.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="No limits on pictures.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Do it now.")] = False,
    clock_is_right: Annotated[
        bool, typer.Option("--clock-is-right", help="Believe a clock that has leapt.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what deletes itself: off but for the trash. Favourites stay, whatever is set.

    What is beyond a limit goes into the trash, the oldest first, and is deleted when its days
    there are over. It is applied after each `generate`, and by --apply.
    """
    from vault import Retention

    if apply and dry_run:
        raise UsageError("--apply does it and --dry-run does not: give one of them")
    with access.open() as vault:
        old = Retention(trash_days=vault.retention.trash_days) if off else vault.retention
        new = Retention(
            trash_days=_limit(trash_days, old.trash_days),
            max_age_days=_limit(max_age, old.max_age_days),
            max_count=_whole(_limit(max_count, old.max_count)),
            max_bytes=_whole(_limit(_bytes(max_bytes), old.max_bytes)),
        )
        if new != vault.retention and not dry_run:
            vault.set_retention(new)
        if clock_is_right:
            vault.believe_clock()
        expiry = expire(vault, dry=not apply, policy=new) if apply or dry_run else None
        _print_retention(new, expiry, json=json)


def expire(vault: "Vault", *, dry: bool = False, policy: "Retention | None" = None) -> "Expiry":
    """Apply the vault's retention policy; favourites stay."""
    expiry = vault.expire(_is_favourite, dry=dry, policy=policy)
    if expiry.waiting:
        note(
            f"Nothing deletes itself: {expiry.waiting}. If the clock is right: "
            "`safelight vault retention --clock-is-right`."
        )
    return expiry


def _is_favourite(record: "Record") -> bool:
    return bool(record.metadata.get("favourite", False))


def _print_retention(policy: "Retention", expiry: "Expiry | None", *, json: bool) -> None:
    from dataclasses import asdict

    fields: dict[str, Any] = asdict(policy)
    if expiry is not None:
        fields |= asdict(expiry)
    if json:
        line(fields)
        return
    for name, value in asdict(policy).items():
        result(f"{name:<13} {'no limit' if value is None else value}")
    if expiry is not None:
        result(f"into the trash: {len(expiry.trashed)}; deleted: {len(expiry.deleted)}")


def _limit(given: float | None, old: float | None) -> float | None:
    if given is None:
        return old
    return None if given == -1 else given


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _bytes(text: str | None) -> float | None:
    if text is None:
        return None
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), 1
    for power, letter in enumerate("KMGT", start=1):
        if number.endswith(letter):
            number, unit = number[:-1], KIB**power
    try:
        return float(number) * unit if number != "-1" else -1
    except ValueError:
        raise UsageError(
            f"'{text}' is no number of bytes", hint="such as 500M, 20G or 1T"
        ) from None


def _kinds() -> "tuple[Any, ...]":
    from vault import Kind

    return tuple(kind for kind in Kind if kind < 128)
