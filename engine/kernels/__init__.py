"""Kernels in C for processors with bf16 arithmetic: built with the package, and not needed."""

__all__: list[str] = []
