"""HPKE against RFC 9180, twice: the published vector, and the RFC written out here."""

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from vault import hpke
from vault.errors import BadValueError

SECRET = bytes(range(32))
INFO = b"slot of a vault"
PLAINTEXT = b"root key of thirty-two bytes ...."

# test-vectors.json of the CFRG's HPKE draft (https://github.com/cfrg/draft-irtf-cfrg-hpke):
# mode 0, kem 0x0020, kdf 0x0001, aead 0x0002, first encryption.
VECTOR = {
    name: bytes.fromhex(value)
    for name, value in {
        "info": "4f6465206f6e2061204772656369616e2055726e",
        "skRm": "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d",
        "pkRm": "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c",
        "skEm": "179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11",
        "enc": "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256",
        "key": "f50b0609186798729ed0564b36ef2ef8044f1f9d05636874d1f46c819c7a669f",
        "base_nonce": "151d9929e2449747889bc923",
        "aad": "436f756e742d30",
        "pt": "4265617574792069732074727574682c20747275746820626561757479",
        "ct": "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad8"
        "59d5b7a",
    }.items()
}


def labeled_extract(suite, salt, label, ikm):
    """RFC 9180, section 4."""
    return HKDF.extract(SHA256(), salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite, prk, label, info, length):
    """RFC 9180, section 4."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(SHA256(), length, labeled).derive(prk)


def key_and_nonce(dh, enc, public, info):
    """RFC 9180, sections 4.1 (ExtractAndExpand) and 5.1 (KeySchedule), base mode."""
    kem = b"KEM" + (0x20).to_bytes(2, "big")
    shared = labeled_expand(
        kem, labeled_extract(kem, b"", b"eae_prk", dh), b"shared_secret", enc + public, 32
    )
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x20, 1, 2))
    context = b"\0" + labeled_extract(suite, b"", b"psk_id_hash", b"")
    context += labeled_extract(suite, b"", b"info_hash", info)
    secret = labeled_extract(suite, shared, b"secret", b"")
    return (
        labeled_expand(suite, secret, b"key", context, 32),
        labeled_expand(suite, secret, b"base_nonce", context, 12),
    )


def rfc_seal(ephemeral, public, info, plaintext, aad=b""):
    sender = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = sender.public_key().public_bytes_raw()
    dh = sender.exchange(X25519PublicKey.from_public_bytes(public))
    key, nonce = key_and_nonce(dh, enc, public, info)
    return enc + AESGCM(key).encrypt(nonce, plaintext, aad)


def rfc_open(secret, info, sealed):
    receiver = X25519PrivateKey.from_private_bytes(secret)
    enc, ciphertext = sealed[:32], sealed[32:]
    dh = receiver.exchange(X25519PublicKey.from_public_bytes(enc))
    public = receiver.public_key().public_bytes_raw()
    key, nonce = key_and_nonce(dh, enc, public, info)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def test_the_rfc_as_written_here_agrees_with_the_published_vector():
    sender = X25519PrivateKey.from_private_bytes(VECTOR["skEm"])
    dh = sender.exchange(X25519PublicKey.from_public_bytes(VECTOR["pkRm"]))
    key, nonce = key_and_nonce(dh, VECTOR["enc"], VECTOR["pkRm"], VECTOR["info"])
    assert (key, nonce) == (VECTOR["key"], VECTOR["base_nonce"])
    sealed = rfc_seal(*(VECTOR[name] for name in ("skEm", "pkRm", "info", "pt", "aad")))
    assert sealed == VECTOR["enc"] + VECTOR["ct"]


def test_the_public_key_agrees_with_the_published_vector():
    assert hpke.public_key(VECTOR["skRm"]) == VECTOR["pkRm"]


@settings(max_examples=25, deadline=None)
@given(
    secret=st.binary(min_size=32, max_size=32),
    ephemeral=st.binary(min_size=32, max_size=32),
    info=st.binary(max_size=100),
    plaintext=st.binary(max_size=200),
)
def test_each_implementation_opens_what_the_other_sealed(secret, ephemeral, info, plaintext):
    public = hpke.public_key(secret)
    assert hpke.open_(secret, info, rfc_seal(ephemeral, public, info, plaintext)) == plaintext
    sealed = hpke.seal(public, info, plaintext)
    assert len(sealed) == len(plaintext) + hpke.OVERHEAD
    assert rfc_open(secret, info, sealed) == plaintext


def test_two_seals_of_one_plaintext_share_nothing():
    public = hpke.public_key(SECRET)
    one, two = (hpke.seal(public, INFO, PLAINTEXT) for _ in range(2))
    assert one[:32] != two[:32]
    assert one[32:] != two[32:]


def test_every_flipped_bit_is_refused():
    sealed = hpke.seal(hpke.public_key(SECRET), INFO, PLAINTEXT)
    opened = []
    for bit in range(8 * len(sealed)):
        forged = bytearray(sealed)
        forged[bit // 8] ^= 1 << bit % 8
        try:
            hpke.open_(SECRET, INFO, bytes(forged))
            opened.append(bit)
        except InvalidTag:
            pass
    # RFC 7748 masks the top bit of a public key before use; RFC 9180 hashes the bytes as sent.
    assert opened == []


def test_every_truncation_and_extension_is_refused():
    sealed = hpke.seal(hpke.public_key(SECRET), INFO, PLAINTEXT)
    for length in range(len(sealed)):
        with pytest.raises(InvalidTag):
            hpke.open_(SECRET, INFO, sealed[:length])
    with pytest.raises(InvalidTag):
        hpke.open_(SECRET, INFO, sealed + b"\0")


@pytest.mark.parametrize("info", [b"", INFO + b"\0", INFO[:-1], b"slot of another"])
def test_another_meaning_does_not_open(info):
    sealed = hpke.seal(hpke.public_key(SECRET), INFO, PLAINTEXT)
    with pytest.raises(InvalidTag):
        hpke.open_(SECRET, info, sealed)


def test_another_secret_does_not_open():
    sealed = hpke.seal(hpke.public_key(SECRET), INFO, PLAINTEXT)
    with pytest.raises(InvalidTag):
        hpke.open_(SECRET[::-1], INFO, sealed)


def test_points_of_small_order_are_refused_both_ways():
    """Either would make a shared secret of zeros that everybody knows (RFC 7748, section 6.1)."""
    for point in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(BadValueError):
            hpke.seal(point, INFO, PLAINTEXT)
        with pytest.raises(InvalidTag):
            hpke.open_(SECRET, INFO, point + bytes(64))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_of_another_length_are_refused_without_showing_them(length):
    key = b"k" * length
    for use in (
        lambda: hpke.public_key(key),
        lambda: hpke.seal(key, INFO, PLAINTEXT),
        lambda: hpke.open_(key, INFO, bytes(80)),
    ):
        with pytest.raises(BadValueError, match=f"not {length}"):
            use()
