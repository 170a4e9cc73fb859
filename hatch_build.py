"""Compile the kernels when the package is built or installed editable; it is whole without them."""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = Path("engine/kernels/safelight_kernels.so")


class KernelHook(BuildHookInterface):
    """Puts the library beside its sources and into the wheel, which is then named by platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a failure is said and costs speed alone."""
        root = Path(self.root)
        library = root / LIBRARY
        try:
            library.unlink(missing_ok=True)
            why = _builder(root).build(library)
        except OSError as error:
            why = str(error)
        if why:
            self.app.display_warning(f"kernels were not built, which costs speed alone: {why}")
            return
        if version == "editable":
            return
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{system}"
        build_data["artifacts"].append(str(LIBRARY))


def _builder(root: Path) -> Any:
    """Load engine/kernels/build.py by itself: the package is not installed yet."""
    spec = importlib.util.spec_from_file_location(
        "kernel_build", root / LIBRARY.with_name("build.py")
    )
    if spec is None or spec.loader is None:
        raise OSError("engine/kernels/build.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
