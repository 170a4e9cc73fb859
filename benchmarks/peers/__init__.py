"""Other projects on the same weights, size, steps, seeds and threads, each in a venv of its own.

The modules that end in `_side` run there, with nothing of ours but `serving`.
"""

__all__: list[str] = []
