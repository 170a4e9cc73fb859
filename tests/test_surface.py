"""What is public is said and true; what must not be imported at start is not."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

PACKAGES = ("engine", "export", "vault", "safelight")
HEAVY = {"torch", "diffusers", "transformers", "onnxruntime", "openvino", "keyring", "numpy", "PIL"}


def modules() -> list[str]:
    names = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [m.name for m in pkgutil.walk_packages(path, f"{package}.")]
    # The kernels' library is found as if it were a module: it is C, loaded by ctypes.
    return [name for name in names if not name.endswith(("__main__", ".safelight_kernels"))]


@pytest.mark.parametrize("name", modules())
def test_each_module_says_what_is_public_and_it_is_there(name):
    """ruff keeps the lists sorted (RUF022); that they are true is shown here."""
    module = importlib.import_module(name)
    public = module.__all__ if hasattr(module, "__all__") else None
    if public is None:
        assert name.startswith("engine.samplers") or name in PACKAGES, f"{name} has no __all__"
        return
    assert len(set(public)) == len(public)
    for each in public:
        assert getattr(module, each) is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_imported_without_anything_heavy(package):
    program = f"import sys, {package}; print(*sorted(m.split('.')[0] for m in sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert not HEAVY & set(out.stdout.split())


def test_help_imports_nothing_heavy(tmp_path):
    program = (
        "import sys\n"
        "sys.argv = ['safelight', '--help']\n"
        "from safelight.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    print(*sorted(m.split('.')[0] for m in sys.modules), file=sys.stderr)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert not (HEAVY | {"cryptography", "sqlite3", "rich"}) & set(out.stderr.split())
