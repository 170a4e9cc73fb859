"""The network of one picture: a unet bound to its prompt and size, asked once a row."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Session
from engine.errors import BundleError
from engine.moment import Moment

if TYPE_CHECKING:
    from engine.interval import Shown

__all__ = ["Network", "added_conditions"]

Float32 = NDArray[np.float32]


class Network:
    """Answers (x f32[1, 4, h, w], moment) with the prediction f32[n, 4, h, w].

    n is the number of texts: the unconditional one first unless n is 1. x is shown to each.
    One network serves one picture at a time: its buffers are reused.
    """

    def __init__(
        self,
        unet: Session,
        text: "Shown",
        added: Mapping[str, Array],
    ) -> None:
        """unet: loaded for n texts and this size. added: its inputs beside latents, timestep and
        embeddings, as `added_conditions` gives them.
        """
        self._unet = unet
        self._text = text
        self._texts = len(text.embeds)
        self._inputs: dict[str, Array] = dict(added)
        self._sample = np.empty((0, 0, 0, 0), dtype=np.float32)

    def __call__(self, x: Float32, moment: Moment) -> Float32:
        """Predict; raises BundleError where the unet gives another shape."""
        shape = (self._texts, *x.shape[1:])
        if self._sample.shape != shape:
            self._sample = np.empty(shape, dtype=np.float32)
        np.copyto(self._sample, x)
        text = self._text.at(moment)
        self._inputs["encoder_hidden_states"] = text.embeds
        if text.pooled is not None:
            self._inputs["text_embeds"] = text.pooled
        self._inputs["sample"] = self._sample
        self._inputs["timestep"] = np.array(moment.timestep, dtype=np.float32)
        output = self._unet.run(self._inputs)
        if output.shape != shape:
            raise BundleError(f"the unet gives {output.shape} for {shape}")
        return output


def added_conditions(text: "Shown", width: int, height: int) -> dict[str, Array]:
    """Give what SDXL's unet takes beside the prompt: text_embeds f32[n, P], time_ids f32[n, 6].

    width, height: of the picture in pixels. Empty for a text without a pooled form; of one that
    changes it is the first step's.
    """
    if text.pooled is None:
        return {}
    # Size before cropping, the crop's top and left, size now: made as if nothing was cropped.
    sizes = (height, width, 0, 0, height, width)
    time_ids = np.array([sizes] * len(text.pooled), dtype=np.float32)
    return {"text_embeds": text.pooled, "time_ids": time_ids}
