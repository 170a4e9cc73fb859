"""The Linux kernel's keyring: keys in RAM that are gone at reboot, for ephemeral vaults.

Keys of type "user" in the user's keyring: other processes of the same user find them until the
machine stops; the kernel never swaps them out. A container that shares the user shares the keys,
which is why container engines refuse these calls. Source: keyrings(7), add_key(2), keyctl(2).
"""

import ctypes
import errno
import os
import platform
import sys

from vault.errors import KeyStoreAbsentError, KeyStoreBrokenError
from vault.keystore.entry import check_entry, check_value, refuse_other_value

__all__ = ["KernelKeyStore"]

# add_key and keyctl of the kernel's tables of system calls, by `uname -m`.
SYSTEM_CALLS = {
    "x86_64": (248, 250),
    "aarch64": (217, 219),
    "riscv64": (217, 219),
    "ppc64le": (269, 271),
    "s390x": (278, 280),
    "armv7l": (309, 311),
    "i686": (286, 288),
}
USER_KEYRING = -4  # KEY_SPEC_USER_KEYRING
PROCESS_KEYRING = -2  # KEY_SPEC_PROCESS_KEYRING
GET_KEYRING_ID, LINK, SEARCH, READ, INVALIDATE = 0, 8, 10, 11, 21  # KEYCTL_*
KEY_TYPE = b"user"
NO_SUCH_KEY = frozenset({errno.ENOKEY, errno.EKEYEXPIRED, errno.EKEYREVOKED})
OTHER_CHOICES = "Containers often refuse it. Choose a passphrase (--passphrase-file FILE)."


class KernelKeyStore:
    """Keep keys in the kernel's memory, one keyring a user. Number 6.

    Raises KeyStoreAbsentError where the system calls are not there or refused, as in most
    containers.
    """

    number = 6
    name = "Linux kernel keyring"

    def __init__(self) -> None:
        if sys.platform != "linux" or platform.machine() not in SYSTEM_CALLS:
            raise KeyStoreAbsentError(
                "this system has no kernel keyring that safelight knows", hint=OTHER_CHOICES
            )
        self._add_key, self._keyctl = SYSTEM_CALLS[platform.machine()]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self._possess()

    def get(self, entry: str) -> bytes | None:
        """Return the value of `entry`, or None if there is none."""
        check_entry(entry)
        self._possess()
        key = self._search(entry)
        return None if key is None else self._read(key)

    def set(self, entry: str, value: bytes) -> None:
        """Store `value` under `entry` (a later one replaces it), read it back and compare."""
        check_entry(entry)
        check_value(value)
        self._possess()
        arguments = (KEY_TYPE, entry.encode(), value, len(value), USER_KEYRING)
        self._must(self._system_call(self._add_key, *arguments))
        refuse_other_value(value, self.get(entry), self.name)

    def delete(self, entry: str) -> None:
        """Remove `entry` if it is there; the kernel wipes the bytes. Verify that it is gone."""
        check_entry(entry)
        self._possess()
        key = self._search(entry)
        if key is not None:
            result, error = self._system_call(self._keyctl, INVALIDATE, key)
            if error not in NO_SUCH_KEY:  # else another process was faster
                self._must((result, error))
        if self._search(entry) is not None:
            raise KeyStoreBrokenError(f"{self.name} still holds a key that was deleted")

    def __repr__(self) -> str:
        return "KernelKeyStore()"

    def _possess(self) -> None:
        """Link the user's keyring to the process's own, so that its keys may be read.

        A service manager or su may start a session whose keyring does not lead to the user's.
        The link belongs to the thread's credentials, hence again before each use.
        """
        self._must(self._system_call(self._keyctl, GET_KEYRING_ID, USER_KEYRING, 1))
        self._must(self._system_call(self._keyctl, LINK, USER_KEYRING, PROCESS_KEYRING))

    def _search(self, entry: str) -> int | None:
        found = self._system_call(self._keyctl, SEARCH, USER_KEYRING, KEY_TYPE, entry.encode(), 0)
        return None if found[1] in NO_SUCH_KEY else self._must(found)

    def _read(self, key: int) -> bytes | None:
        buffer = ctypes.create_string_buffer(1024)  # twice the longest value
        size, error = self._system_call(self._keyctl, READ, key, buffer, len(buffer))
        if error in NO_SUCH_KEY:
            return None
        if self._must((size, error)) > len(buffer):
            raise KeyStoreBrokenError(f"{self.name} holds more than a key under this entry")
        value = buffer.raw[:size]
        ctypes.memset(buffer, 0, len(buffer))
        return value

    def _system_call(
        self, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char]
    ) -> tuple[int, int]:
        """Return result and errno (0 when it went well). Integers are passed as C longs."""
        passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
        ctypes.set_errno(0)
        result = int(self._libc.syscall(ctypes.c_long(number), *passed))
        return result, ctypes.get_errno() if result == -1 else 0

    def _must(self, returned: tuple[int, int]) -> int:
        result, error = returned
        if error in {errno.ENOSYS, errno.EPERM}:
            raise KeyStoreAbsentError(
                f"the kernel refuses its keyring to this process ({os.strerror(error)})",
                hint=OTHER_CHOICES,
            )
        if error == errno.EDQUOT:
            raise KeyStoreBrokenError(
                "the kernel keyring has no room for more keys of this user",
                hint="See /proc/key-users, and remove keys that are not needed.",
            )
        if error:
            raise KeyStoreBrokenError(f"the kernel keyring failed ({os.strerror(error)})")
        return result
