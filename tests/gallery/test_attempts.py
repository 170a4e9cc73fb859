"""Guessing a passphrase becomes slow."""

from safelight.gallery.attempts import FREE, LONGEST, Attempts


def test_each_try_after_the_third_doubles_the_wait_up_to_a_minute():
    now = [0.0]
    attempts = Attempts(lambda: now[0])
    waits = []
    for _ in range(12):
        assert attempts.begin() == 0
        wait = attempts.begin() if attempts._tries >= FREE else 0.0
        waits.append(wait)
        now[0] += wait
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert max(waits) == LONGEST


def test_tries_at_the_same_time_gain_nothing():
    attempts = Attempts(lambda: 0.0)
    assert [attempts.begin() == 0 for _ in range(50)].count(True) == FREE


def test_success_forgets_the_tries():
    attempts = Attempts(lambda: 0.0)
    while attempts.begin() == 0:
        pass
    attempts.succeeded()
    assert attempts.begin() == 0
