"""What one step of a program frees is there for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from audiojax import memory

# Prints how many pages the system hands out for a run of a program that needs about
# ten thousand of them, for an image of 40 MB and what leads to it.
CASE = """
import resource, statistics
from audiojax import memory
{first}
import jax, jax.numpy as jnp
image = jnp.ones((50, 200_000))
step = jax.jit(lambda image: jnp.cumsum(image @ image.T, 0) @ image)
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
counts = [pages()]
for _ in range(40):
    step(image).block_until_ready()
    counts.append(pages())
print(round(statistics.median(b - a for a, b in zip(counts[-11:], counts[-10:]))))
"""


def pages_of_a_step(first):
    done = subprocess.run(
        [sys.executable, "-c", CASE.format(first=first)],
        env={k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_step():
    assert pages_of_a_step("") > 9_000, "this JAX keeps it itself: remove memory.py"
    assert pages_of_a_step("memory.keep_freed()") < 100


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    memory.keep_freed()
