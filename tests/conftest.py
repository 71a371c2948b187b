"""What every test shares: devices, strictness, and where things are."""

import functools
import os

# Before JAX starts: eight CPU devices stand in for a machine with accelerators.
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pathlib import Path

import jax
import pytest
from absl import flags

from audiojax import memory

memory.keep_freed()  # as the commands do
jax.config.update("jax_numpy_rank_promotion", "raise")

REPO_ROOT = Path(__file__).resolve().parent.parent

# Most of the tests' time is compiling, and most of that the same programs again.
jax.config.update("jax_compilation_cache_dir", str(REPO_ROOT / ".pytest_cache" / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """A compiled program takes memory maps, of which Linux gives a process 65530.

    A process that keeps those of all slow tests ends in XLA by a segmentation fault.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return REPO_ROOT


@pytest.fixture(scope="session")
def esc10_dir() -> Path:
    """The 400 real clips of ESC-10, where this machine has them."""
    folder = REPO_ROOT.parent / "shared" / "esc10"
    if not (folder / "meta" / "esc50.csv").is_file():
        pytest.skip("the ESC-10 recordings are not on this machine (../shared/esc10)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def tiny_model():
    """The tiny network of the tests, under its name in the table of models."""
    from tests import tiny

    tiny.register()


@pytest.fixture(scope="session")
def trained_of(tmp_path_factory):
    """Trains a workdir of a clip policy once for all tests, which change nothing in it.

    Two seeds of one fold; see `tests.trained`.
    """
    from tests import trained

    @functools.cache
    def trained_of(mode):
        config = trained.make_config(mode)
        config.sweep.seeds = (0, 1)
        return trained.train(tmp_path_factory.mktemp(mode), config)

    return trained_of


@pytest.fixture
def command_of(monkeypatch, capsys):
    """Calls a command in this process; gives its status, output and errors.

    Its flags are its own, and those of the test's process stay as they are.
    """
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    for kind in ("enum", "list", "bool", "string", "float", "integer"):
        define = getattr(flags, f"DEFINE_{kind}")
        define = functools.partial(define, flag_values=values)
        monkeypatch.setattr(flags, f"DEFINE_{kind}", define)

    def command_of(module):
        monkeypatch.setattr(module.command, "prepare", lambda: None)
        module.define_flags()

        def command(*arguments):
            rest = module.command.parse(None, ["a command", *map(str, arguments)])
            try:
                module.main(rest)
                status = 0
            except SystemExit as end:
                status = end.code
            return status, *capsys.readouterr()

        return command

    return command_of
