"""The first run: no vault yet. Choose what opens it, keep the recovery phrase, and it is there."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from safelight.exits import ApplicationError, UsageError
from safelight.gallery.bodies import read_form
from safelight.gallery.creation import Creation
from safelight.gallery.faults import sentence
from safelight.gallery.rendering import gallery_of, page
from safelight.hardening import hide_memory
from vault import KeyStoreError, VaultError, find_keystore, passphrase_secret

if TYPE_CHECKING:
    from vault import KeyStore, RecoveryPhrase, Secret, Vault

__all__ = ["routes", "welcome_page"]

SHORTEST = 8  # characters of a passphrase; what stands between a stolen disk and the pictures


def welcome_page(request: Request, *, status: int = 401, text: str = "") -> Response:
    """Show the choices of `safelight init`."""
    try:
        keystore, why = find_keystore().name, ""
    except KeyStoreError as error:
        keystore, why = "", str(error)
    gallery = gallery_of(request)
    return page(
        request,
        "welcome.html",
        status=status,
        keystore="" if gallery.needs_passphrase else keystore,
        why=why,
        folder=str(gallery.settings.vault),
        text=text,
    )


async def begin(request: Request) -> Response:
    """Take the choice, and show the recovery phrase."""
    gallery = gallery_of(request)
    if request.method == "GET" or await run_in_threadpool(gallery.state) != "absent":
        return RedirectResponse("/", 303)
    form = dict(await read_form(request))
    try:
        secret = _chosen(form)
        store = find_keystore() if secret is None else None
        if store is not None and gallery.needs_passphrase:
            raise UsageError("other machines can reach this gallery: it needs a passphrase")
        if gallery.creation is not None:  # begun before, and left: it holds the folder
            await run_in_threadpool(gallery.creation.give_up)
        creation = gallery.creation = Creation(_maker(request, store, secret))
        await run_in_threadpool(creation.wait_for_phrase)
    except (VaultError, ApplicationError) as error:
        return welcome_page(request, status=422, text=sentence(error))
    return page(request, "phrase.html", phrase=creation.phrase, text="")


async def confirm(request: Request) -> Response:
    """Compare what was typed back; the vault is made, and open, when it fits."""
    gallery = gallery_of(request)
    creation = gallery.creation
    if creation is None or not creation.phrase:
        return welcome_page(request, status=422, text="Begin again: nothing was made.")
    typed = dict(await read_form(request)).get("phrase", "")
    try:
        vault = await run_in_threadpool(creation.confirm, typed)
    except (VaultError, ApplicationError) as error:
        return welcome_page(request, status=422, text=sentence(error))
    if vault is None:
        text = "That is not the phrase. Compare group by group."
        return page(request, "phrase.html", status=422, phrase=creation.phrase, text=text)
    gallery.creation = None
    gallery.adopt(vault)
    return Response(status_code=204, headers={"HX-Refresh": "true"})


def _chosen(form: dict[str, str]) -> "Secret | None":
    if form.get("opener") == "keyring":
        return None
    first, again = form.get("passphrase", ""), form.get("again", "")
    if first != again:
        raise UsageError("the two passphrases differ; nothing was made")
    if len(first) < SHORTEST:
        raise UsageError(
            f"the passphrase has {len(first)} characters; take at least {SHORTEST}",
            hint="several words are easy to remember and hard to guess",
        )
    return passphrase_secret(first)


def _maker(
    request: Request, store: "KeyStore | None", secret: "Secret | None"
) -> "Callable[[Callable[[RecoveryPhrase], None]], Vault]":
    settings = gallery_of(request).settings

    def make(confirmed: "Callable[[RecoveryPhrase], None]") -> "Vault":
        from vault import create

        hide_memory()
        return create(
            settings.vault,
            keystore=store,
            passphrase=secret,
            confirm=confirmed,
            allow_network=settings["network_vault"] == "allow",
        )

    return make


routes: Sequence[BaseRoute] = (
    Route("/welcome", begin, methods=["GET", "POST"]),
    Route("/welcome/phrase", confirm, methods=["POST"]),
)
