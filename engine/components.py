"""The networks of one bundle on one back end, loaded when a shape of them is first needed."""

from typing import TYPE_CHECKING

from engine.encoding import COMPONENT as ENCODER
from engine.encoding import INPUT as ENCODER_INPUT
from engine.errors import BundleError

if TYPE_CHECKING:
    from engine.backends import Backend, Session, Shapes
    from engine.bundle import Bundle

__all__ = ["Components"]

TIME_IDS = 6  # size before cropping, the crop's top and left, size: arXiv 2307.01952


class Components:
    """Sessions by component; one shape of each is kept, since a loaded network is large.

    Loading happens one after the other: the gain of threads is small and OpenVINO's binding can
    lock itself out when two of them make their first calls.
    """

    def __init__(self, bundle: "Bundle", backend: "Backend") -> None:
        self._bundle = bundle
        self._backend = backend
        self._loaded: dict[str, tuple[Shapes, Session]] = {}

    def text_encoders(self) -> "list[Session]":
        """Give the text encoders, one or two, for one chunk: input_ids int64[1, L]."""
        shapes = {"input_ids": (1, self._bundle.manifest.token_limit)}
        return [self._get(name, shapes) for name in self._bundle.manifest.text_encoders]

    def unet(self, halves: int, tokens: int, height: int, width: int) -> "Session":
        """Give the network for f32[halves, 4, height / 8, width / 8] and `tokens` embeddings."""
        manifest = self._bundle.manifest
        shapes: dict[str, tuple[int, ...]] = {
            "sample": (halves, *self.latent_shape(height, width)[1:]),
            "timestep": (),
            "encoder_hidden_states": (halves, tokens, manifest.embed_dim),
        }
        pooled = manifest.pooled_dim
        if pooled:
            shapes |= {"text_embeds": (halves, pooled), "time_ids": (halves, TIME_IDS)}
        if manifest.guidance_dim:
            shapes["timestep_cond"] = (halves, manifest.guidance_dim)
        return self._get("unet", shapes)

    def decoder(self, component: str, height: int, width: int) -> "Session":
        """Give the decoder of this name for one picture, height and width in pixels."""
        return self._get(component, {"latent_sample": self.latent_shape(height, width)})

    def encoder(self, height: int, width: int) -> "Session":
        """Give the VAE's encoder for one picture f32[1, 3, height, width]."""
        return self._get(ENCODER, {ENCODER_INPUT: (1, 3, height, width)})

    def safety_checker(self, side: int) -> "Session":
        """Give the safety checker of one prepared picture, f32[1, 3, side, side]."""
        return self._get("safety_checker", {"clip_input": (1, 3, side, side)})

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Give (1, channels, h, w) of one picture's latents; height and width in pixels."""
        manifest = self._bundle.manifest
        factor = manifest.vae_scale_factor
        return (1, manifest.latent_channels, height // factor, width // factor)

    def _get(self, component: str, shapes: "Shapes") -> "Session":
        found = self._loaded.get(component)
        if found is not None and found[0] == shapes:
            return found[1]
        self._check(component, shapes)
        self._loaded.pop(component, None)  # give its memory back before the next one is loaded
        session = self._backend.load(
            self._bundle.model(component),
            shapes,
            identity=f"{self._bundle.hash}/{component}",
        )
        self._loaded[component] = (shapes, session)
        return session

    def _check(self, component: str, shapes: "Shapes") -> None:
        known = self._bundle.manifest.components.get(component)
        if known is None or set(known.inputs) == set(shapes):
            return  # a component that is missing altogether is Bundle.model's to report
        raise BundleError(
            f"{component} of '{self._bundle.name}' takes {', '.join(sorted(known.inputs))}; "
            f"{', '.join(sorted(shapes))} are known here"
        )
