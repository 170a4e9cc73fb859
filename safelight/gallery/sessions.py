"""Who may talk to the gallery: the address's one-time token, and the browsers that gave it."""

import hmac
import secrets
import threading
from dataclasses import dataclass, field

__all__ = ["COOKIE", "BrowserSession", "Sessions", "View"]

COOKIE = "safelight"
TOKEN_BYTES = 32
MAX_SESSIONS = 16  # browsers at once; the oldest makes room


@dataclass(slots=True)
class View:
    """What a browser is looking at. It lies here since addresses and storage end up on its disk.

    query: the search, forgotten when the vault is locked. place: id of the picture last opened.
    blur: pictures show when pointed at. incognito: what the studio makes is not sealed.
    """

    query: str = field(default="", repr=False)
    place: str = ""
    blur: bool = False
    incognito: bool = False


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """One browser: the value of its cookie, and what each of its changes must carry."""

    key: str = field(repr=False)
    csrf: str = field(repr=False)
    view: View = field(default_factory=View)


class Sessions:
    """Exchange a token once for a session, and know sessions again. Safe from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._sessions: list[BrowserSession] = []

    @property
    def token(self) -> str:
        """Return the token that opens the next session; it is another one after each exchange."""
        with self._guard:
            return self._token

    def exchange(self, token: str) -> BrowserSession | None:
        """Give a new session for the token, which is then used up; None for any other text."""
        with self._guard:
            if not _same(token, self._token):
                return None
            self._token = secrets.token_urlsafe(TOKEN_BYTES)
            session = BrowserSession(
                secrets.token_urlsafe(TOKEN_BYTES), secrets.token_urlsafe(TOKEN_BYTES)
            )
            self._sessions = [*self._sessions, session][-MAX_SESSIONS:]
            return session

    def find(self, key: str) -> BrowserSession | None:
        """Return the session of a cookie's value, or None."""
        with self._guard:
            return next((each for each in self._sessions if _same(key, each.key)), None)

    def forget_views(self) -> None:
        """Drop what the browsers looked for: words of prompts."""
        with self._guard:
            for session in self._sessions:
                session.view.query = ""


def _same(given: str, kept: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), kept.encode())
