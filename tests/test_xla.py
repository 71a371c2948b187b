"""Sums on the CPU are right in a process that imports audiojax."""

import os
import subprocess
import sys

import pytest

OPTION = "--xla_cpu_experimental_ynn_fusion_type"

# Prints the largest relative error of sums that some compilers get wrong by 1e25.
CASE = """
import jax, jax.numpy as jnp, numpy as np
rows = np.random.default_rng(0).normal(size=(5, 60, 60)).astype(np.float32)
sums = jax.jit(lambda rows, c: jnp.sum(rows @ jnp.full((60, 60), c), -1))(rows, 0.5)
right = 30 * rows.sum(-1, dtype=np.float64)
print(np.abs(sums / right - 1).max())
"""


def run(code, flags=None, **variables):
    """The lines that a fresh process prints on standard output and on error."""
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | variables
    if flags is not None:
        env["XLA_FLAGS"] = flags
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1], done.stderr


@pytest.mark.parametrize("module", ["audiojax", "audiojax.errors", "audiojax.models"])
def test_sums_are_right_after_the_import(module):
    (error,), _ = run(f"import {module}{CASE}")
    assert float(error) < 1e-3


def test_sums_are_wrong_without_the_protection():
    (error,), _ = run(CASE)
    assert not float(error) < 1e-3, "this JAX needs no protection: remove it"


def test_the_variable_is_as_it_was(tmp_path):
    show = "import os; print(os.environ.get('XLA_FLAGS'))\n"
    devices = "import jax; print(len(jax.devices()))"
    code = f"import audiojax\n{show}{devices}{CASE}"
    given = "--xla_force_host_platform_device_count=3"
    in_file = tmp_path / "flags.txt"
    in_file.write_text(f"{given}\n")

    for flags, count in ((None, 1), ("", 1), (given, 3), (str(in_file), 3)):
        (variable, found, error), _ = run(code, flags)
        assert (variable, found) == (str(flags), str(count))
        assert float(error) < 1e-3


def test_what_the_user_chose_stays():
    (error,), warning = run(f"import audiojax{CASE}", f"{OPTION}=reduce")
    assert not float(error) < 1e-3
    assert warning == ""


def test_an_unknown_compiler_is_told_nothing():
    # No compiler has this option: had it been told, the process would have ended.
    code = (
        "import jax, jaxlib.version; jaxlib.version.__version__ = '0.13.0'\n"
        "from audiojax import xla; xla._OPTION = '--xla_no_such_option'\n"
        "xla.avoid_wrong_sums(); print(jax.numpy.arange(3).sum())"
    )
    assert run(code)[0] == ["3"]


def test_a_late_import_warns_what_to_do():
    late = "import jax; jax.devices()\nimport audiojax\nprint('imported')"
    _, warning = run(late)
    assert "import audiojax before anything is computed" in warning
    _, warning = run(late, f"{OPTION}=")
    assert warning == ""


def test_a_late_import_on_an_accelerator_says_nothing():
    code = (
        "import jax; jax.devices(); jax.default_backend = lambda: 'gpu'\n"
        "import audiojax\nprint('imported')"
    )
    assert run(code) == (["imported"], "")
