"""Networks of one precision, and what they make of a request: text, predictions, pixels."""

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array
from engine.components import Components
from engine.conditioning import Conditioner, Conditioning, ScheduledConditioning
from engine.errors import BundleError
from engine.guidance import guidance_embedding
from engine.network import Network, added_conditions
from engine.textoutputs import text_outputs

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.bundle import Bundle
    from engine.decoders import Decoder
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
            outputs=cache(partial(text_outputs, manifest, bundle.output_names)),
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
    ) -> Network:
        """Bind the unet to a prompt for pictures of width x height pixels."""
        halves, tokens, _ = text.embeds.shape
        unet = self.components.unet(halves, tokens, height, width)
        added: dict[str, Array] = added_conditions(text, width, height)
        dim = self._manifest.guidance_dim
        if dim:
            added["timestep_cond"] = guidance_embedding(request.guidance_scale, dim)
        return Network(unet, text, added)

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
