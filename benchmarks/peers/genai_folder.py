"""Makes the folder that openvino-genai reads, of a bundle: runs in its venv, takes two paths.

usage: python -m benchmarks.peers.genai_folder BUNDLE FOLDER

The networks are the bundle's own, with weights as they are; the timestep becomes int64[1], which
genai insists on, and the tokenizer becomes a graph.
"""

import json
import math
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["make"]

PARTS = ("text_encoder", "unet", "vae_decoder")


def make(bundle: Path, folder: Path) -> None:
    """Write the folder, which must not be there yet."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    tokenizers: Any = import_module("openvino_tokenizers")
    kind: Any = import_module("transformers").CLIPTokenizerFast
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name in PARTS:
        model = ov.Core().read_model(bundle / name / "model.onnx")
        if name == "unet":
            (old,) = (p for p in model.get_parameters() if p.friendly_name == "timestep")
            new = ops.parameter([1], np.int64, name="timestep")
            new.output(0).set_names({"timestep"})
            scalar = ops.convert(ops.squeeze(new, ops.constant(np.array([0], np.int64))), "f32")
            for target in old.output(0).get_target_inputs():
                target.replace_source_output(scalar.output(0))
            model.remove_parameter(old)
            model.add_parameters([new])
        ov.save_model(model, part / name / "openvino_model.xml", compress_to_fp16=False)
        shutil.copy(bundle / name / "config.json", part / name / "config.json")
    scheduler = json.loads((bundle / "scheduler" / "scheduler_config.json").read_text("utf-8"))
    finite = {  # its reader of JSON takes no -Infinity
        name: value
        for name, value in scheduler.items()
        if not (isinstance(value, float) and math.isinf(value))
    }
    # It refuses names that it has no code for, and clipping, which these models do not use.
    finite |= {"_class_name": "DDIMScheduler", "clip_sample": False}
    (part / "scheduler").mkdir()
    (part / "scheduler" / "scheduler_config.json").write_text(json.dumps(finite), "utf-8")
    index = json.loads((bundle / "model_index.json").read_text("utf-8"))
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (part / "model_index.json").write_text(json.dumps(index), "utf-8")
    tokenizer = kind.from_pretrained(bundle / "tokenizer", local_files_only=True)
    limit = json.loads((part / "text_encoder" / "config.json").read_text("utf-8"))
    graph = tokenizers.convert_tokenizer(
        tokenizer, max_length=limit["max_position_embeddings"], use_max_padding=True
    )
    ov.save_model(graph, part / "tokenizer" / "openvino_tokenizer.xml")
    part.rename(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
