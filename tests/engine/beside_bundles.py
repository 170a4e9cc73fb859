"""Pocket as a base that takes ControlNets or a refiner, with such bundles beside it."""

from collections import Counter
from dataclasses import replace

from engine.bundle import Bundle
from engine.manifest import Component, TensorSpec

__all__ = ["CountingBackend", "controlled", "controlnet", "refiner", "xl"]

RESIDUALS = {
    "down_block_res_sample_0": TensorSpec(dtype="float32", shape=("batch", 4, "height", "width")),
    "mid_block_res_sample": TensorSpec(dtype="float32", shape=("batch", 4, "height_2", "width_2")),
}


def controlled(bundle: Bundle) -> Bundle:
    """Give the bundle with the unet that `--with control` adds."""
    unet = bundle.manifest.components["unet"]
    more = replace(unet, file="unet/model_control.onnx", inputs=dict(unet.inputs) | RESIDUALS)
    components = dict(bundle.manifest.components) | {"unet_control": more}
    return replace(bundle, manifest=replace(bundle.manifest, components=components))


def controlnet(bundle: Bundle, name: str) -> Bundle:
    """Give a ControlNet of the bundle's width."""
    inputs = dict(bundle.manifest.components["unet"].inputs) | {
        "controlnet_cond": TensorSpec(dtype="float32", shape=("batch", 3, "height_px", "width_px")),
        "conditioning_scale": TensorSpec(dtype="float32", shape=()),
    }
    part = Component(
        file="controlnet/model.onnx",
        data_file="",
        precision="fp16",
        inputs=inputs,
        outputs=RESIDUALS,
    )
    manifest = replace(
        bundle.manifest, name=name, family="controlnet-sd1", components={"controlnet": part}
    )
    return replace(bundle, path=bundle.path / name, manifest=manifest, hash=f"hash of {name}")


def xl(bundle: Bundle) -> Bundle:
    """Give the bundle as one of family sdxl."""
    return replace(bundle, manifest=replace(bundle.manifest, family="sdxl"), zero_empty=True)


def refiner(bundle: Bundle, folder, name: str = "finish") -> Bundle:
    """Give the bundle as a refiner in a folder of its own."""
    folder.mkdir()
    (folder / "tokenizer").symlink_to(bundle.path / "tokenizer")
    manifest = replace(bundle.manifest, name=name, family="sdxl-refiner")
    return replace(bundle, path=folder, manifest=manifest, hash=f"hash of {name}", zero_empty=False)


class CountingBackend:
    """The fake, which also counts the runs of each network by its folder and file."""

    def __init__(self, fake):
        self.fake = fake
        self.name, self.device, self.precision = fake.name, fake.device, fake.precision
        self.libraries = fake.libraries
        self.runs = Counter()
        self.loads = []

    def load(self, model, shapes, *, identity=""):
        place = f"{model.parents[1].name}/{model.parent.name}/{model.name}"
        self.loads.append((place, identity))
        return CountingSession(self.fake.load(model, shapes), self.runs, place)

    def exact(self):
        return CountingBackend(self.fake.exact())


class CountingSession:
    def __init__(self, session, runs, place):
        self.session, self.runs, self.place = session, runs, place

    def run(self, inputs):
        self.runs[self.place] += 1
        return self.session.run(inputs)

    def run_all(self, inputs):
        self.runs[self.place] += 1
        return self.session.run_all(inputs)
