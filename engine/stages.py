"""Networks of one precision, and what they make of a request: text, predictions, pixels."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array
from engine.components import Components
from engine.conditioning import Conditioner, Conditioning, ScheduledConditioning
from engine.control import Control
from engine.controlnet import FITTING, Residuals, fitted
from engine.errors import BundleError
from engine.guidance import guidance_embedding
from engine.network import Network, added_conditions
from engine.textoutputs import text_outputs

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.bundle import Bundle
    from engine.decoders import Decoder
    from engine.inputs import Inputs
    from engine.request import GenerationRequest
    from engine.texts import Texts
    from engine.tokenizer import Tokenizer

__all__ = ["Stages"]

Float32 = NDArray[np.float32]


class Stages:
    """Text encoding, the network and decoding of one bundle on one back end in one precision."""

    def __init__(
        self,
        bundle: "Bundle",
        backend: "Backend",
        tokenizers: "Sequence[Tokenizer]",
        beside: "Mapping[str, Bundle]",
    ) -> None:
        """beside: bundles of the ControlNets and refiners that requests name, by these names."""
        manifest = bundle.manifest
        self.bundle = bundle
        self._manifest = manifest
        self._backend = backend
        self._beside = beside
        self._controlnets: dict[str, Components] = {}
        self._refiners: dict[str, Stages] = {}
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

    def load(
        self, controls: Sequence[Control], halves: int, tokens: int, height: int, width: int
    ) -> None:
        """Load what predicts, the unet or ControlNets and their unet; sizes in pixels. ControlNets
        that are not asked for are given back.
        """
        for name in self._controlnets.keys() - {control.model for control in controls}:
            del self._controlnets[name]
        if not controls:
            self.components.unet(halves, tokens, height, width)
            return
        self.components.controlled_unet(halves, tokens, height, width)
        for control in controls:
            self._controlnet(control.model).controlnet(halves, tokens, height, width)

    def network(
        self,
        text: Conditioning | ScheduledConditioning,
        request: "GenerationRequest",
        width: int,
        height: int,
        inputs: "Inputs",
    ) -> Network:
        """Bind the unet to a prompt, and to the pictures that steer, for width x height pixels."""
        halves, tokens, _ = text.embeds.shape
        time_ids = self._manifest.time_id_count
        added: dict[str, Array] = added_conditions(text, width, height, time_ids)
        dim = self._manifest.guidance_dim
        if dim:
            added["timestep_cond"] = guidance_embedding(request.guidance_scale, dim)
        if not request.controls or self._manifest.family not in FITTING:  # no refiner is steered
            return Network(self.components.unet(halves, tokens, height, width), text, added)
        nets = [
            (
                control,
                self._controlnet(control.model).controlnet(halves, tokens, height, width),
                fitted(picture, width, height),
            )
            for control, picture in zip(request.controls, inputs.controls, strict=True)
        ]
        residuals = Residuals(nets, self.components.residuals(halves, height, width))
        unet = self.components.controlled_unet(halves, tokens, height, width)
        return Network(unet, text, added, residuals)

    def refiner(self, name: str) -> "Stages":
        """Give the stages of the refiner that requests call by this name; one is kept."""
        if name not in self._refiners:
            bundle = self._beside[name]
            self._refiners.clear()  # give its memory back before the next one is loaded
            self._refiners[name] = Stages(bundle, self._backend, bundle.tokenizers(), {})
        return self._refiners[name]

    def drop_refiner(self) -> None:
        """Give a refiner's memory back: the next request names none."""
        self._refiners.clear()

    def _controlnet(self, name: str) -> Components:
        if name not in self._controlnets:
            self._controlnets[name] = Components(self._beside[name], self._backend)
        return self._controlnets[name]

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
