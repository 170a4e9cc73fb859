"""An interrupt may come between any two instructions: no key is lost, and none is made of zeros."""

import sys

import pytest

from tests.vault.conftest import draft
from vault.ledger import Ledger


class Interrupts:
    """Raises KeyboardInterrupt once, before instruction number `at` of a function."""

    def __init__(self, function, at):
        self._code, self._left = function.__code__, at
        self.hit = False

    def __enter__(self):
        sys.settrace(self._called)
        return self

    def __exit__(self, *_):
        sys.settrace(None)

    def _called(self, frame, _event, _argument):
        if frame.f_code is not self._code or self.hit:
            return None
        frame.f_trace_opcodes = True
        return self._within

    def _within(self, _frame, event, _argument):
        if event == "opcode" and not self.hit:
            self._left -= 1
            if self._left < 0:
                self.hit = True
                raise KeyboardInterrupt
        return self._within


@pytest.mark.parametrize("change", ["add", "rotate"])
def test_a_save_after_an_interrupt_is_sealed_under_the_vault_s_key(place, change):
    """Acknowledged is acknowledged: after each interrupt the vault takes a record and keeps it."""
    expected, at, hit = 2, 0, True
    with place.open() as opened:
        while hit:
            interrupts = Interrupts(Ledger._take, at)
            try:
                with interrupts:
                    if change == "add":
                        opened.add([draft(f"interrupted {at}", b"")])
                    else:
                        opened.keys.rotate()
            except KeyboardInterrupt:
                pass
            expected += change == "add"  # the save had been committed before
            opened.add([draft(f"after {at}", b"")])
            expected += 1
            hit, at = interrupts.hit, at + 1
            assert opened.care.verify().problems == ()
    assert at > 10  # instructions were met
    with place.open() as again:
        assert len(list(again.list(limit=1000))) == expected
