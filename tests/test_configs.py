import importlib
import re

import jax
import jax.numpy as jnp
import pytest

from audiojax import classifier, features, models, train
from audiojax.datasets import DATASETS
from tests.conftest import REPO_ROOT

FILES = sorted(
    path.stem
    for path in (REPO_ROOT / "configs").glob("*.py")
    if path.stem != "__init__"
)
# `common` is what the others differ from, not one to type.
TYPED = [name for name in FILES if name != "common"]
