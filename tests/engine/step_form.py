"""A form `cuda` of a bundle that a processor can run: its own graphs in fp32, and a step graph."""

import shutil
from pathlib import Path

from engine import Bundle
from engine.backends.cuda import key_for
from engine.derived import Derived, write
from export.targets.step_graph import write_step

__all__ = ["write_form"]


def write_form(bundle: Bundle, cache: Path, *, step: bool = True) -> Derived:
    """Put it into the cache under the key that CudaBackend looks for."""

    def fill(folder: Path) -> dict[str, object]:
        for name in ("text_encoder", "unet", "vae_decoder"):
            source = bundle.model(name).parent
            (folder / name).mkdir()
            for file in ("model.onnx", "model.onnx_data"):
                shutil.copy(source / file, folder / name / file)
        if step:
            write_step(folder / "unet" / "model.onnx")
        return {}

    return write(cache, key_for(bundle.hash), fill)
