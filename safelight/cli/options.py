"""Options that many verbs share, so that each is written, documented and checked once."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.access import Access
from safelight.settings import load_settings

__all__ = ["AskPhrase", "Json", "Model", "PhraseFile", "with_access"]

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A bundle on the shelf (pocket); with --device torch also a checkpoint that was never"
        " exported: a diffusers folder or a .safetensors file.",
    ),
]
PhraseFile = Annotated[
    Path | None,
    typer.Option("--phrase-file", help="Open with the recovery phrase in this file."),
]
AskPhrase = Annotated[
    bool, typer.Option("--phrase", help="Open with the recovery phrase; asks for it.")
]
_VAULT = Annotated[
    Path | None,
    typer.Option("--vault", help="The vault's folder (or SAFELIGHT_VAULT).", show_default=False),
]
_FILE = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Read the passphrase from this file's first line (or SAFELIGHT_PASSPHRASE_FILE).",
        show_default=False,
    ),
]
_DESCRIPTOR = Annotated[
    int,
    typer.Option(
        "--passphrase-fd", help="Read the passphrase from this descriptor.", show_default=False
    ),
]


def with_access(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `access` the options that say where the vault is and what opens it.

    The command's first parameter must be `access: Access`; typer sees the three options instead.
    """

    @wraps(command)
    def wrapper(
        vault: Path | None, passphrase_file: Path | None, passphrase_fd: int, **given: Any
    ) -> None:
        flags = {
            "vault": None if vault is None else str(vault),
            "passphrase_file": None if passphrase_file is None else str(passphrase_file),
        }
        command(Access(settings=load_settings(flags), passphrase_fd=passphrase_fd), **given)

    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.name != "access"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter("vault", keyword, default=None, annotation=_VAULT),
        inspect.Parameter("passphrase_file", keyword, default=None, annotation=_FILE),
        inspect.Parameter("passphrase_fd", keyword, default=-1, annotation=_DESCRIPTOR),
    ]
    parameters = [p.replace(kind=keyword) for p in own] + shared
    wrapper.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportAttributeAccessIssue] - how inspect is told
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return wrapper
