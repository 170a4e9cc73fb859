"""Which libraries an export is made with: they go into the manifest."""

from importlib.metadata import version

__all__ = ["library_versions"]

LIBRARIES = ("diffusers", "onnx-ir", "onnxscript", "safetensors", "torch", "transformers")


def library_versions() -> dict[str, str]:
    """Give name -> version of what traces and reads, without importing any of it."""
    return {name: version(name) for name in LIBRARIES}
