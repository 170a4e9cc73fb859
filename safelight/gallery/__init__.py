"""The private gallery and studio: a web page on loopback over an opened vault."""

__all__: list[str] = []
