"""What the gallery makes pictures with while its vault is open: the workshop, the desk, the kit."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safelight.workshop.desk import Desk

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery
    from safelight.settings import Settings
    from safelight.workshop import Pipelines
    from vault import Vault

__all__ = ["Making", "MakingHolder", "making_of"]


class Making:
    """One per gallery, made when somebody makes something first; all of it is gone with the lock.

    desk: pictures laid down to draw from. form: what stood in the studio's form last.
    """

    def __init__(self, vault: "Vault", pipelines: "Pipelines", loras: Path) -> None:
        """loras: the folder of LoRA files."""
        from safelight.kit import Kit
        from safelight.workshop import Workshop
        from safelight.workshop.loras import Loras

        self.vault = vault
        self.workshop = Workshop(vault, pipelines)
        self.kit = Kit(vault)
        self.desk = Desk()
        self.loras = Loras(loras, pipelines.shelf)
        self.form: dict[str, Any] = {}

    def close(self) -> None:
        """Stop the work after its step and forget prompts and pictures."""
        self.form = {}
        self.desk.clear()
        self.workshop.close()


class MakingHolder:
    """Makes the Making of an open vault once, and again after each lock.

    open_pipelines: gives the models; tests put others in its place.
    """

    def __init__(self, settings: "Settings") -> None:
        self.open_pipelines: Callable[[], Pipelines] = lambda: _pipelines(settings)
        self._loras = settings.loras
        self._guard = threading.Lock()
        self._making: Making | None = None

    def get(self, gallery: "Gallery") -> Making:
        """Return what the open vault's pictures are made with. Raises LockedError."""
        vault = gallery.vault
        with self._guard:
            if self._making is None or self._making.vault is not vault:
                self._making = Making(vault, self.open_pipelines(), self._loras)
                gallery.on_lock(self._close)
            return self._making

    @property
    def made(self) -> Making | None:
        """Return it where something was made since the vault was opened."""
        return self._making

    @property
    def keeps_open(self) -> bool:
        """Say whether the vault shall not lock itself by rest yet, since the queue is at work."""
        making = self._making
        return making is not None and making.workshop.keeps_open

    def _close(self) -> None:
        with self._guard:
            making, self._making = self._making, None
        if making is not None:
            making.close()


def making_of(gallery: "Gallery") -> Making:
    """Return what the gallery makes pictures with. Raises LockedError while it is locked."""
    return gallery.making.get(gallery)


def _pipelines(settings: "Settings") -> "Pipelines":
    from safelight.workshop.pipelines import pipelines_from

    return pipelines_from(settings)
