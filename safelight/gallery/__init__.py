"""The private gallery and studio: a web page on loopback over an opened vault."""
