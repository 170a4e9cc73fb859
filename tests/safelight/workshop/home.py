"""A vault on disk with workshops in it, and an ear for what they say: for the tests beside it."""

import threading

from engine import Choice, FakeBackend
from safelight.workshop import Order, Pipelines, Workshop
from vault import KeyStoreUnlock, Kind, MemoryKeyStore, create, open_vault

LONG = 60.0  # seconds that nothing here takes


class Home:
    """A vault that can be closed and opened again, and workshops in it."""

    def __init__(self, path, shelf):
        self.path = path
        self.store = MemoryKeyStore()
        self.vault = create(path / "vault", keystore=self.store, confirm=lambda phrase: None)
        self.shelf = shelf
        self.open = []

    def workshop(self, backend=None):
        pipelines = Pipelines(self.shelf, lambda: backend or FakeBackend())
        self.open.append(Workshop(self.vault, pipelines))
        return self.open[-1]

    def again(self):
        self.vault.close()
        self.vault = open_vault(self.path / "vault", KeyStoreUnlock(self.store))

    def count(self, kind):
        return len(list(self.vault.list(kinds=(kind,))))


def order(**fields):
    return Order(model="pocket", fields={"prompt": "red apple", "seed": 5, "steps": 3} | fields)


class Ear:
    """Listens to everything at once, and waits for what it wants to hear."""

    def __init__(self, workshop):
        self._changed = threading.Condition()
        self._listening = workshop.feed.listen(self._hear)
        self._listener = None
        self.heard = []

    def __enter__(self):
        self._listener = self._listening.__enter__()
        return self

    def __exit__(self, *error):
        return self._listening.__exit__(*error)

    def _hear(self):
        with self._changed:
            self.heard += self._listener.take()
            self._changed.notify_all()

    def wait_for(self, name, number=1):
        def there():
            return [news for news in self.heard if news.name == name][number - 1 :]

        with self._changed:
            assert self._changed.wait_for(there, LONG), f"no {name}"
            return there()[0].data


def on(*backends):
    first, *others = backends
    return Choice(backend=first, reason="several", others=tuple(others))


class Refusing:
    """A vault that seals no picture."""

    def __init__(self, vault, error):
        self._vault, self._error = vault, error

    def __getattr__(self, name):
        return getattr(self._vault, name)

    def add(self, drafts):
        if any(draft.kind is Kind.PICTURE for draft in drafts):
            raise self._error
        return self._vault.add(drafts)
