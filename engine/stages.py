"""Networks of one precision, and what they make of a request: text, predictions, pixels."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array
from engine.components import Components
from engine.conditioning import Conditioner, Conditioning, ScheduledConditioning
from engine.errors import BundleError
from engine.guidance import guidance_embedding
from engine.interval import GuidanceInterval, each_text, limits_guidance
from engine.network import Network, added_conditions
from engine.reuse import FeatureSession, Reuse
from engine.textoutputs import text_outputs

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.bundle import Bundle
    from engine.decoders import Decoder
    from engine.denoiser import Predict
    from engine.interval import Shown
    from engine.request import GenerationRequest
    from engine.texts import Texts
    from engine.tokenizer import Tokenizer

__all__ = ["Stages"]

Float32 = NDArray[np.float32]


class Stages:
    """Text encoding, the network and decoding of one bundle on one back end in one precision."""

    def __init__(
        self, bundle: "Bundle", backend: "Backend", tokenizers: "Sequence[Tokenizer]"
    ) -> None:
        manifest = bundle.manifest
        self._manifest = manifest
        self.components = Components(bundle, backend)
        self.conditioner = Conditioner(
            tokenizers,
            manifest.embed_dim,
            zero_empty=manifest.family == "sdxl",
            outputs=partial(text_outputs, manifest),
        )

    def embed(self, texts: "Texts") -> Conditioning | ScheduledConditioning:
        """Encode what the conditioner's `plan` gave."""
        return self.conditioner.embed(texts, self.components.text_encoders())

    def network(
        self,
        text: Conditioning | ScheduledConditioning,
        request: "GenerationRequest",
        width: int,
        height: int,
        weights: Sequence[float] = (1.0,),
    ) -> "Predict":
        """Bind the unet to a prompt for pictures of width x height pixels. weights: of the
        conditional texts, as in `Denoiser`.
        """
        if len(text.embeds) == 1 or not limits_guidance(request):
            return self._bind(text, request, width, height)
        texts = [self._bind(each, request, width, height) for each in each_text(text)]
        return GuidanceInterval(texts, request.guidance_start, request.guidance_end, weights)

    def load(
        self, request: "GenerationRequest", halves: int, tokens: int, height: int, width: int
    ) -> None:
        """Load what `network` takes for so many texts at once; sizes in pixels."""
        halves = 1 if limits_guidance(request) else halves
        if request.reuse_every > 1:
            self.components.unet_pair(halves, tokens, height, width)
        else:
            self.components.unet(halves, tokens, height, width)

    def _bind(
        self, text: "Shown", request: "GenerationRequest", width: int, height: int
    ) -> "Predict":
        """Bind the unet to texts that it is shown at once."""
        halves, tokens, _ = text.embeds.shape
        added: dict[str, Array] = added_conditions(text, width, height)
        dim = self._manifest.guidance_dim
        if dim:
            added["timestep_cond"] = guidance_embedding(request.guidance_scale, dim)
        every = request.reuse_every
        if every == 1:
            unet = self.components.unet(halves, tokens, height, width)
            return Network(unet, text, added)
        pair = FeatureSession(*self.components.unet_pair(halves, tokens, height, width))
        return Reuse(Network(pair, text, added), pair, every)

    def decode(self, decoder: "Decoder", latents: Float32) -> Float32:
        """Decode f32[1, 4, h, w] into f32[1, 3, 8 h, 8 w], about -1..1."""
        factor = self._manifest.vae_scale_factor
        height, width = (side * factor for side in latents.shape[2:])
        network = self.components.decoder(decoder.component, height, width)
        decoded = network.run({"latent_sample": latents / np.float32(decoder.scaling_factor)})
        if decoded.shape != (1, 3, height, width):
            raise BundleError(
                f"the decoder gives {decoded.shape}; (1, 3, {height}, {width}) was expected"
            )
        return decoded
