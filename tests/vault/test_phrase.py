"""The recovery phrase: read back however it was typed, and told apart when it is wrong."""

import hashlib
import hmac
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import BadValueError, PhraseError
from vault.phrase import ALPHABET, RecoveryPhrase
from vault.secret import Secret

VAULT = bytes(range(16))
OTHER = bytes(range(16, 32))
ENTROPY = bytes.fromhex("00112233445566778899aabbccddeeff01234567")
PHRASE = RecoveryPhrase(Secret(ENTROPY), VAULT)


def refusal(text, vault_id=VAULT):
    with pytest.raises(PhraseError) as caught:
        RecoveryPhrase.parse(text, vault_id)
    assert_tells_nothing(caught.value, text)
    return caught.value


def assert_tells_nothing(error, text):
    """No run of five characters of the phrase is in the message or the hint."""
    shown = f"{error} {error.hint}".lower()
    plain = re.sub(r"[^0-9a-z]", "", text.lower())
    runs = {plain[at : at + 5] for at in range(len(plain) - 4)}
    assert not {run for run in runs if run in shown}


def test_the_text_is_this_one_for_ever():
    """Computed by hand of the module's table: base 32 of entropy || tag || checksum."""
    tag = hashlib.sha256(b"safelight/vault/1/phrase-tag\0" + VAULT).digest()[:2]
    label = b"safelight/vault/1/phrase-check\0"
    packed = ENTROPY + tag + hashlib.sha256(label + ENTROPY + tag).digest()[:3]
    bits = "".join(f"{byte:08b}" for byte in packed)
    signs = "".join(ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, 200, 5))
    assert PHRASE.text().replace("-", "") == signs
    assert PHRASE.text() == "008J4-CT4AN-K7F24-SNAXW-SQFEZ-W0J6H-B7RHX-JQTC3"


def test_the_secret_is_hkdf_of_the_entropy():
    """RFC 5869 by two lines of hmac."""
    extracted = hmac.digest(bytes(32), ENTROPY, "sha256")
    info = b"safelight/vault/1/phrase-secret\0" + VAULT + b"\1"
    assert PHRASE.secret() == hmac.digest(extracted, info, "sha256")


def test_a_phrase_has_eight_groups_of_five_without_doubtful_letters():
    text = RecoveryPhrase.generate(VAULT).text()
    assert re.fullmatch(r"(?:[0-9A-HJKMNP-TV-Z]{5}-){7}[0-9A-HJKMNP-TV-Z]{5}", text)


def test_generated_phrases_differ():
    assert len({RecoveryPhrase.generate(VAULT).text() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "typed",
    [
        str.lower,
        lambda text: text.replace("-", " "),
        lambda text: text.replace("-", ""),
        lambda text: f"  \t{text}\r\n",
        lambda text: "\n".join(text.split("-")),
        lambda text: text.replace("-", " – "),
        lambda text: text.replace("-", "\u2011"),
        "\u200b".join,
        lambda text: text.replace("0", "O"),
        lambda text: text.replace("0", "o").replace("1", "l"),
        lambda text: text.replace("1", "I"),
        lambda text: text.replace("1", "i").lower(),
    ],
)
def test_it_is_read_however_it_was_typed(typed):
    assert RecoveryPhrase.parse(typed(PHRASE.text()), VAULT).secret() == PHRASE.secret()


@given(entropy=st.binary(min_size=20, max_size=20), vault_id=st.binary(min_size=16, max_size=16))
def test_every_phrase_comes_back(entropy, vault_id):
    phrase = RecoveryPhrase(Secret(entropy), vault_id)
    again = RecoveryPhrase.parse(phrase.text(), vault_id)
    assert again.text() == phrase.text()
    assert again.secret() == phrase.secret()


def test_every_single_wrong_character_is_refused_and_its_group_named():
    signs = PHRASE.text().replace("-", "")
    for place, sign in enumerate(signs):
        other = ALPHABET[(ALPHABET.index(sign) + 7) % 32]
        error = refusal(signs[:place] + other + signs[place + 1 :])
        assert "mistyped" in str(error)
        assert f"group {place // 5 + 1} of 8" in error.hint


def test_every_swap_of_neighbours_is_refused_and_its_group_named():
    signs = PHRASE.text().replace("-", "")
    swapped = 0
    for place in range(39):
        if signs[place] == signs[place + 1]:
            continue
        swapped += 1
        error = refusal(signs[:place] + signs[place + 1] + signs[place] + signs[place + 2 :])
        assert f"group {place // 5 + 1} of 8" in error.hint
    assert swapped > 25


def test_two_slips_are_a_typo_without_a_guess():
    signs = PHRASE.text().replace("-", "")
    error = refusal("ZZ" + signs[2:20] + "77" + signs[22:])
    assert "mistyped" in str(error)
    assert "group" not in error.hint


def test_another_vaults_phrase_is_told_from_a_typo():
    error = refusal(PHRASE.text(), OTHER)
    assert "another vault" in str(error)
    assert "mistyped" not in str(error)


def test_a_typo_in_another_vaults_phrase_is_a_typo_first():
    error = refusal("Z" + PHRASE.text()[1:], OTHER)
    assert "mistyped" in str(error)
    assert "group 1 of 8" in error.hint


@pytest.mark.parametrize("keep", [0, 1, 35, 39])
def test_too_short_says_how_many_were_typed(keep):
    signs = PHRASE.text().replace("-", "")
    assert f"{keep} were typed" in str(refusal(signs[:keep]))


def test_too_long_is_refused_and_a_whole_file_is_not_even_read():
    assert "41 were typed" in str(refusal(PHRASE.text() + "0"))
    assert "far too long" in str(refusal("0" * 1001))


@pytest.mark.parametrize("sign", ["U", "u", "!", "é", "ß", "\u0130", "٣", "\0", "\U0001f600"])
def test_a_sign_that_no_phrase_uses_is_named_by_its_place(sign):
    signs = PHRASE.text().replace("-", "")
    error = refusal(signs[:11] + sign + signs[12:])
    assert "character 12" in str(error)


@settings(max_examples=300)
@given(text=st.text(max_size=80))
def test_no_text_makes_anything_but_a_phrase_error(text):
    with pytest.raises(PhraseError):
        RecoveryPhrase.parse(text, VAULT)


def test_the_secret_differs_between_vaults():
    assert RecoveryPhrase(Secret(ENTROPY), OTHER).secret() != PHRASE.secret()


def test_repr_is_masked():
    assert repr(PHRASE) == str(PHRASE) == "RecoveryPhrase(***)"


@pytest.mark.parametrize(("entropy", "vault_id"), [(ENTROPY[:-1], VAULT), (ENTROPY, VAULT[:-1])])
def test_wrong_sizes_are_refused(entropy, vault_id):
    with pytest.raises(BadValueError):
        RecoveryPhrase(Secret(entropy), vault_id)
