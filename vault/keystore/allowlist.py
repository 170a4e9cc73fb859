"""The back ends of the keyring library that may hold a vault's key, and nothing else.

Left out on purpose: null (accepts a key and drops it), fail, chainer (deletes one of several
copies), and everything of keyrings.alt (files).
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ALLOW_LIST", "BackEnd", "back_end_numbered", "back_ends_here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackEnd:
    """One class of the keyring library and how it is used.

    number: what a key slot stores. name: for people. platform: `sys.platform` where it works.
    module, class_name: where the class is. properties: attributes that we set on the instance.
    session_bus: it lives on the session's D-Bus. secret_service: it speaks that protocol, so that
    a locked or missing collection can be told before the library asks for it.
    """

    number: int
    name: str
    platform: str
    module: str
    class_name: str
    properties: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    session_bus: bool = False
    secret_service: bool = False


# In the order in which `find_keystore` tries them.
ALLOW_LIST = (
    BackEnd(
        number=1,
        name="macOS Keychain",
        platform="darwin",
        module="keyring.backends.macOS",
        class_name="Keyring",
        properties={"keychain": None},  # the library reads KEYCHAIN_PATH when it is imported
    ),
    BackEnd(
        number=2,
        name="Windows Credential Manager",
        platform="win32",
        module="keyring.backends.Windows",
        class_name="WinVaultKeyring",
        properties={"persist": "local machine"},  # the library's choice roams to other machines
    ),
    BackEnd(
        number=3,
        name="Secret Service (GNOME Keyring, KeePassXC, KWallet)",
        platform="linux",
        module="keyring.backends.SecretService",
        class_name="Keyring",
        properties={"appid": "safelight"},
        session_bus=True,
        secret_service=True,
    ),
    BackEnd(
        number=4,
        name="Secret Service by libsecret",
        platform="linux",
        module="keyring.backends.libsecret",
        class_name="Keyring",
        properties={"appid": "safelight"},
        session_bus=True,
        secret_service=True,
    ),
    BackEnd(
        number=5,
        name="KWallet",
        platform="linux",
        module="keyring.backends.kwallet",
        class_name="DBusKeyring",
        properties={"appid": "safelight"},  # the library takes the program's path
        session_bus=True,
    ),
)


def back_ends_here() -> tuple[BackEnd, ...]:
    """Return the back ends that this operating system can have, best first."""
    return tuple(back_end for back_end in ALLOW_LIST if back_end.platform == sys.platform)


def back_end_numbered(number: int) -> BackEnd:
    """Return the back end `number`, of whatever system. Raises KeyError for any other number."""
    return {back_end.number: back_end for back_end in ALLOW_LIST}[number]
