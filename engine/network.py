"""The network of one prompt: a unet bound to it and to a size, asked once a row."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Session
from engine.errors import BundleError
from engine.moment import Moment

if TYPE_CHECKING:
    from engine.conditioning import Shown

__all__ = ["Canvas", "Network", "Steer", "added_conditions"]

Float32 = NDArray[np.float32]
# What a unet is given in a step beside its own inputs, made of these: ControlNets' residuals.
Steer = Callable[[Mapping[str, Array], Moment], Mapping[str, Array]]
# Aesthetic scores that SDXL's refiner is told for prompt and negative prompt: diffusers' defaults.
LIKED, DISLIKED = 6.0, 2.5
REFINER_TIME_IDS = 5
_NONE = np.zeros((1, 0, 0, 0), dtype=np.float32)


class Canvas(NamedTuple):
    """What is drawn on: width and height in pixels; beside, f32[p, k, h, w], is what an inpainting
    unet sees beside the latents, k of 0 for others. Its p rows are the pictures drawn at once.
    """

    width: int
    height: int
    beside: Float32


class Network:
    """Answers (x f32[p, 4, h, w], moment) with the prediction f32[n * p, 4, h, w].

    n is the number of texts: the unconditional one first unless n is 1. Each of the p pictures is
    shown to each: rows are the first text's pictures, then the second's. Its buffers are reused.
    """

    def __init__(
        self,
        unet: Session,
        text: "Shown",
        added: Mapping[str, Array],
        steer: Steer = lambda _inputs, _moment: {},
        beside: Float32 = _NONE,
    ) -> None:
        """unet: loaded for n texts, p pictures and this size. text: n * p of them, as
        `engine.batches.Together` has them. added: the unet's inputs beside latents, timestep and
        embeddings, as `added_conditions` gives them. steer: gives further ones in each step.
        beside: f32[p, k, h, w], channels behind the latents' own.
        """
        self._beside = beside
        self._pictures = len(beside)
        self._steer = steer
        self._unet = unet
        self._text = text
        self._rows = len(text.embeds)
        self._inputs: dict[str, Array] = dict(added)
        self._sample = np.empty((0, 0, 0, 0), dtype=np.float32)

    def __call__(self, x: Float32, moment: Moment) -> Float32:
        """Predict; raises BundleError where the unet gives another shape."""
        shape = (self._rows, *x.shape[1:])
        channels = shape[1]
        if self._sample.shape[2:] != shape[2:]:
            seen = (shape[0], channels + self._beside.shape[1], *shape[2:])
            self._sample = np.empty(seen, dtype=np.float32)
        sample = self._sample.reshape(-1, self._pictures, *self._sample.shape[1:])
        np.copyto(sample[:, :, :channels], x)
        if self._beside.shape[1]:
            np.copyto(sample[:, :, channels:], self._beside)
        text = self._text.at(moment)
        self._inputs["encoder_hidden_states"] = text.embeds
        if text.pooled is not None:
            self._inputs["text_embeds"] = text.pooled
        self._inputs["sample"] = self._sample
        self._inputs["timestep"] = np.array(moment.timestep, dtype=np.float32)
        self._inputs.update(self._steer(self._inputs, moment))
        output = self._unet.run(self._inputs)
        if output.shape != shape:
            raise BundleError(f"the unet gives {output.shape} for {shape}")
        return output


def added_conditions(text: "Shown", width: int, height: int, time_ids: int) -> dict[str, Array]:
    """Give what SDXL's unet takes beside the prompt: text_embeds f32[n, P], time_ids f32[n, k].

    width, height: of the picture in pixels. time_ids: k, 5 for the refiner, else 6. Empty for a
    text without a pooled form; of one that changes it is the first step's.
    """
    if text.pooled is None:
        return {}
    halves = len(text.pooled)
    # Size before cropping, the crop's top and left: made as if nothing was cropped.
    rows = np.array([(height, width, 0, 0)] * halves, dtype=np.float32)
    if time_ids == REFINER_TIME_IDS:
        scores = [LIKED if place or halves == 1 else DISLIKED for place in range(halves)]
        more = np.array(scores, dtype=np.float32)[:, None]
    else:
        more = rows[:, :2]  # the size now
    return {"text_embeds": text.pooled, "time_ids": np.concatenate([rows, more], axis=1)}
