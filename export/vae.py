"""Puts another VAE in a checkpoint's place of its own: a file or folder that `--vae` names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.jsonfile import read_json
from export.checkpoint import Pieces
from export.errors import MissingError, SourceError
from export.folder import CONFIG_LIMIT, weight_files
from export.singlefile import VAE, original_vae, usual_vae
from export.weightfiles import PICKLES, Tensor, index_tensors, refuse_pickle

__all__ = ["with_vae"]


def with_vae(pieces: Pieces, place: Path) -> Pieces:
    """Give the pieces with the VAE in `place`: a diffusers folder, its vae/, or one .safetensors
    with diffusers' names, the original ones, or a whole checkpoint. Raises SourceError,
    MissingError.
    """
    if place.is_dir():
        folder = place / "vae" if (place / "vae").is_dir() else place
        config, tensors, files = _from_folder(folder)
        place = folder
    elif place.is_file():
        config, tensors = _from_file(place, pieces.configs.get("vae"))
        files = [place]
    else:
        raise MissingError(f"there is no VAE '{place.name}'")
    own = dict(pieces.configs.get("vae", {})) or usual_vae(pieces.recipe)
    # Latents are scaled as the unet was trained; a VAE that was trained on alone keeps to that.
    kept = {key: own[key] for key in ("sample_size", "scaling_factor") if key in own}
    return replace(
        pieces,
        configs=dict(pieces.configs) | {"vae": dict(config) | kept},
        tensors=dict(pieces.tensors) | {"vae": tensors},
        origins=dict(pieces.origins) | {f"--vae {file.name}": file for file in files},
        places=dict(pieces.places) | {"vae": place},
    )


def _from_folder(
    folder: Path,
) -> tuple[Mapping[str, object], Mapping[str, Tensor], list[Path]]:
    if not (folder / "config.json").is_file():
        raise MissingError(f"'{folder.name}' lacks config.json, so it is no VAE's folder")
    files = weight_files(folder)
    config = read_json(folder / "config.json", CONFIG_LIMIT)
    return config, dict(index_tensors(files)), [folder / "config.json", *files]


def _from_file(
    file: Path, own: Mapping[str, object] | None
) -> tuple[Mapping[str, object], Mapping[str, Tensor]]:
    if file.suffix.lower() in PICKLES:
        raise refuse_pickle(f"'{file.name}'")
    stored = dict(index_tensors([file]))
    inside = {name.removeprefix(VAE): t for name, t in stored.items() if name.startswith(VAE)}
    names = inside or stored
    if "decoder.conv_in.weight" not in names:
        raise SourceError(f"'{file.name}' has no VAE", hint="give a VAE, or a checkpoint with one")
    if not any(".down_blocks." in name for name in names):
        return original_vae(names)
    if own is None:
        raise SourceError(
            f"'{file.name}' does not say how its VAE is built", hint="give its folder instead"
        )
    return own, names
