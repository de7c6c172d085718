"""Tillbox: the software of a small box at a checkout counter."""

__version__ = "0.1.0"
