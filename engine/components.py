"""The networks of one bundle on one back end, loaded when a shape of them is first needed."""

from typing import TYPE_CHECKING

from engine.backends import SharingBackend, StepBackend
from engine.backends.sharedprefix import SharedPictures, shared_pictures
from engine.controlnet import UNET_CONTROL, residual_shapes
from engine.encoding import COMPONENT as ENCODER
from engine.encoding import INPUT as ENCODER_INPUT
from engine.errors import BundleError, DeviceError
from engine.reuse import DEEP_FEATURE, UNET_DEEP, UNET_SHALLOW
from engine.stepgraph import COLUMNS, SLOTS
from engine.thinning import UNET_THIN

if TYPE_CHECKING:
    from engine.backends import Backend, Session, Shapes, StepSession
    from engine.bundle import Bundle

__all__ = ["Components"]

# Size before cropping, the crop's top and left, size (arXiv 2307.01952): a plain export tells none.
TIME_IDS = 6
UNETS = ("unet", UNET_CONTROL, UNET_DEEP, UNET_SHALLOW, UNET_THIN)


class Components:
    """Sessions by component; one shape of each is kept, since a loaded network is large.

    Loading happens one after the other: the gain of threads is small and OpenVINO's binding can
    lock itself out when two of them make their first calls.
    """

    def __init__(self, bundle: "Bundle", backend: "Backend") -> None:
        self._bundle = bundle
        self._backend = backend
        self._loaded: dict[str, tuple[Shapes, Session]] = {}
        self._step: tuple[Shapes, StepSession] | None = None
        self._has_step: bool | None = None

    def text_encoders(self) -> "list[Session]":
        """Give the text encoders, one or two, for one chunk: input_ids int64[1, L]."""
        shapes = {"input_ids": (1, self._bundle.manifest.token_limit)}
        return [self._get(name, shapes) for name in self._bundle.manifest.text_encoders]

    def unet(
        self, halves: int, tokens: int, height: int, width: int, pictures: int = 1
    ) -> "Session":
        """Give the network for `halves` texts of `tokens` embeddings, and so many pictures at once,
        each shown to all texts: f32[halves * pictures, 4, height / 8, width / 8].
        """
        self._hold("unet")
        shapes = self._unet_shapes(halves * pictures, tokens, height, width)
        return self._get("unet", shapes, pictures)

    def has_step(self) -> bool:
        """Say whether the back end has a step graph for this bundle's unet."""
        if self._has_step is None:
            backend, bundle = self._backend, self._bundle
            self._has_step = isinstance(backend, StepBackend) and bool(
                backend.step_model(bundle.model("unet"), f"{bundle.hash}/unet")
            )
        return self._has_step

    def step(
        self, halves: int, tokens: int, height: int, width: int, *, rows: int, noises: int
    ) -> "StepSession":
        """Give the step graph, for one picture and a table of `rows` rows; sizes in pixels.

        noises: how many pieces of noise there is room for.
        """
        backend = self._backend
        if not isinstance(backend, StepBackend):
            raise DeviceError(f"{backend.name} runs no step graphs")
        shapes = self._unet_shapes(halves, tokens, height, width)
        picture = self.latent_shape(height, width)
        shapes |= {
            "state": (SLOTS, *picture),
            "row": (1,),
            "table": (rows, COLUMNS),
            "noise": (noises, *picture),
            "mix": (halves, 1, 1, 1, 1),
        }
        del shapes["sample"], shapes["timestep"]
        if self._step is not None and self._step[0] == shapes:
            return self._step[1]
        self._hold()  # and the step before this one
        unet = self._bundle.model("unet")
        session = backend.load_step(unet, shapes, identity=f"{self._bundle.hash}/unet")
        self._step = (shapes, session)
        return session

    def controlled_unet(self, halves: int, tokens: int, height: int, width: int) -> "Session":
        """Give the network that takes ControlNets' residuals as well, `residuals` says of which
        shapes.
        """
        self._hold(UNET_CONTROL)
        shapes = self._unet_shapes(halves, tokens, height, width)
        return self._get(UNET_CONTROL, shapes | self.residuals(halves, height, width))

    def unet_pair(
        self, halves: int, tokens: int, height: int, width: int
    ) -> "tuple[Session, Session]":
        """Give the network that gives its deep feature, and the one that takes it."""
        self._hold(UNET_DEEP, UNET_SHALLOW)
        shapes = self._unet_shapes(halves, tokens, height, width)
        deep = self._get(UNET_DEEP, shapes)
        port = self._bundle.manifest.components[UNET_SHALLOW].inputs[DEEP_FEATURE]
        channels = port.shape[1] if len(port.shape) == 4 else ""
        if not isinstance(channels, int):
            raise BundleError(
                f"{UNET_SHALLOW} of '{self._bundle.name}' takes a {DEEP_FEATURE} of no known shape"
            )
        sides = self.latent_shape(height, width)[2:]
        feature = {DEEP_FEATURE: (halves, channels, *sides)}
        return deep, self._get(UNET_SHALLOW, shapes | feature)

    def thin_unet(
        self, halves: int, tokens: int, height: int, width: int, pictures: int = 1
    ) -> "Session":
        """Give the network with fewer keys and values, as `unet` takes its sizes."""
        self._hold(UNET_THIN)
        shapes = self._unet_shapes(halves * pictures, tokens, height, width)
        return self._get(UNET_THIN, shapes, pictures)

    def give_back_unet(self) -> None:
        """Give the unet's memory back."""
        self._hold()

    def residuals(self, halves: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Give the shapes of what `controlled_unet` takes from ControlNets; sizes in pixels."""
        unet = self._bundle.manifest.components[UNET_CONTROL]
        return residual_shapes(unet, halves, *self.latent_shape(height, width)[2:])

    def controlnet(self, halves: int, tokens: int, height: int, width: int) -> "Session":
        """Give the ControlNet, in a bundle that is one, for pictures of height x width pixels."""
        shapes = self._unet_shapes(halves, tokens, height, width)
        picture = {"controlnet_cond": (halves, 3, height, width), "conditioning_scale": ()}
        return self._get("controlnet", shapes | picture)

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

    def _unet_shapes(
        self, halves: int, tokens: int, height: int, width: int
    ) -> dict[str, tuple[int, ...]]:
        manifest = self._bundle.manifest
        shapes: dict[str, tuple[int, ...]] = {
            "sample": (halves, manifest.unet_channels, *self.latent_shape(height, width)[2:]),
            "timestep": (),
            "encoder_hidden_states": (halves, tokens, manifest.embed_dim),
        }
        pooled = manifest.pooled_dim
        if pooled:
            time_ids = manifest.time_id_count or TIME_IDS
            shapes |= {"text_embeds": (halves, pooled), "time_ids": (halves, time_ids)}
        if manifest.guidance_dim:
            shapes["timestep_cond"] = (halves, manifest.guidance_dim)
        return shapes

    def _hold(self, *names: str) -> None:
        """Give the other graphs of the unet back: all have the same weights."""
        self._step = None
        for name in {*UNETS} - {*names}:
            self._loaded.pop(name, None)

    def _get(self, component: str, shapes: "Shapes", pictures: int = 1) -> "Session":
        backend = self._backend
        shares = isinstance(backend, SharingBackend) and backend.shares_prefix
        # Two texts of one picture are as many rows as one text of two: here they differ.
        asked = shared_pictures(shapes, pictures) if shares else shapes
        found = self._loaded.get(component)
        if found is not None and found[0] == asked:
            return found[1]
        self._check(component, shapes)
        self._loaded.pop(component, None)  # give its memory back before the next one is loaded
        model = self._bundle.model(component)
        session = backend.load(model, asked, identity=f"{self._bundle.hash}/{component}")
        if asked != shapes:
            session = SharedPictures(session, pictures)
        self._loaded[component] = (asked, session)
        return session

    def _check(self, component: str, shapes: "Shapes") -> None:
        known = self._bundle.manifest.components.get(component)
        if known is None or set(known.inputs) == set(shapes):
            return  # a component that is missing altogether is Bundle.model's to report
        raise BundleError(
            f"{component} of '{self._bundle.name}' takes {', '.join(sorted(known.inputs))}; "
            f"{', '.join(sorted(shapes))} are known here"
        )
