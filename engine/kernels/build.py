"""Compile the kernels beside their sources: `python -m engine.kernels.build`.

The package's build does the same. It needs nothing but the standard library and a C compiler: CC,
else cc, gcc or clang.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["build"]

FOLDER = Path(__file__).parent
COMMON = ("-std=c11", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread")
_VECTORS = ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
# A file -> what it may take for granted; only `processor.c` runs before the processor is known.
SOURCES = {
    "processor.c": (),
    "blocks.c": (*_VECTORS, "-mavx512bf16"),
    "attention_avx512.c": (*_VECTORS, "-mavx512bf16"),
    "attention_amx.c": (*_VECTORS, "-mavx512bf16"),
    "norm.c": (*_VECTORS, "-mavx512bf16"),
    "attention_f32.c": ("-mavx2", "-mfma"),
    "norm_f32.c": ("-mavx2", "-mfma"),
    "winograd.c": ("-mavx2", "-mfma", "-mf16c"),
}
# In a process of its own: a library that ends the process that loads it is no library.
_LOADS = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).safelight_path()"
SECONDS = 120  # a compiler that takes longer is not waited for


def build(
    to: Path,
    *,
    extra: tuple[str, ...] = (),
    program: Path | None = None,
    like: str = "processor.c",
) -> str:
    """Write the library to `to`, whole or not at all; give why not, or nothing where it is there.

    For tests: extra options for every file, and the source of a program that is made in the
    library's place, compiled like that one of the files. Nothing is raised.
    """
    if platform.machine() not in {"x86_64", "AMD64"} or sys.platform != "linux":
        return f"no kernels for {sys.platform} on {platform.machine()}"
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "")
    compiler = os.environ["CC"].split() if os.environ.get("CC") else [found]
    if not compiler[0]:
        return "no C compiler (cc, gcc or clang)"
    partial = to.with_suffix(f".{os.getpid()}.partial")
    objects: list[Path] = []
    try:
        sources = [(FOLDER / name, options) for name, options in SOURCES.items()]
        if program is not None:
            sources.append((program, SOURCES[like]))
        for source, options in sources:
            objects.append(partial.with_suffix(f".{source.name}.o"))
            where = ("-I", str(FOLDER), "-c", str(source), "-o", str(objects[-1]))
            _run(*compiler, *COMMON, *options, *extra, *where)
        shared = ("-shared",) if program is None else ()
        _run(*compiler, *shared, "-pthread", *extra, *map(str, objects), "-lm", "-o", str(partial))
        if program is None:
            _run(sys.executable, "-c", _LOADS, str(partial))
        partial.replace(to)
    except subprocess.CalledProcessError as error:
        first = (error.stderr.splitlines() or ["no message"])[0]
        return f"{error.cmd[0]} failed: {first}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{compiler[0]} failed: {error}"
    finally:
        for each in (*objects, partial):
            each.unlink(missing_ok=True)
    return ""


def _run(*command: str) -> None:
    subprocess.run(  # noqa: S603 - the person's own compiler on our own files
        command, check=True, capture_output=True, text=True, timeout=SECONDS
    )


if __name__ == "__main__":
    why = build(FOLDER / "safelight_kernels.so")
    sys.stdout.write(f"{why or 'built'}\n")
    sys.exit(bool(why))
