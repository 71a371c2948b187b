"""Keeps JAX on the CPU from computing wrong sums."""

import os
import warnings
from pathlib import Path

import jax
from jax._src import xla_bridge
from jaxlib import version as jaxlib_version
from jaxlib import xla_client

# The fusions of sums that the CPU's compiler gets wrong (github.com/jax-ml/jax, issue
# 39103): none of them is to be made.
_OPTION = "--xla_cpu_experimental_ynn_fusion_type"
# The versions whose compiler knows the option; another would end the process.
_FIRST, _END = (0, 10), (0, 13)


def avoid_wrong_sums() -> None:
    """Turns the wrong fusions off in this process, on the CPU and nowhere else.

    jaxlib reads `XLA_FLAGS` once, as soon as someone asks for its options, and they
    are asked for here. After that the variable is as it was: a GPU's or TPU's plugin,
    TensorFlow and child processes read it too, each with a compiler of its own version
    that may end the process over an option that it does not know. Options that the user
    sets in the variable later are not seen by jaxlib; those set before are. The key of
    JAX's cache of compiled programs holds what was read here.

    Warns where JAX has started on the CPU before, when it is too late.
    """
    given = os.environ.get("XLA_FLAGS")
    options = _options(given or "")
    version = tuple(map(int, jaxlib_version.__version__.split(".")[:2]))
    if _OPTION in options or not _FIRST <= version < _END:
        return
    if xla_bridge.backends_are_initialized():
        if jax.default_backend() == "cpu":
            warnings.warn(
                "JAX was started before audiojax was imported, and may compute wrong "
                "sums on the CPU: import audiojax before anything is computed, or set "
                f"the environment variable XLA_FLAGS={_OPTION}=",
                stacklevel=3,
            )
        return
    os.environ["XLA_FLAGS"] = f"{options} {_OPTION}=".strip()
    xla_client.CompileOptions()
    if given is None:
        del os.environ["XLA_FLAGS"]
    else:
        os.environ["XLA_FLAGS"] = given


def _options(given: str) -> str:
    """What `XLA_FLAGS` says; the variable may also name a file that says it."""
    is_file = given.strip() and not given.strip().startswith("-")
    return Path(given).read_text() if is_file and Path(given).is_file() else given
