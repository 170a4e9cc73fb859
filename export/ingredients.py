"""What a bundle is made of, as a person names it: a checkpoint, and what changes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from export.checkpoint import Checkpoint
from export.errors import SourceError
from export.source import open_checkpoint
from export.variants import with_variants

__all__ = ["Ingredients"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingredients:
    """source: a diffusers folder or a single .safetensors file. vae: a file or folder whose VAE
    takes the place of the checkpoint's own. prediction: "epsilon" or "v_prediction", for a single
    file that does not say it. loras: (file, scale), merged. embeddings: (word, file) of textual
    inversions. tiny_vae: a file or folder of a tiny autoencoder, for quick decoding. A safety
    checker that the source has comes along by itself. variants: keys of `export.variants.VARIANTS`,
    second graphs of the unet.
    """

    source: Path
    vae: Path | None = None
    prediction: str | None = None
    loras: tuple[tuple[Path, float], ...] = ()
    embeddings: tuple[tuple[str, Path], ...] = ()
    tiny_vae: Path | None = None
    variants: tuple[str, ...] = ()

    def open(self) -> Checkpoint:
        """Open the checkpoint with everything applied. Raises SourceError, MissingError."""
        checkpoint = open_checkpoint(self.source, vae=self.vae, prediction=self.prediction)
        if self.loras or self.embeddings:
            if checkpoint.recipe.add_on:
                raise SourceError(
                    f"'{self.source.name}' is no whole checkpoint: nothing is merged into it",
                    hint="give --lora and --embedding to the checkpoint that it goes with",
                )
            from export.additions import with_embeddings, with_loras

            checkpoint = with_loras(checkpoint, self.loras)
            checkpoint = with_embeddings(checkpoint, self.embeddings)
        if self.tiny_vae is not None:
            from export.tinyvae import with_tiny_vae

            checkpoint = with_tiny_vae(checkpoint, self.tiny_vae)
        if "safety_checker" in checkpoint.pieces.index:
            from export.safetychecker import with_safety_checker

            checkpoint = with_safety_checker(checkpoint)
        return with_variants(checkpoint, self.variants)

    def job(self) -> dict[str, Any]:
        """Give them as JSON for the export process."""
        return {
            "source": str(self.source.absolute()),
            "vae": None if self.vae is None else str(self.vae.absolute()),
            "prediction": self.prediction,
            "loras": [[str(file.absolute()), scale] for file, scale in self.loras],
            "embeddings": [[token, str(file.absolute())] for token, file in self.embeddings],
            "tiny_vae": None if self.tiny_vae is None else str(self.tiny_vae.absolute()),
            "variants": list(self.variants),
        }

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Self:
        """Take them from the export process's job."""
        vae, tiny_vae = job["vae"], job["tiny_vae"]
        return cls(
            source=Path(job["source"]),
            vae=None if vae is None else Path(vae),
            prediction=job["prediction"],
            loras=tuple((Path(file), scale) for file, scale in job["loras"]),
            embeddings=tuple((token, Path(file)) for token, file in job["embeddings"]),
            tiny_vae=None if tiny_vae is None else Path(tiny_vae),
            variants=tuple(job["variants"]),
        )
