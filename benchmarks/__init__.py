"""How long things take, measured side by side in one run; results are committed as JSON.

A benchmark reports speed and asserts nothing; results are correct because the tests say so.
"""

__all__: list[str] = []
