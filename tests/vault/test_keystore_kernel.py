"""The kernel's keyring: real system calls, with other processes and other users looking on."""

import os
import secrets
import subprocess
import sys

import pytest

from vault.errors import BadValueError, KeyStoreAbsentError, KeyStoreBrokenError
from vault.keystore import keystore_by_number
from vault.keystore.entry import kek_entry
from vault.keystore.kernel import KernelKeyStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the Linux kernel's keyring")

# Becomes another user if told to, joins a new, empty session keyring, as a service manager does
# for each service, then does what its arguments say. (It changes user by itself, after its
# imports, since that user need not be able to read this interpreter.)
CHILD = """
import ctypes, os, sys
from vault.keystore.kernel import KernelKeyStore
user = int(sys.argv.pop(1))
if user != os.geteuid():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if ctypes.CDLL(None).syscall(250, 1, None) == -1:
    sys.exit("no session keyring")
store = KernelKeyStore()
action, entry = sys.argv[1:3]
if action == "set":
    store.set(entry, bytes.fromhex(sys.argv[3]))
if action == "delete":
    store.delete(entry)
value = store.get(entry)
print(None if value is None else value.hex())
"""


@pytest.fixture
def store():
    try:
        return KernelKeyStore()
    except KeyStoreAbsentError as error:
        pytest.skip(str(error))


@pytest.fixture
def entry(store):
    """Name an entry that no other run uses, and remove it afterwards."""
    name = kek_entry(secrets.token_bytes(16), secrets.token_bytes(8))
    yield name
    store.delete(name)


def child(*arguments, user=None):
    user = os.geteuid() if user is None else user
    finished = subprocess.run(
        [sys.executable, "-c", CHILD, str(user), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "no session keyring" in finished.stderr:
        pytest.skip("this kernel gives no session keyring here")
    return finished


def test_set_get_replace_delete(store, entry):
    assert store.get(entry) is None
    store.set(entry, b"one")
    store.set(entry, bytes(range(256)) * 2)
    assert store.get(entry) == bytes(range(256)) * 2
    store.delete(entry)
    assert store.get(entry) is None
    store.delete(entry)


def test_it_is_opened_by_its_number(store, entry):
    store.set(entry, b"value")
    assert keystore_by_number(6).get(entry) == b"value"


def test_values_and_names_are_checked_first(store, entry):
    with pytest.raises(BadValueError):
        store.set(entry, bytes(513))
    with pytest.raises(BadValueError):
        store.set("login", b"value")


def test_deleted_keys_leave_the_kernels_list(store, entry):
    with open("/proc/keys", encoding="ascii") as keys:  # noqa: PTH123 - it has no size
        before = keys.read()
    store.set(entry, b"value")
    assert store.get(entry) == b"value"
    store.delete(entry)
    assert entry not in before
    assert store._search(entry) is None


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the child joins a session by number")
def test_a_process_in_another_session_of_the_same_user_shares_the_keys(store, entry):
    store.set(entry, b"\1\2")
    assert child("get", entry).stdout == "0102\n"
    assert child("set", entry, "0304").stdout == "0304\n"
    assert store.get(entry) == b"\3\4"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the child joins a session by number")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_sees_nothing_and_its_own_sessions_share(store, entry):
    store.set(entry, b"value of root")
    other = 65534  # nobody
    finished = child("get", entry, user=other)
    assert finished.stdout == "None\n", finished.stderr
    assert child("set", entry, "0506", user=other).stdout == "0506\n"
    assert child("get", entry, user=other).stdout == "0506\n"
    assert store.get(entry) == b"value of root"
    assert child("delete", entry, user=other).stdout == "None\n"


# Installs a seccomp filter as container engines do: system call 250 or 248 answers with EPERM.
# Source: seccomp(2) and the BPF instructions of linux/bpf_common.h.
REFUSED = """
import ctypes, struct, sys
from vault.errors import KeyStoreAbsentError
from vault.keystore.kernel import KernelKeyStore
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), (6, 0, 0, 0x50001), (6, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program):
    sys.exit("no seccomp")
try:
    KernelKeyStore().set(sys.argv[2], b"value")
except KeyStoreAbsentError as error:
    print(error)
    print(error.hint)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter names calls by number")
@pytest.mark.parametrize("system_call", [248, 250])
def test_a_refused_system_call_is_absent_with_its_reason(system_call, store, entry):
    finished = subprocess.run(
        [sys.executable, "-c", REFUSED, str(system_call), entry],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "no seccomp" in finished.stderr:
        pytest.skip("this process may not filter its own system calls")
    message, hint = finished.stdout.splitlines()
    assert message == ("the kernel refuses its keyring to this process (Operation not permitted)")
    assert "passphrase" in hint


def test_a_full_quota_is_broken_and_says_where_to_look(store):
    import errno

    with pytest.raises(KeyStoreBrokenError, match="no room") as caught:
        store._must((-1, errno.EDQUOT))
    assert "/proc/key-users" in caught.value.hint
    with pytest.raises(KeyStoreBrokenError, match="Cannot allocate"):
        store._must((-1, errno.ENOMEM))
