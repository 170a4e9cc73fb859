"""Make pictures until killed: what tests/safelight/workshop/test_crash.py starts."""

import sys
import time
from pathlib import Path

from engine import FakeBackend
from safelight.shelf import Shelf
from safelight.workshop import Order, Pipelines, Workshop
from vault import PassphraseUnlock, open_vault, passphrase_secret

home = Path(sys.argv[1])
vault = open_vault(home / "vault", PassphraseUnlock(passphrase_secret(sys.argv[2])))
shelf = Shelf(home / "models", home / "cache")
workshop = Workshop(vault, Pipelines(shelf, lambda: FakeBackend(seconds_per_run=0.05)))
fields = {"prompt": "red apple", "seed": 1, "steps": 3, "count": 40}
workshop.submit(Order(model="pocket", fields=fields))
workshop.submit(Order(model="pocket", fields=fields | {"prompt": "blue cat", "count": 1}))
with workshop.feed.listen(lambda: None) as listener:
    while True:
        for news in listener.take():
            sys.stdout.write(f"{news.name}\n")
            sys.stdout.flush()
        time.sleep(0.01)
