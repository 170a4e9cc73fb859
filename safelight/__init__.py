"""safelight: fast, private Stable Diffusion on your own machine.

The application, where engine, export and vault meet: command line, studio, settings, disclosure.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
