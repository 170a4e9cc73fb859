"""What a machine with an NVIDIA card is measured by: `python -m benchmarks.gpu`."""
