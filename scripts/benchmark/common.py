"""What the benchmarks share: the environment, taking turns, tables."""

import importlib
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import jax

OURS = "audiojax"


def processor() -> str:
    """The processor's name, with its family and model, as many are called alike."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.M))
    if len(found) < 3:  # an Arm processor has no such lines
        return platform.machine()
    return (
        f"{found['model name']} (family {found['cpu family']} model {found['model']})"
    )


def environment(*packages: str) -> str:
    """One line: processor, cores this process may use, load, device, versions."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return (
        f"{processor()}, {cores} cores, load before the run "
        f"{os.getloadavg()[0]:.1f}; JAX on {jax.devices()[0].device_kind}; "
        f"Python {platform.python_version()}, "
    ) + ", ".join(
        f"{name} {importlib.import_module(name).__version__}" for name in packages
    )


def take_turns(
    contenders: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """Median seconds of each contender; all run once a round, after one to warm up.

    Args:
        contenders: name to a function that returns when its work is done.
        repeats: rounds that are timed.
    """
    seconds = {name: [] for name in contenders}
    for round_ in range(repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if round_ > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def print_rates(rates: dict[str, float], unit: str) -> None:
    """A Markdown table of rates and how many times faster ours is."""
    print(f"\n| | {unit} | ours is faster by |\n|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rates[OURS] / rate:.2f} |")
