"""Who is measured beside us: what to install, what to run, and what a reader has to know."""

from dataclasses import dataclass
from typing import Final

__all__ = ["PEERS", "PeerRow"]

TORCH: Final = "torch==2.13.0"
DIFFUSERS: Final = (TORCH, "diffusers==0.42.1", "transformers==5.24.0", "accelerate==1.15.0")
GENAI: Final = (
    "openvino-genai==2026.4.1.0",
    "openvino-tokenizers==2026.4.1.0",
    "transformers==5.24.0",
    "pillow",
)
# Its own noise, so that the gate has nothing to compare.
OWN_NOISE: Final = "noise of its own"


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerRow:
    """One peer. venv: shared by rows of the same name, which install the same. needs: the forms of
    the model that it reads: checkpoint, published (the same with older names), bundle, openvino.
    way: what its side is told. compared: its pictures are those of the same seed, so that the gate
    holds. models: that it can load, all when empty.
    """

    name: str
    venv: str
    install: tuple[str, ...]
    side: str
    needs: str
    way: str = ""
    compared: bool = True
    models: tuple[str, ...] = ()
    note: str = ""


_PUBLIC: Final = ("sd15", "sd21", "sdxl", "turbo")
PEERS: Final[tuple[PeerRow, ...]] = (
    PeerRow(
        name="diffusers fp32",
        venv="diffusers",
        install=DIFFUSERS,
        side="diffusers_side",
        needs="checkpoint",
        way="fp32",
    ),
    PeerRow(
        name="diffusers bf16 channels_last",
        venv="diffusers",
        install=DIFFUSERS,
        side="diffusers_side",
        needs="checkpoint",
        way="bf16",
    ),
    PeerRow(
        name="diffusers bf16 torch.compile",
        venv="diffusers",
        install=DIFFUSERS,
        side="diffusers_side",
        needs="checkpoint",
        way="compile",
    ),
    PeerRow(
        name="optimum onnxruntime fp32",
        venv="optimum",
        # The last versions that work with each other (ENGINE.md: optimum).
        install=(
            TORCH,
            "optimum-onnx[onnxruntime]==0.1.0",
            "diffusers==0.35.2",
            "transformers==4.57.6",
        ),
        side="optimum_side",
        needs="bundle",
    ),
    PeerRow(
        name="openvino-genai f32",
        venv="genai",
        install=GENAI,
        side="genai_side",
        needs="openvino",
        way="f32",
        compared=False,
        note=f"{OWN_NOISE}; no DPM-Solver: DDIM, with as many evaluations",
    ),
    PeerRow(
        name="openvino-genai bf16",
        venv="genai",
        install=GENAI,
        side="genai_side",
        needs="openvino",
        way="bf16",
        compared=False,
        note=f"{OWN_NOISE}; no DPM-Solver: DDIM, with as many evaluations",
    ),
    PeerRow(
        name="stable-diffusion.cpp",
        venv="sdcpp",
        install=("stable-diffusion-cpp-python==0.4.7", "pillow"),
        side="sdcpp_side",
        needs="published",
        compared=False,
        models=_PUBLIC,
        note="it has the published vocabulary built in, a random model one of its own",
    ),
)
