"""Change who opens a vault: passphrase, recovery phrase, key store; each change is a new epoch.

An old slot would live on in the residue of the disk: so the root key is fresh, and the old KEK
goes. `retire` everywhere: delete the old KEK from the key store; None: only if the key store
opened the vault, since another copy of it may hang on that key.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vault.deletion import Progress, Receipt, rotate, with_openers
from vault.errors import BadValueError
from vault.keystore import KeyStore
from vault.openers import Openers, passphrase_key
from vault.phrase import RecoveryPhrase
from vault.secret import Secret
from vault.session import Session

__all__ = ["Confirm", "Keys", "Strict", "strictly"]

Confirm = Callable[[RecoveryPhrase], None]


@dataclass(frozen=True, kw_only=True)
class Strict:
    """What a strict purge needs: `confirm` shows the new phrase and raises to give up.

    passphrase: the new one, for a vault that has one.
    """

    confirm: Confirm = field(repr=False)
    passphrase: Secret | None = None


class Keys:
    """The keys of one open vault. Every method raises KeyStoreError or StorageError, and then
    nothing has changed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def rotate(
        self,
        *,
        deep: bool = False,
        retire: bool | None = None,
        progress: Progress = lambda _done, _total: None,
    ) -> Receipt:
        """Put the vault under fresh keys; deep: every page and every record's metadata too."""
        return rotate(self._session, deep=deep, retire=retire, progress=progress)

    def set_passphrase(
        self, passphrase: Secret, *, both: bool = False, retire: bool | None = None
    ) -> Receipt:
        """Let a passphrase open the vault, in place of an earlier one.

        both: passphrase mode: it opens only together with the key store, and neither alone.
        Raises BadValueError for passphrase mode without a key store.
        """
        key = passphrase_key(passphrase)
        return self._change(lambda now: replace(now, passphrase=key, both=both), retire)

    def remove_passphrase(self, *, retire: bool | None = None) -> Receipt:
        """Let the key store open the vault alone; raises BadValueError where there is none."""

        def without(now: Openers) -> Openers:
            if now.passphrase is None:
                raise BadValueError("this vault has no passphrase")
            return replace(now, passphrase=None, both=False)

        return self._change(without, retire)

    def replace_phrase(self, confirm: Confirm, *, retire: bool | None = None) -> Receipt:
        """Make a new recovery phrase; `confirm` shows it first, and raises to give up."""
        public = _new_phrase(self._session, confirm)
        return self._change(lambda now: replace(now, phrase=public), retire)

    def recover(
        self,
        keystore: KeyStore | None,
        passphrase: Secret | None = None,
        *,
        retire: bool | None = None,
    ) -> Receipt:
        """Keep the vault's key in this key store from now on, after a loss or a move.

        keystore None: in none. passphrase: a new one, in place of an earlier one. Raises
        BadValueError when neither would open the vault.
        """
        key = None if passphrase is None else passphrase_key(passphrase)

        def moved(now: Openers) -> Openers:
            both = now.both and keystore is not None
            return replace(now, keystore=keystore, passphrase=key or now.passphrase, both=both)

        return self._change(moved, retire)

    def _change(self, change: Callable[[Openers], Openers], retire: bool | None) -> Receipt:
        return with_openers(self._session, change, retire)


def strictly(session: Session, strict: Strict | None) -> Callable[[Openers], Openers]:
    """Return how a purge changes who opens the vault; shows the new phrase, if there is one."""
    if strict is None:
        return lambda now: now
    public = _new_phrase(session, strict.confirm)
    given = None if strict.passphrase is None else passphrase_key(strict.passphrase)

    def renewed(now: Openers) -> Openers:
        if (now.passphrase is None) != (given is None):
            wanted = "needs a new passphrase" if given is None else "has no passphrase to replace"
            raise BadValueError(f"this vault {wanted}: a strict purge renews what it has")
        return replace(now, phrase=now.phrase and public, passphrase=given)

    return renewed


def _new_phrase(session: Session, confirm: Confirm) -> bytes:
    """Show a new phrase before any lock is held, and return its public key."""
    from vault import hpke

    session.require_writable()
    phrase = RecoveryPhrase.generate(session.ledger.vault_id)
    confirm(phrase)
    return hpke.public_key(phrase.secret())
