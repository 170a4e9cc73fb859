"""Which file OpenVINO reads for a component: a form derived for it, or the bundle's ONNX graph.

The form `openvino` computes what the ONNX graph does and is taken when it is there; `int8` does not
and is taken only when asked for, and then must be there. See `engine.derived` for the cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.derived import Derived, DerivedKey, fitting, listed
from engine.errors import BundleError

if TYPE_CHECKING:
    from engine.backends import Shapes

__all__ = ["QUANTISED", "Source", "key_for", "no_int8", "source_of"]

# Targets that this back end reads -> the precision in their keys.
PRECISIONS: Final[Mapping[str, str]] = {"openvino": "stored", "int8": "int8"}
QUANTISED: Final = "unet"  # the one component that the form int8 has
PIXELS: Final = 8  # a latent, as every manifest says


@dataclass(frozen=True, slots=True)
class Source:
    """The file to read. identity: changes whenever a byte of it does. form: None for the bundle's.

    What is read out of a form is verified first: `check`.
    """

    model: Path
    identity: str
    form: Derived | None = None

    def check(self, cache: Path) -> None:
        """Compare the form's files with their hashes. Raises BundleError."""
        if self.form is not None:
            self.form.verify(cache)


def key_for(identity: str, target: str) -> DerivedKey:
    """Give the key of a bundle's form for free sizes, with the OpenVINO that is installed."""
    return DerivedKey(
        identity=identity,
        target=target,
        precision=PRECISIONS[target],
        device="CPU",
        shapes=(),
        libraries={"openvino": version("openvino")},
    )


def source_of(model: Path, shapes: "Shapes", identity: str, *, cache: Path, int8: bool) -> Source:
    """Choose the file for a component. identity: the bundle's hash, '/', the component.

    Raises BundleError when int8 is asked for and there is no such form of the unet.
    """
    bundle, _, component = identity.partition("/")
    target = "int8" if int8 and component == QUANTISED else "openvino"
    forms = {form.key.shapes: form for form in fitting(cache, key_for(bundle, target))}
    for wanted, form in sorted(forms.items(), reverse=True):  # free sizes last
        folder = component
        if wanted:
            shape = _shape(shapes)
            if shape is not None and shape not in wanted:
                continue
            folder = f"{shape or wanted[0]}/{component}"
        file = f"{folder}/model.xml"
        if file in form.files:
            return Source(form.folder / file, f"{form.key.digest}/{file}", form)
    if target == "int8":
        raise no_int8(model, _others(cache, bundle))
    return Source(model, identity)


def no_int8(model: Path, why: str = "") -> BundleError:
    """Say that a bundle has no int8 form, and how one is made; why: what one there is lacks."""
    name = model.parents[1].name
    return BundleError(
        f"'{name}' has no int8 form{why}", hint=f"`safelight export {name} --target int8` makes it"
    )


def _others(cache: Path, bundle: str) -> str:
    found = (form.key for form in listed(cache, bundle) if form.key.target == "int8")
    return "".join(f" that fits: its {key_for(bundle, 'int8').differs(key)}" for key in found)


def _shape(shapes: "Shapes") -> str | None:
    """Give the pictures' shape as forms are named by it; None where a component has none."""
    for name, halves in (("latent_sample", 1), ("sample", 2)):
        if name in shapes:
            count, _, height, width = shapes[name]
            if name == "sample" and "timestep" not in shapes:
                return f"{width}x{height}x{count}"  # the encoder's picture
            # A unet without guidance has one half: no form is made for that.
            batch = count // halves if count % halves == 0 else 0
            return f"{PIXELS * width}x{PIXELS * height}x{batch}"
    return None
