"""`safelight vault recover|passphrase|rotate`: who opens the vault, and with which keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.asking import new_passphrase
from safelight.cli.options import AskPhrase, Json, PhraseFile, with_access
from safelight.console import line, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import KeyStore, Receipt, Secret, Vault

__all__ = ["passphrase", "recover", "report", "retiring", "rotate"]

NewFile = Annotated[
    Path | None,
    typer.Option("--new-passphrase-file", help="The new passphrase: this file's first line."),
]
Retire = Annotated[
    bool,
    typer.Option(
        "--retire",
        help="Delete the old key from the key store although phrase or passphrase opened the "
        "vault: another copy of the vault on this machine may need it.",
    ),
]

passphrase = typer.Typer(
    help="Set, change or remove the passphrase. Each is a new epoch: old slots open nothing more.",
    no_args_is_help=True,
)


@with_access
def recover(
    access: Access,
    phrase_file: PhraseFile = None,
    ask_passphrase: Annotated[
        bool, typer.Option("--new-passphrase", help="Also set a new passphrase; asks for it.")
    ] = False,
    new_file: NewFile = None,
    retire: Retire = False,
    json: Json = False,
) -> None:
    """Open with the recovery phrase, and keep the key here again.

    The key goes into this machine's key store. Without a secure key store, give a new passphrase.
    """
    secret = new_passphrase(new_file, nothing=_SAME) if ask_passphrase or new_file else None
    with access.open_with_phrase(phrase_file) as vault:
        receipt = vault.keys.recover(_keystore(secret), secret, retire=retire)
        report(receipt, json=json)
    note("The vault opens here again.")


@passphrase.command("set")
@with_access
def set_(
    access: Access,
    both: Annotated[
        bool,
        typer.Option("--both", help="Passphrase mode: key store and passphrase, neither alone."),
    ] = False,
    new_file: NewFile = None,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    retire: Retire = False,
    json: Json = False,
) -> None:
    """Let a passphrase open the vault.

    It does so besides the key store, or with --both only together with it.
    """
    with access.open_somehow(phrase_file, ask_phrase=phrase) as vault:
        _refuse_unless(vault, has=False)
        secret = new_passphrase(new_file, nothing=_SAME)
        receipt = vault.keys.set_passphrase(secret, both=both, retire=retiring(vault, retire))
        report(receipt, json=json)


@passphrase.command()
@with_access
def change(
    access: Access,
    both: Annotated[
        bool | None,
        typer.Option("--both/--either", help="Change between passphrase mode and slot, too."),
    ] = None,
    new_file: NewFile = None,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    retire: Retire = False,
    json: Json = False,
) -> None:
    """Put a new passphrase in the place of the old one.

    --phrase when the old one is forgotten.
    """
    with access.open_somehow(phrase_file, ask_phrase=phrase) as vault:
        _refuse_unless(vault, has=True)
        now = any(slot.type == "both" for slot in vault.status().slots)
        secret = new_passphrase(new_file, nothing=_SAME)
        receipt = vault.keys.set_passphrase(
            secret, both=now if both is None else both, retire=retiring(vault, retire)
        )
        report(receipt, json=json)


@passphrase.command()
@with_access
def remove(
    access: Access,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    retire: Retire = False,
    json: Json = False,
) -> None:
    """Let the key store open the vault alone again."""
    with access.open_somehow(phrase_file, ask_phrase=phrase) as vault:
        report(vault.keys.remove_passphrase(retire=retiring(vault, retire)), json=json)


@with_access
def rotate(
    access: Access,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also every page and every record's metadata.")
    ] = False,
    phrase: AskPhrase = False,
    phrase_file: PhraseFile = None,
    retire: Retire = False,
    json: Json = False,
) -> None:
    """Put the vault under fresh keys. --deep ends what old index copies tell of edited records."""
    from safelight.progress import StageProgress

    with access.open_somehow(phrase_file, ask_phrase=phrase) as vault, StageProgress() as bar:
        receipt = vault.keys.rotate(
            deep=deep,
            retire=retiring(vault, retire),
            progress=lambda done, total: bar.stage("sealing records anew", done / max(total, 1)),
        )
    report(receipt, json=json)


_SAME = "nothing was changed"


def report(receipt: "Receipt", *, json: bool) -> None:
    """Print a receipt: what is shredded, and which secrets could still open residue."""
    if json:
        line(
            {
                "when": receipt.when,
                "epoch": receipt.epoch,
                "records": receipt.records,
                "files": receipt.files,
                "pages": receipt.pages,
                "shredded": receipt.shredded,
                "remaining": list(receipt.remaining),
            }
        )
    holds = "no key store holds" if receipt.shredded else "A KEY STORE STILL HOLDS"
    note(f"The vault is at epoch {receipt.epoch}; {holds} a key of an earlier one.")
    if receipt.remaining:
        note("What could still open what is gone:")
        for sentence in receipt.remaining:
            note(f"  - {sentence}")


def retiring(vault: "Vault", given: bool) -> bool | None:
    """Return whether the old key goes: by flag; None lets the vault decide by what opened it."""
    status = vault.status()
    kept = any(slot.type in {"keyring", "both"} for slot in status.slots)
    if not given and kept and status.opened_by not in {"keyring", "both"}:
        note(
            "The old key stays in the key store, since another copy of this vault may need it; "
            "--retire deletes it."
        )
    return True if given else None


def _keystore(secret: "Secret | None") -> "KeyStore | None":
    from vault import KeyStoreAbsentError, find_keystore

    try:
        return find_keystore()
    except KeyStoreAbsentError as error:
        if secret is not None:
            return None
        raise KeyStoreAbsentError(
            str(error), hint="give --new-passphrase or --new-passphrase-file: it opens the vault"
        ) from error


def _refuse_unless(vault: "Vault", *, has: bool) -> None:
    found = any(slot.type in {"passphrase", "both"} for slot in vault.status().slots)
    if found and not has:
        raise UsageError("this vault has a passphrase already", hint="`vault passphrase change`")
    if has and not found:
        raise UsageError("this vault has no passphrase yet", hint="`vault passphrase set`")
