"""A back end in plain numpy that draws coloured noise in no time: for tests and dry runs.

It reads no model. What it computes depends on prompt, seed, guidance and timestep as a real
component's output does, is the same on every machine, and can be made to fail on purpose.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Libraries, Shapes
from engine.errors import DeviceError, OutOfMemoryError

__all__ = ["FakeBackend", "FakeSession"]

# From latents to colours and from colours' means back: any full-rank numbers do.
_TO_RGB: Final = ((0.5, 0.1, -0.2), (0.2, 0.4, 0.3), (-0.3, 0.2, 0.4), (0.1, -0.4, 0.2))
_PIXELS: Final = 8  # pixels a latent
_LOG_VARIANCE = -4.0  # of what it encodes
_BYTES: Final = 1 << 20  # that a latent takes of a device with little memory
_CONCEPTS, _CARES = 17, 3  # of diffusers' safety checker
_RESIDUALS: Final = ("block_res_sample_0", "mid_block_res_sample")


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeBackend:
    """Loads components that need no file.

    embed_dim: of the bundle that it stands in for (128 is pocket's). nan_at_step: the network's
    output has Inf in it at this evaluation of each loaded network, from 0; -1 never.
    nan_in_picture: the decoder's output has NaN in it. nan_in_exact: the repair in fp32 fails as
    well. seconds_per_run: how long every run of the network takes. fails_on: a component's input by
    whose name loading fails. concept_cosine: how near the safety checker finds every picture to
    every concept. unet_room, decoder_room: the latents (height times width) that the device has
    memory for; 0: any. rows_room: the rows of texts that it has memory for; 0: any. fails_at_run:
    that it has not shows when a network runs, not when it loads.
    lost_at_step: the device is gone at this evaluation of each loaded network, from 0; -1 never.
    """

    precision: str = "fp32"
    device: str = "CPU"
    embed_dim: int = 128
    nan_at_step: int = -1
    nan_in_picture: bool = False
    nan_in_exact: bool = False
    seconds_per_run: float = 0.0
    fails_on: str = ""
    concept_cosine: float = 0.0
    unet_room: int = 0
    decoder_room: int = 0
    rows_room: int = 0
    fails_at_run: bool = False
    lost_at_step: int = -1
    name: str = field(default="fake", init=False)
    libraries: Libraries = field(default=(), init=False)

    def load(
        self,
        model: Path,
        shapes: Shapes,
        *,
        identity: str = "",  # noqa: ARG002 - nothing is kept
    ) -> "FakeSession":
        """Give a session for the component that has these inputs; a unet that gives its deep
        feature has those of any, so its file's name tells it.
        """
        if self.fails_on in shapes:
            raise DeviceError(f"the fake was told not to load {model.parent.name}/{model.name}")
        if not self.fails_at_run:
            self.check_room(shapes)
        return FakeSession(self, shapes, deep=model.stem.endswith("_deep"))

    def check_room(self, shapes: Shapes) -> None:
        """Raise OutOfMemoryError for latents that are larger than the device."""
        for name, room in (("sample", self.unet_room), ("latent_sample", self.decoder_room)):
            height, width = shapes.get(name, (0, 0))[-2:]
            if room and height * width > room:
                asked = height * width * _BYTES
                raise OutOfMemoryError(
                    f"the fake has no memory for {height}x{width} latents", requested=asked
                )
        rows = shapes["encoder_hidden_states"][0] if "encoder_hidden_states" in shapes else 0
        if self.rows_room and rows > self.rows_room:
            raise OutOfMemoryError(f"the fake has no memory for {rows} rows", requested=rows)

    def exact(self) -> "FakeBackend":
        """Give the same in fp32, repaired unless nan_in_exact."""
        if self.nan_in_exact:
            return replace(self, precision="fp32")
        return replace(self, precision="fp32", nan_at_step=-1, nan_in_picture=False)


class FakeSession:
    """One component; which one, its inputs say."""

    def __init__(self, backend: FakeBackend, shapes: Shapes, *, deep: bool = False) -> None:
        self._backend = backend
        self._deep = deep
        self._shapes = dict(shapes)
        self._runs = 0

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute embeddings, a prediction or a picture, f32."""
        self._backend.check_room(self._shapes)
        for name, shape in self._shapes.items():
            if inputs[name].shape != shape:
                raise DeviceError(f"input '{name}' has shape {inputs[name].shape}, not {shape}")
        if "input_ids" in inputs:
            return _embed(inputs["input_ids"], self._backend.embed_dim)
        if "timestep" in inputs:
            return self._predict(inputs)
        if "clip_input" in inputs:
            return self._judge(inputs["clip_input"])
        if "sample" in inputs:
            return _encode(inputs["sample"].astype(np.float32))
        picture = _decode(inputs["latent_sample"].astype(np.float32))
        if self._backend.nan_in_picture:
            picture[..., 0] = np.nan
        return picture

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute the one output that each component here has, or the two of the safety checker, of
        a ControlNet whose unet has one resolution above the middle, and of a unet that gives its
        deep feature: f32[n, 8, h, w], its prediction twice.
        """
        if "controlnet_cond" in inputs:
            return _residuals(inputs)
        output = self.run(inputs)
        if self._deep:
            return {"out_sample": output, "deep_feature": np.concatenate([output, output], axis=1)}
        if "clip_input" in inputs:
            return {"concepts": output, "special_care": np.zeros((1, _CARES), np.float32)}
        return {"output": output}

    def _judge(self, picture: Array) -> NDArray[np.float32]:
        """Be near every concept, by `concept_cosine` a picture: f32[1, 17]."""
        cosine = self._backend.concept_cosine
        return np.full((len(picture), _CONCEPTS), cosine, dtype=np.float32)

    def _predict(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        if self._runs == self._backend.lost_at_step:
            raise DeviceError("the fake's device is gone")
        if self._backend.seconds_per_run:
            time.sleep(self._backend.seconds_per_run)
        sample = inputs["sample"].astype(np.float32)
        # An inpainting unet sees mask and picture in further channels; the fake adds them up.
        beside = sample[:, 4:].sum(axis=1, keepdims=True)
        sample = sample[:, :4]
        embeds = inputs["encoder_hidden_states"].astype(np.float32)
        meaning = embeds.mean(axis=1).reshape(len(sample), -1, 4)  # (2, C / 4, 4)
        pull = meaning.sum(axis=1)[:, :, None, None]  # (2, 4, 1, 1)
        drift = np.float32(float(inputs["timestep"]) / 1000.0)
        prediction = np.float32(0.8) * sample + pull * (np.float32(0.2) + drift)
        prediction += np.float32(0.1) * beside
        for name in sorted(name for name in inputs if name.endswith(_RESIDUALS)):
            prediction += inputs[name].astype(np.float32).mean(axis=(2, 3), keepdims=True)
        if "deep_feature" in inputs:  # half of it is not computed anew
            feature = inputs["deep_feature"].astype(np.float32)[:, : sample.shape[1]]
            prediction = np.float32(0.5) * (prediction + feature)
        if self._runs == self._backend.nan_at_step:
            prediction[..., 0] = np.inf  # guidance makes NaN of the difference of the halves
        self._runs += 1
        return prediction


def _residuals(inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
    """Give what a ControlNet adds, f32[n, 4, h, w] and half of that: the picture, reduced."""
    picture = inputs["controlnet_cond"].astype(np.float32)[:, :1]  # (n, 1, 8h, 8w)
    count, _, height, width = picture.shape
    blocks = picture.reshape(count, 1, height // _PIXELS, _PIXELS, width // _PIXELS, _PIXELS)
    down = blocks.mean(axis=(3, 5)) * np.float32(float(inputs["conditioning_scale"]))
    down = down.repeat(4, axis=1)  # (n, 4, h, w)
    middle = np.ascontiguousarray(down[:, :, ::2, ::2]) * np.float32(0.5)
    return {"down_block_res_sample_0": down, "mid_block_res_sample": middle}


def _embed(ids: Array, embed_dim: int) -> NDArray[np.float32]:
    """Give every token a fixed direction that turns with its place: f32[n, L, C]."""
    channel = np.arange(1, embed_dim + 1, dtype=np.float64)
    place = np.arange(ids.shape[1], dtype=np.float64)[:, None]
    angle = ids.astype(np.float64)[:, :, None] * channel + place  # (n, L, C)
    return np.sin(angle).astype(np.float32)


def _decode(latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour the latents and enlarge them: f32[1, 4, h, w] -> f32[1, 3, 8h, 8w]."""
    colours = np.einsum("bchw,ck->bkhw", latents, np.array(_TO_RGB, dtype=np.float32))
    return colours.repeat(_PIXELS, axis=2).repeat(_PIXELS, axis=3)


def _encode(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the latents whose colours are the picture's means, and how sure the fake is of them:
    f32[1, 3, 8h, 8w] -> f32[1, 8, h, w].
    """
    height, width = (side // _PIXELS for side in picture.shape[2:])
    means = picture.reshape(1, 3, height, _PIXELS, width, _PIXELS).mean(axis=(3, 5))
    back = np.linalg.pinv(np.array(_TO_RGB))  # (3, 4)
    latents = np.einsum("bkhw,kc->bchw", means, back).astype(np.float32)
    return np.concatenate((latents, np.full_like(latents, _LOG_VARIANCE)), axis=1)
