"""The gallery's pages: each module gives `routes`, and may give `body_limits` for larger bodies.

Neither a search nor a word of a prompt is ever part of an address: browsers write those down.
"""

__all__: list[str] = []
