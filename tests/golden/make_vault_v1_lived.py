"""Make the frozen sample of a vault of format 1 that has lived: epochs, purges, passphrase mode.

It was run once; do not run it over the old sample.

python -m tests.golden.make_vault_v1_lived TARGET
"""

import sys
from pathlib import Path

import vault
from tests.golden.make_vault_v1 import CLOCK, fill, picture, write_sample
from tests.vault.file_keystore import FileKeyStore
from vault.passphrase import passphrase_secret

__all__ = ["KEYS", "PASSPHRASE"]

KEYS = "keys"  # the folder of the key store, beside the vault
PASSPHRASE = "sample passphrase of a vault that lived"


def live(opened: vault.Vault) -> None:
    """Purge, lock with a second secret, rotate, purge strictly; leave a deletion unshredded."""
    fill(opened)
    jobs = [record.id for record in opened.list(kinds=(vault.Kind.JOB,))]
    opened.purge(jobs[:20] + jobs[500:520])  # holes in both pages; epoch 2
    opened.keys.set_passphrase(passphrase_secret("an earlier passphrase"), both=True)
    opened.keys.rotate(deep=True)
    opened.keys.set_passphrase(passphrase_secret(PASSPHRASE), both=True)
    blob = vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", picture("late", 20_000))
    drafts = [vault.Draft(vault.Kind.PICTURE, {"prompt": name}, [blob]) for name in "abc"]
    late = opened.add(drafts)
    opened.edit(late[0].id, lambda data: {**data, "tags": ["of a later epoch"]})
    opened.trash([late[1].id])
    opened.delete([late[2].id, *jobs[100:110]])  # not purged: their pages stay dirty
    opened.set_retention(vault.Retention(trash_days=30, max_count=5000))


def main() -> None:
    """Make the sample in a new folder."""
    target = Path(sys.argv[1])
    target.mkdir()
    phrases: list[str] = []
    with vault.create(
        target / "vault",
        keystore=FileKeyStore(target / KEYS),
        confirm=lambda phrase: phrases.append(phrase.text()),
        clock=lambda: CLOCK,
    ) as opened:
        live(opened)
        write_sample(target, opened, phrases[0], ["vault", KEYS])


if __name__ == "__main__":
    main()
