"""Speaks with a hub of models over huggingface_hub's session: what a repository holds, its bytes.

Its `hf_hub_download` is not used: since version 1 it throws away what a broken download had, and
its faster transport is native code, whose sockets the offline guard cannot see.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import getproxies

from safelight.exits import UsageError
from safelight.offline import NetworkWatch, OfflineError, is_loopback
from safelight.repository import (
    HubError,
    HubNotFoundError,
    RemoteFile,
    Repository,
    read_repository,
)

__all__ = ["Hub", "check_endpoint", "open_hub"]

TIMEOUT = 30.0  # seconds without a byte before a connection counts as broken
RETRIES = 3  # attempts in a row that bring less than PROGRESS before the download is given up
PROGRESS = 1 << 20  # bytes
PAUSE = 0.5  # seconds between attempts
BUSY = {408, 429, 500, 502, 503, 504}  # statuses that another attempt may cure


class _BrokenError(Exception):
    """The answer ended before its end; another attempt goes on where it stopped."""


def check_endpoint(text: str) -> str:
    """Give the hub's address without a last slash; raises UsageError unless https or loopback."""
    parts = urlsplit(text)
    secure = parts.scheme == "https" or (
        parts.scheme == "http" and is_loopback(parts.hostname or "")
    )
    if not secure or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise UsageError(
            f"the hub's address '{text}' is not acceptable",
            hint="https://HOST, or http:// for this machine itself (setting hub, SAFELIGHT_HUB)",
        )
    return text.rstrip("/")


@contextmanager
def open_hub(endpoint: str, *, token: str, watch: NetworkWatch) -> Iterator["Hub"]:
    """Open the way to the hub, and to nothing else, until the block ends.

    token: "" for none; none is ever taken from the environment. Whatever goes wrong with the
    network comes out as a HubError.
    """
    host = urlsplit(endpoint).hostname or ""
    with watch.opened() as let_out:
        for name in (host, *(urlsplit(proxy).hostname for proxy in getproxies().values())):
            if name and not is_loopback(name):
                let_out(name)
        from huggingface_hub import close_session, get_session, set_client_factory
        from huggingface_hub.errors import HfHubHTTPError

        # huggingface_hub 1 builds on httpx, 2 on httpx2: both are met through what it hands out.
        client: Any = type(get_session())
        broken: Any = HfHubHTTPError.__mro__[1]
        guard = _guard(host, let_out)
        set_client_factory(
            lambda: client(event_hooks={"request": [guard]}, follow_redirects=True, timeout=TIMEOUT)
        )
        try:
            yield Hub(endpoint, token, broken)
        except OfflineError as error:
            raise HubError(f"the hub {host} sends to a host that nobody named") from error
        except broken as error:
            raise HubError(
                f"the hub {host} cannot be reached: {type(error).__name__}",
                hint="is this machine online, and is the setting hub right?",
            ) from error
        finally:
            close_session()


def _guard(hub: str, let_out: Callable[[str], None]) -> Callable[[Any], None]:
    """Give the hook that sees every request, redirected ones too, before it leaves."""

    def permit(request: Any) -> None:
        scheme, host = request.url.scheme, request.url.host
        if is_loopback(host):
            good = is_loopback(hub)  # a hub elsewhere has no business with this machine's services
        else:
            good = scheme == "https"
            if good:
                let_out(host)
        if not good:
            raise HubError(
                f"the hub {hub} redirects to {scheme}://{host}, which is not followed",
                hint="only https leaves this machine",
            )

    return permit


