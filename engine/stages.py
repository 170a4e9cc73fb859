"""Networks of one precision, and what they make of a request: text, predictions, pixels."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, StepBackend
from engine.components import Components
from engine.conditioning import Conditioner, Conditioning, ScheduledConditioning
from engine.control import Control
from engine.controlnet import FITTING, Residuals, fitted
from engine.courses import why_row_by_row
from engine.decoders import COMPONENTS, TINY
from engine.encoding import INPUT as ENCODER_INPUT
from engine.encoding import MEAN, to_latents
from engine.errors import BundleError
from engine.guidance import guidance_embedding
from engine.interval import GuidanceInterval, each_text, limits_guidance
from engine.loop import NoiseSource
from engine.memory import free_memory
from engine.network import Canvas, Network, added_conditions
from engine.reuse import FeatureSession, Reuse, has_pair
from engine.stepgraph import fits, padded
from engine.textoutputs import text_outputs
from engine.thinning import thins
from engine.tiling import decode_tiled, encode_tiled

if TYPE_CHECKING:
    from engine.backends import Backend, StepSession
    from engine.bundle import Bundle
    from engine.conditioning import Shown
    from engine.decoders import Decoder
    from engine.denoiser import Predict
    from engine.inputs import Inputs
    from engine.modes import Pass
    from engine.request import GenerationRequest
    from engine.texts import Texts
    from engine.tokenizer import Tokenizer

__all__ = ["Stages"]

Float32 = NDArray[np.float32]
# Bytes a pixel that ONNX Runtime takes to decode in fp32 (engine/DESIGN.md): SD's decoders.
DECODING: Final = 5300


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
        self._whole: tuple[str, tuple[int, ...]] | None = None  # decoder and latents that fitted
        self.components = Components(bundle, backend)
        self.conditioner = Conditioner(
            tokenizers,
            manifest.embed_dim,
            zero_empty=bundle.zero_empty,
            outputs=cache(partial(text_outputs, manifest, bundle.output_names)),
        )

    def embed(self, texts: "Texts") -> Conditioning | ScheduledConditioning:
        """Encode what the conditioner's `plan` gave."""
        return self.conditioner.embed(texts, self.components.text_encoders())

    def load(
        self,
        request: "GenerationRequest",
        halves: int,
        tokens: int,
        height: int,
        width: int,
        pictures: int = 1,
    ) -> None:
        """Load what `network` takes for a request of so many texts and pictures at once; sizes in
        pixels. ControlNets that are not asked for are given back.
        """
        controls = self._controls(request)
        for name in self._controlnets.keys() - {control.model for control in controls}:
            del self._controlnets[name]
        shape = (1 if limits_guidance(request) else halves, tokens, height, width)
        if controls:
            self.components.controlled_unet(*shape)
        elif self._reuse_every(request) > 1:
            self.components.unet_pair(*shape)
        elif thins(request, self._manifest):
            self.components.thin_unet(*shape, pictures)
        else:
            self.components.unet(*shape, pictures)
        for control in controls:
            self._controlnet(control.model).controlnet(*shape)

    def row_by_row(
        self,
        request: "GenerationRequest",
        texts: "Texts",
        inputs: "Inputs",
        passes: "Sequence[Pass]",
    ) -> str:
        """Say why the host runs the loop of this request; '' where the device runs whole steps."""
        why = why_row_by_row(request, texts, inputs, self._manifest)
        if not why and not all(fits(each.table) for each in passes):
            why = "the sampler looks back too far"
        if not why and not self.components.has_step():
            why = "the bundle has no step graph for it"
        return why

    def how(self, why: str) -> str:
        """Say how the request ran, behind a choice's reason. why: as `row_by_row` gave it."""
        if not isinstance(self._backend, StepBackend):
            return ""
        mixed = f"; {self._backend.mixed}" if self._backend.mixed else ""
        steps = f"the host runs each step: {why}" if why else self._backend.how
        return f"; {steps}{mixed}"

    def steps(self, this: "Pass", halves: int, tokens: int) -> "StepSession":
        """Give the step graph for a pass, loaded; ControlNets are given back."""
        self._controlnets.clear()
        rows = padded(len(this.table.sigmas))
        noises = rows if this.table.noise.any() else 1
        return self.components.step(
            halves, tokens, this.height, this.width, rows=rows, noises=noises
        )

    def conditions(
        self, text: "Shown", request: "GenerationRequest", this: "Pass"
    ) -> dict[str, Array]:
        """Give all that the unet takes beside latents and timestep, of texts that never change."""
        added = self._added(text, request, this.width, this.height)
        return {"encoder_hidden_states": text.embeds} | added

    def load_plain(self, halves: int, tokens: int, height: int, width: int) -> None:
        """Load the unet, and give all ControlNets back; sizes in pixels."""
        self._controlnets.clear()
        self.components.unet(halves, tokens, height, width)

    def network(
        self,
        text: "Shown",
        request: "GenerationRequest",
        canvas: Canvas,
        inputs: "Inputs",
        weights: Sequence[float] = (1.0,),
    ) -> "Predict":
        """Bind the unet to a prompt, to what is drawn on, and to the pictures that steer. Where
        several pictures are drawn at once, `canvas.beside` has a row for each.

        weights: of the conditional texts, as in `Denoiser`.
        """
        count = len(text.embeds)
        added = self._added(text, request, canvas.width, canvas.height)
        if count == 1 or not limits_guidance(request):
            return self._bind(text, added, request, inputs, canvas)
        texts = [
            self._bind(
                each,
                {name: value[place : place + 1] for name, value in added.items()},
                request,
                inputs,
                canvas,
            )
            for place, each in enumerate(each_text(text))
        ]
        return GuidanceInterval(texts, request.guidance_start, request.guidance_end, weights)

    def _added(
        self,
        text: "Shown",
        request: "GenerationRequest",
        width: int,
        height: int,
    ) -> dict[str, Array]:
        added = added_conditions(text, width, height, self._manifest.time_id_count)
        if self._manifest.guidance_dim:
            scale = request.guidance_scale
            row = guidance_embedding(scale, self._manifest.guidance_dim)
            added["timestep_cond"] = np.repeat(row, len(text.embeds), axis=0)
        return added

    def _bind(
        self,
        text: "Shown",
        added: "Mapping[str, Array]",
        request: "GenerationRequest",
        inputs: "Inputs",
        canvas: Canvas,
    ) -> "Predict":
        """Bind the unet, or what takes its place, to texts that it is shown at once."""
        rows, tokens, _ = text.embeds.shape
        pictures = len(canvas.beside)
        shape = (rows // pictures, tokens, canvas.height, canvas.width)
        if self._controls(request):
            unet = self.components.controlled_unet(*shape)
            return Network(unet, text, added, self._residuals(request, inputs, shape))
        every = self._reuse_every(request)
        if every == 1:
            thin = thins(request, self._manifest)
            load = self.components.thin_unet if thin else self.components.unet
            unet = load(*shape, pictures)
            return Network(unet, text, added, beside=canvas.beside)
        pair = FeatureSession(*self.components.unet_pair(*shape))
        return Reuse(Network(pair, text, added, beside=canvas.beside), pair, every)

    def _residuals(
        self, request: "GenerationRequest", inputs: "Inputs", shape: tuple[int, int, int, int]
    ) -> Residuals:
        halves, _, height, width = shape
        nets = [
            (
                control,
                self._controlnet(control.model).controlnet(*shape),
                fitted(picture, width, height),
            )
            for control, picture in zip(request.controls, inputs.controls, strict=True)
        ]
        return Residuals(nets, self.components.residuals(halves, height, width))

    def _controls(self, request: "GenerationRequest") -> Sequence[Control]:
        """Give the ControlNets that steer this network; no refiner is steered."""
        return request.controls if self._manifest.family in FITTING else ()

    def _reuse_every(self, request: "GenerationRequest") -> int:
        """Give the request's; a refiner without the pair of graphs is whole each time."""
        return request.reuse_every if has_pair(self._manifest) else 1

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

    def decode(
        self,
        decoder: "Decoder",
        latents: Float32,
        *,
        tiled: bool = False,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Float32:
        """Decode f32[1, 4, h, w] into f32[1, 3, 8 h, 8 w], about -1..1.

        tiled: in parts of one size, in the memory of one of them (`engine.tiling`). progress:
        called with the done fraction after each; an exception out of it ends the work.
        """
        latents = latents / np.float32(decoder.scaling_factor)
        factor = self._manifest.vae_scale_factor
        one = partial(self._decode_one, decoder.component)
        if tiled:
            return decode_tiled(latents, one, progress, factor=factor)
        decoded = one(latents)
        self._whole = decoder.component, latents.shape
        return decoded

    def has_room(self, decoder: "Decoder", latents: Float32) -> bool:
        """Say whether there is memory to decode f32[1, 4, h, w] as a whole.

        ONNX Runtime takes it when it runs, and where there is less the system ends the process:
        nothing is raised that could be mended. What a decoder has taken it keeps, until another
        size takes its place.
        """
        known = self._whole == (decoder.component, latents.shape)
        backend, tiny = self._backend, decoder.component == COMPONENTS[TINY]
        if known or tiny or (backend.name, backend.device) != ("onnxruntime", "CPU"):
            return True
        pixels = latents[0, 0].size * self._manifest.vae_scale_factor**2
        return free_memory() >= DECODING * pixels

    def encode_sample(
        self,
        sample: Float32,
        *,
        noise: NoiseSource = MEAN,
        tiled: bool = False,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Float32:
        """Encode f32[1, 3, 8 h, 8 w] in -1..1 into latents f32[1, 4, h, w], as `engine.encoding`
        says. tiled, progress: as `decode` has them.
        """
        manifest = self._manifest
        one = self._encode_one
        if tiled:
            parameters = encode_tiled(sample, one, progress, factor=manifest.vae_scale_factor)
        else:
            parameters = one(sample)
        return to_latents(
            parameters, manifest.scaling_factor, noise=noise, channels=manifest.latent_channels
        )

    def _encode_one(self, sample: Float32) -> Float32:
        session = self.components.encoder(*sample.shape[2:])
        return session.run({ENCODER_INPUT: sample})

    def _decode_one(self, component: str, latents: Float32) -> Float32:
        """Decode scaled latents, a picture's or a tile's."""
        factor = self._manifest.vae_scale_factor
        height, width = (side * factor for side in latents.shape[2:])
        network = self.components.decoder(component, height, width)
        decoded = network.run({"latent_sample": latents})
        if decoded.shape != (1, 3, height, width):
            raise BundleError(
                f"the decoder gives {decoded.shape}; (1, 3, {height}, {width}) was expected"
            )
        return decoded
