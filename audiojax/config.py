"""The type of a config, for those few functions that see the whole of it."""

from typing import Any, TypeAlias

# An `ml_collections.ConfigDict`. Its own annotations let every field be of any type it
# can hold, so a checker that took them at their word would refuse each use of one.
Config: TypeAlias = Any