class Hub:
    """One hub, while it is open. Made by `open_hub`."""

    def __init__(self, endpoint: str, token: str, broken: type[Exception]) -> None:
        self._endpoint = endpoint
        self._token = token
        self._broken = broken

    def repository(self, name: str, revision: str) -> Repository:
        """Give what the repository holds at that revision. Raises HubError, HubNotFoundError."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        from safelight import __version__

        api = HfApi(
            self._endpoint,
            token=self._token or False,  # False: not from the environment either
            library_name="safelight",
            library_version=__version__,
        )
        try:
            info = api.model_info(name, revision=revision, files_metadata=True, timeout=TIMEOUT)
        except HfHubHTTPError as error:
            raise self._refusal(error.response, name, revision) from error
        except HFValidationError as error:
            raise UsageError(
                f"'{name}' is no name of a repository", hint="OWNER/NAME, as on the hub"
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise HubError(
                f"the hub's answer about '{name}' makes no sense ({type(error).__name__})",
                hint="is the setting hub the address of a hub of models?",
            ) from error
        return read_repository(info)

    def fetch(
        self,
        repository: Repository,
        file: RemoteFile,
        target: BinaryIO,
        advance: Callable[[int], None],
    ) -> None:
        """Append to `target` what it lacks of the file, going on after a cut connection.

        advance: called with the bytes that came, less than 0 where some have to come again.
        Raises HubError; what came stays in `target`, so that a later call goes on from there.
        """
        failures = 0
        while (begin := target.tell()) < file.bytes:
            try:
                self._append(repository, file, target, advance)
            except (_BrokenError, self._broken) as error:
                failures = 0 if target.tell() - begin >= PROGRESS else failures + 1
                if failures > RETRIES:
                    raise HubError(
                        f"the connection broke while '{file.name}' was fetched,"
                        f" after {target.tell()} of {file.bytes} bytes",
                        hint="the same command goes on where it stopped",
                    ) from error
                time.sleep(PAUSE)

    def _append(
        self,
        repository: Repository,
        file: RemoteFile,
        target: BinaryIO,
        advance: Callable[[int], None],
    ) -> None:
        from huggingface_hub import get_session, hf_hub_url

        url = hf_hub_url(
            repository.id, file.name, revision=repository.commit, endpoint=self._endpoint
        )
        begin = target.tell()
        headers = {"accept-encoding": "identity", "user-agent": "safelight"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        if begin:
            headers["range"] = f"bytes={begin}-"
        with get_session().stream("GET", url, headers=headers) as answer:
            if answer.status_code in BUSY:
                raise _BrokenError
            if answer.status_code not in {200, 206}:
                raise self._refusal(answer, repository.id, repository.commit)
            start = _start(answer) if answer.status_code == 206 else 0
            if start != begin:
                advance(-begin)
                target.seek(0)
                target.truncate()
                if start:
                    raise _BrokenError
            # Without a size, since collecting to one loses what had come before a cut.
            for data in answer.iter_bytes():
                if target.tell() + len(data) > file.bytes:
                    raise HubError(f"the hub sends more of '{file.name}' than it announced")
                target.write(data)
                advance(len(data))
        if target.tell() < file.bytes:
            raise _BrokenError

    def _refusal(self, answer: Any, name: str, revision: str) -> HubError:
        """Turn a refusing answer into the sentence that helps."""
        code, status = answer.headers.get("x-error-code", ""), answer.status_code
        if code == "RevisionNotFound":
            return HubNotFoundError(f"the repository '{name}' has no revision '{revision}'")
        if code == "GatedRepo" or status == 403:
            return HubError(
                f"the repository '{name}' is gated: its owner lets in who has agreed to the terms",
                hint=f"agree at {self._endpoint}/{name}, then give --token-file with a token of"
                " yours that may read it",
            )
        if status == 401 and self._token and code != "RepoNotFound":
            return HubError("the hub does not accept the token in that file")
        if status in {401, 404} and code != "EntryNotFound":
            return HubNotFoundError(
                f"the hub has no repository '{name}' that it shows without a token"
                if not self._token
                else f"the hub has no repository '{name}' that this token may read",
                hint="check the name, OWNER/NAME; a private one needs --token-file",
            )
        return HubError(
            f"the hub answered with status {status} about '{name}'", hint="try again later"
        )


def _start(answer: Any) -> int:
    """Read where a partial answer begins, in bytes; -1 where it does not say."""
    found = re.match(r"bytes (\d{1,18})-", answer.headers.get("content-range", ""))
    return int(found[1]) if found else -1
