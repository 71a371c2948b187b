"""Runs: from a config to what a workdir holds."""
