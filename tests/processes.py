"""The command in processes of its own: started, watched, killed, started again."""

import ast
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent

# Runs the command with the tiny network in the table of models.
COMMAND = (
    "import sys; from absl import app; from tests import tiny; tiny.register();"
    "from audiojax import main; app.run(main.main, flags_parser=main.parse)"
)

# Before the command, and after it what `harm` does to a folder of checkpoints.
BEFORE_THE_FIRST_SAVE = """
import pathlib, resource, shutil
from audiojax.training.checkpoints import Checkpoints
save = Checkpoints.save
def failing(self, *arguments):
    harm(pathlib.Path(self.directory))
    save(self, *arguments)
Checkpoints.save = failing
"""
FULL_DISK = "def harm(_): resource.setrlimit(resource.RLIMIT_FSIZE, (2000,) * 2)\n"


@contextlib.contextmanager
def started(*arguments, devices=1, before="", within=()):
    """The command while it runs; it is killed if it outlives the block.

    Args:
        arguments: of the command.
        devices: how many virtual CPU devices it has.
        before: Python that runs first.
        within: a command and its options that start this one.
    """
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [
                    *(*within, sys.executable, "-c", before + COMMAND),
                    *map(str, arguments),
                ],
                cwd=REPO_ROOT,
                env=os.environ
                | {
                    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                    "JAX_COMPILATION_CACHE_DIR": str(
                        REPO_ROOT / ".pytest_cache" / "xla"
                    ),
                    "PYTHONWARNINGS": "default",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(process.kill)
        yield process


def ended(process):
    """Waits for the end: exit status, standard output, standard error."""
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def run(*arguments, **options):
    """The command from its start to its end, as `ended` gives it."""
    with started(*arguments, **options) as process:
        return ended(process)


def loaded(modules, suspects):
    """Those of the suspects that a process has loaded which imports the modules."""
    code = (
        f"import sys, {', '.join(modules)}\n"
        f"print([name for name in {suspects!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout)


def wait_until(happened, process):
    """Returns as soon as `happened()`, or when the process ends before.

    Returns:
        Whether it happened.
    """
    deadline = time.monotonic() + 300
    while not happened():
        if process.poll() is not None:
            return happened()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


def free_port():
    """A port that no one listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start_job(stack, *arguments, count=2, devices=4, before_first=""):
    """Starts the processes of one job, which find each other over loopback.

    Args:
        stack: an ExitStack, at whose end they are killed.
        arguments: of the command.
        count: of processes.
        devices: of each.
        before_first: Python that the first process runs before the command.
    """
    port = free_port()
    return [
        stack.enter_context(
            started(
                *arguments,
                "--multihost",
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={count}",
                f"--process_id={i}",
                devices=devices,
                before="" if i else before_first,
            )
        )
        for i in range(count)
    ]


def run_job(*arguments, **options):
    """Runs a job to its end: what `ended` gives of each process."""
    with contextlib.ExitStack() as stack:
        return end_job(start_job(stack, *arguments, **options))


def end_job(processes):
    """Waits for the end of all: what `ended` gives of each."""
    # Read side by side: one that waits for a reader would hold up the others.
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(ended, processes))
