"""Passphrases: one key for one passphrase on every keyboard, and bounded cost."""

import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import BadValueError, DamagedError
from vault.passphrase import Argon2Parameters, derive, passphrase_secret
from vault.secret import Secret

SALT = bytes(range(16))
MIB = 1024  # KiB


def test_the_key_is_this_one_for_ever():
    """Computed by the reference C code, through hash_secret_raw of argon2-cffi 25.1.0."""
    key = derive(passphrase_secret("correct horse"), Argon2Parameters(SALT))
    assert key.hex() == "577f1ff37e9a3e52c97d39f8e83891c1b73b0e87ffe0429cee8ede2fb005fe44"


def test_every_parameter_changes_the_key():
    secret = passphrase_secret("correct horse")
    keys = {
        derive(secret, parameters)
        for parameters in (
            Argon2Parameters(SALT),
            Argon2Parameters(SALT[::-1]),
            Argon2Parameters(SALT, memory_kib=65 * MIB),
            Argon2Parameters(SALT, iterations=4),
            Argon2Parameters(SALT, lanes=1),
        )
    }
    keys.add(derive(passphrase_secret("correct horse "), Argon2Parameters(SALT)))
    assert len(keys) == 6


def test_both_ways_of_typing_an_accent_are_one_passphrase():
    assert passphrase_secret("caf\u00e9") == passphrase_secret("cafe\u0301")
    assert passphrase_secret("caf\u00e9").reveal() == b"caf\xc3\xa9"


def test_compatibility_forms_and_blanks_stay_apart():
    """NFC, not NFKC: nothing that a person can see is folded away."""
    assert passphrase_secret("x\u00b2") != passphrase_secret("x2")
    assert passphrase_secret(" a ").reveal() == b" a "


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0"])
def test_an_empty_passphrase_is_refused(text):
    with pytest.raises(BadValueError, match="empty"):
        passphrase_secret(text)


def test_a_whole_file_is_refused_as_a_passphrase():
    assert passphrase_secret("x" * 4096)
    with pytest.raises(BadValueError, match="4097"):
        passphrase_secret("x" * 4097)


def test_text_that_is_not_unicode_is_refused_without_showing_it():
    with pytest.raises(BadValueError) as caught:
        passphrase_secret("hunter2\udcff")
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__suppress_context__  # the codec's own message shows the whole text


@given(
    salt=st.binary(min_size=16, max_size=16),
    memory_kib=st.integers(64 * MIB, 1024 * MIB),
    iterations=st.integers(3, 16),
    lanes=st.integers(1, 8),
)
def test_every_accepted_parameter_comes_back(salt, memory_kib, iterations, lanes):
    parameters = Argon2Parameters(salt, memory_kib, iterations, lanes)
    assert len(parameters.encode()) == 22
    assert Argon2Parameters.decode(parameters.encode()) == parameters


def test_the_encoding_is_this_one_for_ever():
    assert Argon2Parameters(SALT).encode() == SALT + bytes.fromhex("00010000 03 04")


@pytest.mark.parametrize(
    ("memory_kib", "iterations", "lanes"),
    [
        (64 * MIB - 1, 3, 4),
        (1024 * MIB + 1, 3, 4),
        (2**32 - 1, 3, 4),
        (0, 3, 4),
        (64 * MIB, 2, 4),
        (64 * MIB, 17, 4),
        (64 * MIB, 3, 0),
        (64 * MIB, 3, 9),
    ],
)
def test_costs_out_of_bounds_are_refused_at_once(memory_kib, iterations, lanes):
    with pytest.raises(BadValueError, match="accepted"):
        Argon2Parameters(SALT, memory_kib, iterations, lanes)
    planted = struct.pack(">16sIBB", SALT, memory_kib, iterations, lanes)
    with pytest.raises(DamagedError, match="refused"):
        Argon2Parameters.decode(planted)


@given(encoded=st.binary(max_size=40))
def test_no_bytes_make_anything_but_parameters_or_damage(encoded):
    try:
        parameters = Argon2Parameters.decode(encoded)
    except DamagedError:
        return
    assert parameters.encode() == encoded


def test_generated_salts_differ():
    assert len({Argon2Parameters.generate().salt for _ in range(20)}) == 20


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on address space is Linux's here")
def test_too_little_memory_is_an_error_in_words():
    """In a child that may have no more address space than it has now and 32 MiB."""
    code = """
import resource
from vault.errors import LockedError
from vault.passphrase import Argon2Parameters, derive, passphrase_secret
import cryptography.hazmat.primitives.kdf.argon2
secret = passphrase_secret("correct horse")
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**25
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    derive(secret, Argon2Parameters(bytes(16), memory_kib=1024 * 1024))
except LockedError as error:
    print(error)
"""
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.stdout == "the passphrase needs 1024 MiB of memory to be checked\n"
    assert "correct horse" not in child.stderr


def test_the_passphrase_is_held_masked():
    assert isinstance(passphrase_secret("correct horse"), Secret)
