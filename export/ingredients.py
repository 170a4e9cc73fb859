"""What a bundle is made of, as a person names it: a checkpoint, and what replaces parts of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from export.checkpoint import Checkpoint
from export.source import open_checkpoint

__all__ = ["Ingredients"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingredients:
    """source: a diffusers folder or a single .safetensors file. vae: a file or folder whose VAE
    takes the place of the checkpoint's own. prediction: "epsilon" or "v_prediction", for a single
    file that does not say it.
    """

    source: Path
    vae: Path | None = None
    prediction: str | None = None

    def open(self) -> Checkpoint:
        """Open the checkpoint with everything applied. Raises SourceError, MissingError."""
        return open_checkpoint(self.source, vae=self.vae, prediction=self.prediction)

    def job(self) -> dict[str, Any]:
        """Give them as JSON for the export process."""
        return {
            "source": str(self.source.absolute()),
            "vae": None if self.vae is None else str(self.vae.absolute()),
            "prediction": self.prediction,
        }

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Self:
        """Take them from the export process's job."""
        vae = job.get("vae")
        return cls(
            source=Path(job["source"]),
            vae=None if vae is None else Path(vae),
            prediction=job.get("prediction"),
        )
