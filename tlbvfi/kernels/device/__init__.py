"""The code that runs on the card. The modules that have kernels import Triton, and are imported by what starts them
only."""

from .started import Started as Started
