"""Opens a checkpoint of any kind that can be exported, without torch."""

from pathlib import Path

from engine.errors import BundleError
from export.checkpoint import Checkpoint, Pieces, make_checkpoint
from export.controlnet import is_controlnet, open_controlnet
from export.errors import MissingError, SourceError
from export.folder import open_folder
from export.singlefile import open_single_file
from export.vae import with_vae
from export.weightfiles import PICKLES, refuse_pickle

__all__ = ["open_checkpoint"]


def open_checkpoint(
    source: Path, *, vae: Path | None = None, prediction: str | None = None
) -> Checkpoint:
    """Recognise a diffusers folder or a single .safetensors file, and index its weights.

    vae: a file or folder whose VAE takes the place of the checkpoint's own. prediction: "epsilon"
    or "v_prediction", for a single file that does not say it. Raises SourceError, MissingError.
    """
    try:
        if is_controlnet(source):
            if vae is not None or prediction is not None:
                raise SourceError(
                    f"'{source.name}' is a ControlNet: it has no VAE and predicts no noise",
                    hint="give --vae and --prediction to the checkpoint that it goes with",
                )
            return open_controlnet(source)
        pieces = _pieces(source, prediction)
        return make_checkpoint(pieces if vae is None else with_vae(pieces, vae))
    except BundleError as error:  # the strict JSON reader's own words
        raise SourceError(f"in '{source.name}': {error}", hint=error.hint) from error


def _pieces(source: Path, prediction: str | None) -> Pieces:
    if source.is_dir():
        return open_folder(source)
    if not source.is_file():
        raise MissingError(f"there is no file or folder '{source.name}'")
    if source.suffix.lower() in PICKLES:
        raise refuse_pickle(f"'{source.name}'")
    if source.suffix.lower() != ".safetensors":
        raise SourceError(
            f"'{source.name}' is no checkpoint",
            hint="give a .safetensors file, or the folder that holds model_index.json",
        )
    return open_single_file(source, prediction)
