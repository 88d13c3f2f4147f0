"""Simulators that write event files: a world of their own, met by the package only in files."""

__version__ = "0.1.0"
