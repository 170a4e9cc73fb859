"""Reads a single .safetensors file of the original code, as model sites offer them.

The family is recognised from the names of its weights; configurations and the vocabulary come with
this program, so nothing is asked of the network.
"""

from collections.abc import Mapping
from pathlib import Path

from export import ldm
from export.checkpoint import Pieces
from export.errors import MissingError, SourceError
from export.recipes import INPAINT_CHANNELS, SD1, SDXL, SDXL_REFINER, Recipe
from export.vocabulary import END, VOCABULARY, clip_tokenizer_files
from export.weightfiles import Tensor, header_metadata, index_tensors

__all__ = ["open_single_file", "original_vae", "usual_vae"]

Named = Mapping[str, Tensor]
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER = "conditioner.embedders.0.model."  # its only text encoder is the second of the base's
# SD 2.x conditions on the layer before the last of OpenCLIP's ViT-H.
SD2_LEFT_OUT = 1
SIDES = {
    "sd1": 64,
    "sd2": 64,
    "sd2 v": 96,
    "sdxl": 128,
    "sdxl-refiner": 128,
}  # latents, as each was trained
SCALING, XL_SCALING = 0.18215, 0.13025
WHOLE = "give a whole checkpoint, not the unet of one"
TRAINING = ("loss.", "model_ema.")  # what a VAE's own training leaves beside it
V_KEY = "v_pred"  # an empty weight by which some fine-tunes say what they predict
SPEC_PREDICTION = "modelspec.prediction_type"  # github.com/Stability-AI/ModelSpec
ZERO_SNR_KEY = "ztsnr"  # the same of those whose noise ends in nothing else
NOISE: Mapping[str, object] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SCHEDULERS: Mapping[str, Mapping[str, object]] = {
    "sd1": {
        **NOISE,
        "_class_name": "PNDMScheduler",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
    },
    "sdxl": {
        **NOISE,
        "_class_name": "EulerDiscreteScheduler",
        "timestep_spacing": "leading",
        "interpolation_type": "linear",
        "use_karras_sigmas": False,
    },
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
    version = recipe.family
    if version == "sd1" and unet_config["use_linear_projection"]:
        version = "sd2"
    inpainting = unet_config["in_channels"] == INPAINT_CHANNELS
    if inpainting and version == "sd2":
        prediction = prediction or "epsilon"  # the only one published: 512-inpainting-ema
    predicted = _prediction(file, stored, version, prediction)
    side = SIDES["sd2 v" if (version, predicted) == ("sd2", "v_prediction") else version]
    scheduler = dict(SCHEDULERS["sdxl" if recipe.time_ids else "sd1"]) | {
        "prediction_type": predicted
    }
    if ZERO_SNR_KEY in stored:
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    configs: dict[str, Mapping[str, object]] = {
        "scheduler": scheduler,
        "unet": unet_config | {"sample_size": side},
    }
    tensors: dict[str, Mapping[str, Tensor]] = {
        "unet": ldm.renamed("unet", unet, ldm.unet_names(shapes)),
    }
    for part, (config, weights) in _text_encoders(stored, recipe).items():
        configs[part], tensors[part] = config, weights
    if own := _under(stored, VAE):
        vae, tensors["vae"] = original_vae(own)
        configs["vae"] = vae | {"sample_size": 8 * side, **usual_vae(recipe)}
    return Pieces(
        label=file.name,
        kind="safetensors",
        recipe=recipe,
        index={
            "_class_name": recipe.inpainting if inpainting else recipe.pipelines[0],
            **recipe.settings,
            **_index_classes(recipe, scheduler),
        },
        configs=configs,
        tensors=tensors,
        files=_tokenizers(configs),
        origins={file.name: file},
        places=dict.fromkeys(tensors, file),
    )


def usual_vae(recipe: Recipe) -> dict[str, object]:
    """Give what a VAE's weights do not say: the family's scaling factor."""
    return {"scaling_factor": XL_SCALING if recipe.time_ids else SCALING}


def original_vae(stored: Named) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Give configuration and weights of a VAE under its original names. Raises SourceError."""
    vae = {name: tensor for name, tensor in stored.items() if not name.startswith(TRAINING)}
    shapes = _shapes(vae)
    return ldm.vae_config(shapes), ldm.renamed("VAE", vae, ldm.vae_names(shapes))


def _recognise(label: str, stored: Named) -> Recipe:
    if not any(name.startswith(UNET) for name in stored):
        kind = "a VAE alone" if "decoder.conv_in.weight" in stored else "no Stable Diffusion"
        if any("lora" in name for name in stored):
            kind = "a LoRA, which goes to --lora"
        raise SourceError(
            f"'{label}' is {kind}: it has no weight that begins with '{UNET}'",
            hint="give a whole checkpoint",
        )
    if any(name.startswith(REFINER) for name in stored):
        return SDXL_REFINER
    return SDXL if any(name.startswith((XL_CLIP, XL_OPEN_CLIP)) for name in stored) else SD1


def _text_encoders(
    stored: Named, recipe: Recipe
) -> dict[str, tuple[dict[str, object], dict[str, Tensor]]]:
    if recipe is SDXL_REFINER:
        open_clip = _under(stored, REFINER)
        layers = _layers(open_clip)
        second = ldm.open_clip_tensors(open_clip, layers)
        return {"text_encoder_2": (ldm.open_clip_config(_shapes(open_clip), layers), second)}
    if recipe.family == "sdxl":
        clip, open_clip = _under(stored, XL_CLIP), _under(stored, XL_OPEN_CLIP)
        if not clip or not open_clip:
            raise MissingError("the file lacks one of the two text encoders", hint=WHOLE)
        layers = _layers(open_clip)
        second = ldm.open_clip_tensors(open_clip, layers)
        return {
            "text_encoder": (ldm.clip_config(_shapes(clip)), clip),
            "text_encoder_2": (ldm.open_clip_config(_shapes(open_clip), layers), second),
        }
    if open_clip := _under(stored, OPEN_CLIP):
        layers = _layers(open_clip) - SD2_LEFT_OUT
        tensors = ldm.open_clip_tensors(open_clip, layers)
        tensors.pop("text_projection.weight", None)  # of the pooled output, which is not used
        return {"text_encoder": (ldm.open_clip_config(_shapes(open_clip), layers), tensors)}
    if clip := _under(stored, CLIP):
        return {"text_encoder": (ldm.clip_config(_shapes(clip)), clip)}
    raise MissingError("the file has no text encoder", hint=WHOLE)


def _layers(open_clip: Named) -> int:
    return len({name.split(".")[2] for name in open_clip if ".resblocks." in name})


def _prediction(file: Path, stored: Named, version: str, given: str | None) -> str:
    said = header_metadata(file).get(SPEC_PREDICTION, "")
    if given is not None:
        return given
    if V_KEY in stored or said in {"v", "v_prediction"}:
        return "v_prediction"
    if version != "sd2" or said == "epsilon":
        return "epsilon"
    raise SourceError(
        f"'{file.name}' is a Stable Diffusion 2.x that does not say what its unet predicts",
        hint="--prediction v_prediction for the models of 768 pixels, epsilon for those of 512",
    )


def _tokenizers(configs: Mapping[str, Mapping[str, object]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part, config in configs.items():
        if not part.startswith("text_encoder"):
            continue
        if config["vocab_size"] != VOCABULARY:
            raise SourceError(
                f"the file's text encoder knows {config['vocab_size']} tokens;"
                f" CLIP's vocabulary has {VOCABULARY}"
            )
        folder = part.replace("text_encoder", "tokenizer")
        pad = "!" if config["pad_token_id"] == 0 else END
        files = clip_tokenizer_files(int(str(config["max_position_embeddings"])), pad=pad)
        found |= {f"{folder}/{name}": content for name, content in files.items()}
    return found


def _index_classes(recipe: Recipe, scheduler: Mapping[str, object]) -> dict[str, object]:
    classes: dict[str, object] = {
        part: ["transformers" if name.startswith("CLIP") else "diffusers", name]
        for part, name in recipe.classes.items()
    }
    return classes | {"scheduler": ["diffusers", scheduler["_class_name"]]}


def _under(stored: Named, prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in stored.items()
        if name.startswith(prefix)
    }


def _shapes(tensors: Named) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}
