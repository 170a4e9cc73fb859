"""Small pieces by themselves, with pytest-benchmark and baselines: `make bench-micro`."""

__all__: list[str] = []
