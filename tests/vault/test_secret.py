"""A secret gives its value out through `reveal` alone."""

import copy
import dataclasses
import json
import logging
import pickle  # noqa: TID251 - to see that it refuses

import pytest

from vault.secret import Secret

VALUE = b"correct horse battery staple"


def test_reveal_gives_the_bytes_of_any_buffer():
    assert Secret(VALUE).reveal() == VALUE
    assert Secret(bytearray(VALUE)).reveal() == VALUE
    assert Secret(memoryview(VALUE)).reveal() == VALUE


def test_the_value_is_a_copy_that_the_caller_cannot_change():
    buffer = bytearray(VALUE)
    secret = Secret(buffer)
    buffer[:] = bytes(len(VALUE))
    assert secret.reveal() == VALUE


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>60}",
        lambda secret: "%s %r" % (secret, [secret]),  # noqa: UP031 - the old way is tested too
        lambda secret: str(ValueError(secret)),
        lambda secret: repr({"key": secret}),
    ],
)
def test_no_way_of_printing_shows_value_or_length(show):
    shown = show(Secret(VALUE))
    assert "horse" not in shown
    assert show(Secret(VALUE)) == show(Secret(b"x"))


def test_a_secret_in_a_dataclass_and_in_a_log_line_is_masked(caplog):
    @dataclasses.dataclass
    class Holder:
        key: Secret

    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("opened with %s", Holder(Secret(VALUE)))
    assert "horse" not in caplog.text
    assert "Secret(***)" in caplog.text


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        json.dumps,
        hash,
        bytes,
        vars,
        len,
        lambda secret: secret.__getstate__(),
    ],
)
def test_other_doors_are_shut_and_say_nothing(leak):
    with pytest.raises(TypeError) as caught:
        leak(Secret(VALUE))
    assert "horse" not in str(caught.value)


def test_equality_is_by_value_and_only_between_secrets():
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(VALUE[:-1])
    assert Secret(VALUE) != Secret(VALUE[:-1] + b"x")
    assert Secret(VALUE) != VALUE


def test_wiping_overwrites_what_is_held():
    secret = Secret(VALUE)
    held = secret._value
    secret.wipe()
    assert held == bytes(len(VALUE))
    assert secret.reveal() == bytes(len(VALUE))
