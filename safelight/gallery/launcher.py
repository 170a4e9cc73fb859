"""Open the browser without showing the token in the arguments of a process."""

import os
import webbrowser
from html import escape

from safelight.settings import Settings

__all__ = ["Launcher"]

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={address}">
<title>safelight</title>
<p><a href="{address}">Open the gallery</a></p>
"""


class Launcher:
    """A file that only this user reads and that leads the browser on; it goes when it was used."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.cache / "gallery" / f"open-{os.getpid()}.html"

    def open(self, address: str) -> bool:
        """Write the file and ask the desktop's browser to open it; say whether there is one."""
        self.forget()
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(self._file, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(_PAGE.format(address=escape(address)))
        try:
            return webbrowser.open(self._file.as_uri())
        except webbrowser.Error:
            return False

    def forget(self) -> None:
        """Remove the file."""
        self._file.unlink(missing_ok=True)
