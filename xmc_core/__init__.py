"""Extreme multi-label classification: texts in, ranked labels out of thousands to millions."""

__version__ = "0.1.0"
