"""Small pictures as other programs write them: the same fields, in the same places."""

import io
import json

from PIL import Image
from PIL.PngImagePlugin import PngInfo

__all__ = ["INFOTEXT", "SAMPLES", "jpeg", "png", "user_comment_jpeg", "webp"]

SIZE = (48, 32)
INFOTEXT = (
    "a lighthouse, (storm:1.2)\nNegative prompt: blurry\n"
    "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 4242, "
    "Size: 48x32, Model hash: 6ce0161689, Model: dreamy"
)
INVOKE = {
    "generation_mode": "txt2img",
    "positive_prompt": "a lighthouse, storm",
    "negative_prompt": "blurry",
    "width": 48,
    "height": 32,
    "seed": 4242,
    "cfg_scale": 6.5,
    "steps": 25,
    "scheduler": "dpmpp_2m_k",
    "model": {"key": "1", "name": "dreamy", "base": "sd-1"},
    "app_version": "5.4.0",
}
OLD_INVOKE = {
    "model": "stable diffusion",
    "model_weights": "dreamy",
    "app_id": "invoke-ai/InvokeAI",
    "image": {
        "prompt": [{"prompt": "a lighthouse, storm [blurry]", "weight": 1.0}],
        "steps": 25,
        "cfg_scale": 6.5,
        "sampler": "k_dpmpp_2m",
        "seed": 4242,
    },
}
FOOOCUS = {
    "prompt": "a lighthouse, storm",
    "negative_prompt": "blurry",
    "steps": 25,
    "resolution": "(48, 32)",
    "guidance_scale": 6.5,
    "base_model": "dreamy",
    "sampler": "dpmpp_2m",
    "scheduler": "karras",
    "seed": "4242",
    "version": "Fooocus v2.5.5",
}
SWARM = {
    "sui_image_params": {
        "prompt": "a lighthouse, storm",
        "negativeprompt": "blurry",
        "model": "dreamy",
        "seed": 4242,
        "steps": 25,
        "cfgscale": 6.5,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "swarm_version": "0.9.5",
    }
}
# Two passes, a text from another node, a ControlNet that both sides pass through.
COMFY = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": ["20", 0],
            "steps": 25,
            "cfg": 6.5,
            "sampler_name": "dpmpp_2m",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["4", 0],
            "positive": ["12", 0],
            "negative": ["12", 1],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "dreamy.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 48, "height": 32}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["21", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["10", 0], "vae": ["4", 2]}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
    "10": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 99,
            "steps": 9,
            "cfg": 2.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 0.4,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["11", 0],
        },
    },
    "11": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0]}},
    "12": {
        "class_type": "ControlNetApplyAdvanced",
        "inputs": {"positive": ["6", 0], "negative": ["7", 0], "strength": 1.0},
    },
    "20": {"class_type": "Seed (any)", "inputs": {"seed": 4242}},
    "21": {"class_type": "PrimitiveString", "inputs": {"value": "a lighthouse, storm"}},
}
CUSTOM = {
    "1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
    "2": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0]}},
    "3": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {
            "noise": ["4", 0],
            "guider": ["5", 0],
            "sampler": ["6", 0],
            "sigmas": ["7", 0],
            "latent_image": ["8", 0],
        },
    },
    "4": {"class_type": "RandomNoise", "inputs": {"noise_seed": 4242}},
    "5": {
        "class_type": "CFGGuider",
        "inputs": {"cfg": 6.5, "positive": ["9", 0], "negative": ["10", 0], "model": ["11", 0]},
    },
    "6": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}},
    "7": {"class_type": "BasicScheduler", "inputs": {"scheduler": "karras", "steps": 25}},
    "8": {"class_type": "EmptyLatentImage", "inputs": {"width": 48, "height": 32}},
    "9": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse, storm"}},
    "10": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}},
    "11": {"class_type": "UNETLoader", "inputs": {"unet_name": "dreamy"}},
}


def _image():
    return Image.linear_gradient("L").resize(SIZE).convert("RGB")


def png(texts=(), compressed=False):
    """Encode a PNG with these text chunks."""
    info = PngInfo()
    for name, text in dict(texts).items():
        info.add_text(name, text, zip=compressed)
    buffer = io.BytesIO()
    _image().save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _exif(fields, comment=b""):
    exif = Image.Exif()
    for tag, text in fields.items():
        exif[tag] = text
    if comment:
        exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes()


def jpeg(fields=None, comment=b""):
    """Encode a JPEG with these fields of EXIF."""
    buffer = io.BytesIO()
    _image().save(buffer, "JPEG", exif=_exif(fields or {}, comment))
    return buffer.getvalue()


def webp(fields=None, comment=b""):
    """Encode a WebP with these fields of EXIF."""
    buffer = io.BytesIO()
    _image().save(buffer, "WEBP", exif=_exif(fields or {}, comment))
    return buffer.getvalue()


def user_comment_jpeg(text, order="utf-16-be"):
    """Encode a JPEG as A1111 does: the text as EXIF's UserComment."""
    return jpeg(comment=b"UNICODE\0" + text.encode(order))


# name -> (file, program, prompt)
SAMPLES = {
    "a1111.png": (png({"parameters": INFOTEXT}), "AUTOMATIC1111", "a lighthouse, (storm:1.2)"),
    "a1111-zip.png": (png({"parameters": INFOTEXT}, compressed=True), "AUTOMATIC1111", None),
    "a1111.jpg": (user_comment_jpeg(INFOTEXT), "AUTOMATIC1111", None),
    "a1111-le.jpg": (user_comment_jpeg(INFOTEXT, "utf-16-le"), "AUTOMATIC1111", None),
    "a1111.webp": (
        webp(comment=b"UNICODE\0" + INFOTEXT.encode("utf-16-be")),
        "AUTOMATIC1111",
        None,
    ),
    "sdnext.png": (png({"parameters": f"{INFOTEXT}, App: SD.Next"}), "SD.Next", None),
    "fooocus-a1111.png": (
        png({"parameters": f"{INFOTEXT}, Version: Fooocus v2.5.5", "fooocus_scheme": "a1111"}),
        "Fooocus",
        None,
    ),
    "fooocus.png": (
        png({"parameters": json.dumps(FOOOCUS), "fooocus_scheme": "fooocus"}),
        "Fooocus",
        "a lighthouse, storm",
    ),
    "fooocus.jpg": (user_comment_jpeg(json.dumps(FOOOCUS)), "Fooocus", "a lighthouse, storm"),
    "swarm.png": (png({"parameters": json.dumps(SWARM)}), "SwarmUI", "a lighthouse, storm"),
    "swarm.jpg": (user_comment_jpeg(json.dumps(SWARM)), "SwarmUI", "a lighthouse, storm"),
    "invoke.png": (
        png({"invokeai_metadata": json.dumps(INVOKE)}),
        "InvokeAI",
        "a lighthouse, storm",
    ),
    "invoke2.png": (
        png({"sd-metadata": json.dumps(OLD_INVOKE)}),
        "InvokeAI",
        "a lighthouse, storm",
    ),
    "comfy.png": (
        png({"prompt": json.dumps(COMFY), "workflow": "{}"}),
        "ComfyUI",
        "a lighthouse, storm",
    ),
    "comfy-custom.png": (png({"prompt": json.dumps(CUSTOM)}), "ComfyUI", "a lighthouse, storm"),
    "comfy.webp": (
        webp({0x0110: f"prompt:{json.dumps(COMFY)}", 0x010F: "workflow:{}"}),
        "ComfyUI",
        "a lighthouse, storm",
    ),
}
