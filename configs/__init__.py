"""Configs: `common.py`, and small differences from it."""
