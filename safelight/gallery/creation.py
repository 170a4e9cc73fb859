"""Make a vault in steps that a person takes: choose what opens it, keep the recovery phrase."""

import hmac
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import RecoveryPhrase, Vault

__all__ = ["Creation"]

PATIENCE = 30 * 60.0  # seconds that the phrase is shown for
STEP = 60.0  # seconds within which the next thing must have happened


class Creation:
    """One vault being made, in a thread that stops where the phrase must be typed back.

    Giving up loses nothing: the vault exists only after the phrase was confirmed.
    """

    def __init__(self, make: "Callable[[Callable[[RecoveryPhrase], None]], Vault]") -> None:
        """Begin. make: calls `vault.create` with the confirmation that it is given."""
        self.phrase = ""
        self.vault: Vault | None = None
        self.error: Exception | None = None
        self._shown, self._typed, self._ended = (threading.Event() for _ in range(3))
        self._given_up = False
        self._thread = threading.Thread(target=self._run, args=(make,), daemon=True)
        self._thread.start()

    def wait_for_phrase(self) -> None:
        """Wait until there is a phrase to show; raises what stopped it before."""
        self._shown.wait(STEP)
        if self.error is not None:
            raise self.error
        if not self.phrase:
            raise UsageError("the key store takes too long; nothing was made", hint="try again")

    def confirm(self, typed: str) -> "Vault | None":
        """Go on if `typed` is the phrase, and return the open vault; None if it is not.

        Case, blanks and dashes do not count. Raises what the vault raises.
        """
        if not self.phrase or not hmac.compare_digest(_plain(typed), _plain(self.phrase)):
            return None
        self._typed.set()
        self._ended.wait(STEP)
        if self.error is not None:
            raise self.error
        return self.vault

    def give_up(self) -> None:
        """Stop without a vault, and forget the phrase. Too late once the phrase was confirmed."""
        if not self._typed.is_set():
            self._given_up = True
            self._typed.set()
        self._thread.join(STEP)

    def _run(self, make: "Callable[[Callable[[RecoveryPhrase], None]], Vault]") -> None:
        try:
            self.vault = make(self._confirm)
        except Exception as error:  # noqa: BLE001 - raised again where the person is
            self.error = error
        finally:
            self.phrase = ""
            self._shown.set()
            self._ended.set()

    def _confirm(self, phrase: "RecoveryPhrase") -> None:
        self.phrase = phrase.text()
        self._shown.set()
        if not self._typed.wait(PATIENCE) or self._given_up:
            raise UsageError("the recovery phrase was not confirmed; nothing was made")


def _plain(text: str) -> bytes:
    return "".join(text.split()).replace("-", "").casefold().encode("utf-8", "replace")
