"""`safelight gallery`: serve the private gallery and studio, and open the browser on it."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from safelight.access import Access
from safelight.cli.options import with_access
from safelight.console import note, result
from safelight.exits import UsageError

if TYPE_CHECKING:
    from safelight.gallery.gallery import Gallery
    from safelight.offline import NetworkWatch

__all__ = ["gallery"]

SHORTEST_TOKEN = 20  # characters


@with_access
def gallery(
    access: Access,
    context: typer.Context,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Only print the address; open no browser.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 0,
    idle: Annotated[
        float, typer.Option("--idle", min=0, help="Minutes of rest until it locks; 0: never.")
    ] = 15.0,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Another address than this machine's own; needs TLS."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="TLS certificate, PEM.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="TLS key, PEM.")] = None,
    api: Annotated[
        bool,
        typer.Option(
            "--api", help="Answer programs that show a token, as A1111 and OpenAI's images do."
        ),
    ] = False,
    api_token_file: Annotated[
        Path | None,
        typer.Option(
            "--api-token-file",
            help="The token is this file's first line; else a new one is printed.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Look at your pictures and make new ones, in a browser.

    The address that it prints works once. Ctrl-C locks the vault and stops.
    """
    from safelight.gallery.address import (
        Address,
        check_tls,
        listen,
        random_loopback,
        refuse_open_host,
    )
    from safelight.gallery.gallery import Gallery
    from safelight.gallery.launcher import Launcher
    from safelight.gallery.server import address_of, make_server

    address = Address(host=host or random_loopback(), port=port, certificate=certificate, key=key)
    is_open = refuse_open_host(address)
    check_tls(address)
    state = Gallery(access.settings, idle_seconds=idle * 60, needs_passphrase=is_open, note=note)
    watch: NetworkWatch = context.obj
    if is_open:
        _warn_of_others(state, address.host)
        watch.allow_listening(address.host)  # its name is looked up
    state.api_token = _api_token(api_token_file) if api or api_token_file else ""
    launcher = Launcher(access.settings)
    with listen(address, watch.allow_listening if is_open else lambda _: None) as listener:
        server = make_server(state, address, listener)

        def entered() -> None:
            launcher.forget()
            note(f"The address was used. For another browser: {address_of(state)}")

        state.entered = entered
        if state.api_token:
            state.adopt(access.open())  # a program cannot type a passphrase
        result(address_of(state))
        if state.api_token:
            shown = "of the file" if api_token_file else state.api_token
            note(
                f"Programs reach {state.origin}/sdapi/v1 (A1111) and {state.origin}/v1 (OpenAI) "
                f"with the token {shown}"
            )
        note("The gallery is open to the browser that opens this address first. Ctrl-C stops it.")
        if not no_browser and not launcher.open(address_of(state)):
            note("There is no browser to open here: open the address yourself.")
        try:
            with suppress(KeyboardInterrupt):  # handed on by the server, which has ended in order
                server.run(sockets=[listener])
        finally:
            launcher.forget()
            state.lock()
        note("The gallery is closed, and the vault is locked.")


def _api_token(file: Path | None) -> str:
    """Return the token of a file's first line, or a new one."""
    import secrets

    from safelight.orders import read_bounded

    if file is None:
        return secrets.token_urlsafe(32)
    token = read_bounded(file, "the API's token").partition("\n")[0].strip()
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise UsageError(f"the API's token has at least {SHORTEST_TOKEN} printable ASCII letters")
    return token


def _warn_of_others(state: "Gallery", host: str) -> None:
    summary = state.summary()
    openers = {slot.type for slot in summary.slots}
    if summary.state == "ready" and not openers & {"passphrase", "both"}:
        raise UsageError(
            f"other machines can reach {host}, and this vault has no passphrase to unlock with",
            hint="`safelight vault passphrase set` adds one",
        )
    note(f"warning: every machine that reaches {host} can ask for the passphrase of this vault")
