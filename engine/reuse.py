"""Deep features that are kept from one evaluation to the next (Ma et al., DeepCache, arXiv
2312.00858): what lies below the unet's full resolution changes slowly and costs most.

A bundle exported `--with shallow` has the pair of graphs: `unet_deep` is the unet, which also gives
its deep feature; `unet_shallow` is the full resolution alone, around a feature of before.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError, RequestError
from engine.moment import Moment

if TYPE_CHECKING:
    from engine.backends import Array, Session
    from engine.denoiser import Predict
    from engine.manifest import Manifest
    from engine.request import GenerationRequest

__all__ = [
    "DEEP_FEATURE",
    "UNET_DEEP",
    "UNET_SHALLOW",
    "FeatureSession",
    "Reuse",
    "check_reuse",
    "has_pair",
]

Float32 = NDArray[np.float32]

UNET_DEEP, UNET_SHALLOW = "unet_deep", "unet_shallow"
DEEP_FEATURE = "deep_feature"


def has_pair(manifest: "Manifest") -> bool:
    """Say whether the bundle has both graphs."""
    return {UNET_DEEP, UNET_SHALLOW} <= set(manifest.components)


def check_reuse(request: "GenerationRequest", manifest: "Manifest", precision: str) -> None:
    """Raise RequestError where deep features cannot be reused: without the pair, beside ControlNets
    or in int8.
    """
    reuse_every = request.reuse_every
    if reuse_every == 1:
        return
    if request.controls:
        raise RequestError(
            f"reuse_every is {reuse_every}; the pair of graphs takes no ControlNet's residuals",
            hint="leave reuse_every at 1, or leave the ControlNets out",
        )
    if not has_pair(manifest):
        raise RequestError(
            f"bundle '{manifest.name}' has no second graphs, which reuse_every {reuse_every} needs",
            hint="export the checkpoint again --with shallow, or leave reuse_every at 1",
        )
    if precision == "int8":
        raise RequestError(
            f"reuse_every is {reuse_every}; int8 has a form of the unet itself, not of the pair",
            hint="leave reuse_every at 1, or take another precision",
        )


class FeatureSession:
    """The pair as one unet: a whole run keeps its feature, a shallow one takes what was kept.

    It belongs to one network, whose texts the feature is of; the two sessions may be shared.
    """

    def __init__(self, deep: "Session", shallow: "Session") -> None:
        self._deep = deep
        self._shallow = shallow
        self._kept: dict[str, Array] = {}
        self._text: Array | None = None
        self.whole = True  # what the next run is

    def run(self, inputs: "Mapping[str, Array]") -> Float32:
        """Predict, shallowly where `whole` is not set and there is a feature of this very text."""
        text = inputs["encoder_hidden_states"]
        if not self.whole and text is self._text:
            return self._shallow.run({**inputs, **self._kept})
        outputs = self._deep.run_all(inputs)
        feature = outputs.pop(DEEP_FEATURE, None)
        if feature is None or len(outputs) != 1:
            raise BundleError(
                f"{UNET_DEEP} gives {', '.join(outputs) or 'nothing'} beside the {DEEP_FEATURE}",
                hint="export the checkpoint again --with shallow",
            )
        self._kept, self._text = {DEEP_FEATURE: feature}, text
        return outputs.popitem()[1]

    def run_all(self, inputs: "Mapping[str, Array]") -> dict[str, Float32]:
        """Predict as `run` does, by the prediction's name."""
        return {"out_sample": self.run(inputs).copy()}


class Reuse:
    """Answers (x, moment) as `predict` does, whole in every N-th row of the table.

    Rows are evaluations of the network: of a sampler with two a step each counts. That keeps a
    feature from becoming older than N - 1 evaluations, whatever the sampler. All texts of a picture
    are whole in the same rows, so that guidance is between features of one age; a text that is
    first asked in between begins whole.
    """

    def __init__(self, predict: "Predict", session: FeatureSession, every: int) -> None:
        """predict: a network whose unet `session` is. every: N."""
        self._predict = predict
        self._session = session
        self._every = every

    def __call__(self, x: Float32, moment: Moment) -> Float32:
        """Predict; whatever the network raises."""
        self._session.whole = moment.row % self._every == 0
        return self._predict(x, moment)
