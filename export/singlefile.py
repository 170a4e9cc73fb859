"""Reads a single .safetensors file of the original code, as model sites offer them.

The family is recognised from the names of its weights; configurations and the vocabulary come with
this program, so nothing is asked of the network.
"""

from collections.abc import Mapping
from pathlib import Path

from export import ldm
from export.checkpoint import Pieces
from export.errors import MissingError, SourceError
from export.recipes import SD1, Recipe
from export.vocabulary import VOCABULARY, clip_tokenizer_files
from export.weightfiles import Tensor, header_metadata, index_tensors

__all__ = ["open_single_file", "original_vae"]

Named = Mapping[str, Tensor]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER = "conditioner.embedders.0.model."
# SD 2.x conditions on the layer before the last of OpenCLIP's ViT-H.
SD2_LEFT_OUT = 1
SIDES = {"sd1": 64, "sd2": 64, "sd2 v": 96}  # latents, at the size that each was trained for
SCALING = 0.18215
TRAINING = ("loss.", "model_ema.")  # what a VAE's own training leaves beside it
V_KEY = "v_pred"  # an empty weight by which some fine-tunes say what they predict
SPEC_PREDICTION = "modelspec.prediction_type"  # github.com/Stability-AI/ModelSpec
SCHEDULER: Mapping[str, object] = {
    "_class_name": "PNDMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def open_single_file(file: Path, prediction: str | None) -> Pieces:
    """Recognise a single file and index its weights under diffusers' names.

    prediction: "epsilon" or "v_prediction" where the caller knows. Raises SourceError,
    MissingError.
    """
    stored = dict(index_tensors([file]))
    recipe = _recognise(file.name, stored)
    unet = _under(stored, UNET)
    shapes = _shapes(unet)
    unet_config = ldm.unet_config(shapes)
    text_config, text = _text_encoder(stored)
    version = "sd2" if unet_config["use_linear_projection"] else "sd1"
    predicted = _prediction(file, stored, version, prediction)
    side = SIDES["sd2 v" if version == "sd2" and predicted == "v_prediction" else version]
    configs: dict[str, Mapping[str, object]] = {
        "scheduler": dict(SCHEDULER) | {"prediction_type": predicted},
        "text_encoder": text_config,
        "unet": unet_config | {"sample_size": side},
    }
    tensors: dict[str, Mapping[str, Tensor]] = {
        "text_encoder": text,
        "unet": ldm.renamed("unet", unet, ldm.unet_names(shapes)),
    }
    if own := _under(stored, VAE):
        configs["vae"], tensors["vae"] = original_vae(own)
        configs["vae"] = dict(configs["vae"]) | {"sample_size": 8 * side}
    return Pieces(
        label=file.name,
        kind="safetensors",
        recipe=recipe,
        index={"_class_name": recipe.pipelines[0], **_index_classes(recipe)},
        configs=configs,
        tensors=tensors,
        files=_tokenizer(text_config),
        origins={file.name: file},
        places=dict.fromkeys(tensors, file),
    )


def original_vae(stored: Named) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Give configuration and weights of a VAE under its original names. Raises SourceError."""
    vae = {name: tensor for name, tensor in stored.items() if not name.startswith(TRAINING)}
    shapes = _shapes(vae)
    config = ldm.vae_config(shapes) | {"scaling_factor": SCALING}
    return config, ldm.renamed("VAE", vae, ldm.vae_names(shapes))


def _recognise(label: str, stored: Named) -> Recipe:
    if not any(name.startswith(UNET) for name in stored):
        kind = "a VAE alone" if "decoder.conv_in.weight" in stored else "no Stable Diffusion"
        if any("lora" in name for name in stored):
            kind = "a LoRA, which goes to --lora"
        raise SourceError(
            f"'{label}' is {kind}: it has no weight that begins with '{UNET}'",
            hint="give a whole checkpoint",
        )
    if any(name.startswith((XL_CLIP, XL_OPEN_CLIP, REFINER)) for name in stored):
        raise SourceError(f"'{label}' is a Stable Diffusion XL; 1.x and 2.x can be exported")
    return SD1


def _text_encoder(stored: Named) -> tuple[dict[str, object], dict[str, Tensor]]:
    if open_clip := _under(stored, OPEN_CLIP):
        names = {name.split(".")[2] for name in open_clip if ".resblocks." in name}
        layers = len(names) - SD2_LEFT_OUT
        config = ldm.open_clip_config(_shapes(open_clip), layers)
        tensors = ldm.open_clip_tensors(open_clip, layers)
        tensors.pop("text_projection.weight", None)  # of the pooled output, which is not used
        return config, tensors
    if clip := _under(stored, CLIP):
        return ldm.clip_config(_shapes(clip)), clip
    raise MissingError(
        "the file has no text encoder", hint="give a whole checkpoint, not the UNet of one"
    )


def _prediction(file: Path, stored: Named, version: str, given: str | None) -> str:
    said = header_metadata(file).get(SPEC_PREDICTION, "")
    if given is not None:
        return given
    if V_KEY in stored or said in {"v", "v_prediction"}:
        return "v_prediction"
    if version == "sd1" or said == "epsilon":
        return "epsilon"
    raise SourceError(
        f"'{file.name}' is a Stable Diffusion 2.x that does not say what its unet predicts",
        hint="--prediction v_prediction for the models of 768 pixels, epsilon for those of 512",
    )


def _tokenizer(text_config: Mapping[str, object]) -> dict[str, bytes]:
    if text_config["vocab_size"] != VOCABULARY:
        raise SourceError(
            f"the file's text encoder knows {text_config['vocab_size']} tokens;"
            f" CLIP's vocabulary has {VOCABULARY}"
        )
    limit = int(str(text_config["max_position_embeddings"]))
    pad = "!" if text_config["pad_token_id"] == 0 else "<|endoftext|>"
    return {f"tokenizer/{n}": data for n, data in clip_tokenizer_files(limit, pad=pad).items()}


def _index_classes(recipe: Recipe) -> dict[str, object]:
    libraries = {"CLIPTextModel": "transformers", "CLIPTokenizer": "transformers"}
    classes: dict[str, object] = {
        part: [libraries.get(name, "diffusers"), name] for part, name in recipe.classes.items()
    }
    return classes | {"scheduler": ["diffusers", SCHEDULER["_class_name"]]}


def _under(stored: Named, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }


def _shapes(tensors: Named) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}
