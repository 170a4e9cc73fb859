"""The recipe of `pocket`, the model in the box: pictures, captions, training, measures.

`python -m export.pocket STAGE --work DIR` runs one stage; each can be killed and resumed.
"""

__all__: list[str] = []
