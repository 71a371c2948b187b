"""Trains and evaluates what a config describes.

python -m audiojax.main --config configs/esc50_resnet.py [--workdir DIR]
    [--mode train|evaluate] [--config.optimizer.learning_rate=3e-4 ...]
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from audiojax import report, sweep
from audiojax.errors import InputError
from audiojax.train import Interrupted

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="File of the config.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where results go, a folder or gs://; default runs/CONFIG_NAME."
)
MODE = flags.DEFINE_enum(
    "mode", "train", list(sweep.MODES), "Train, or score the checkpoints again."
)


def stop(message: object, status: int = 1) -> NoReturn:
    """Prints one sentence and ends the program."""
    print(f"audiojax: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; a config that can't be used ends in one sentence."""
    try:
        rest = app.parse_flags_with_usage(argv)
        if CONFIG.value is not None:
            CONFIG.value.keys()  # a file that could not be loaded says so only now
        return rest
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        stop(f"can't read the config file: {reason}; the ready ones are in configs/")
    except (AttributeError, KeyError) as error:
        stop(f"the config has no field {' '.join(str(error.args[0]).split())}")
    except (TypeError, ValueError) as error:
        stop(f"can't use the config: {' '.join(str(error).split())}")


def read_none(config: ConfigDict) -> None:
    """Makes None of the text "None", which is how a flag gives it."""
    with config.ignore_type():
        for name, value in config.items():
            if isinstance(value, ConfigDict):
                read_none(value)
            elif value == "None":
                config[name] = None


def on_terminate(_signum: int, _frame: object) -> None:
    """Ends at a SIGTERM outside of training, where nothing has to be saved."""
    stop("terminated; type the same command again to go on", 128 + signal.SIGTERM)


def prepare() -> None:
    """Sets up messages, signals and the cache of compiled programs."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("audiojax").setLevel(logging.INFO)
    # Orbax tells of each of its parts on absl's logger.
    absl_logging.set_verbosity(absl_logging.WARNING)
    signal.signal(signal.SIGTERM, on_terminate)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(cache / "audiojax" / "xla"))


def show(results: dict[str, Any], workdir: str) -> None:
    """Prints the scores, where everything is, and what to type next."""
    print(sweep.table(results))
    if MODE.value == "evaluate":
        sweep.check_same(results, workdir)
        print(f"the same as {workdir}/results.json")
        return
    report.write(workdir)
    again = shlex.join([*sys.orig_argv, "--mode", "evaluate"])
    print(
        f"results      {workdir}/results.json\n"
        f"confusion    {workdir}/confusion.png\n"
        f"checkpoints  {workdir}/fold*-seed*/checkpoints\n"
        f"score them again with\n  {again}"
    )


def main(_argv: list[str]) -> None:
    """Runs one mode."""
    if CONFIG.value is None:
        stop("no config given; add --config configs/NAME.py")
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = WORKDIR.value or f"runs/{name}"
    config = CONFIG.value
    prepare()
    try:
        read_none(config)
        print(f"workdir {workdir}", flush=True)
        show(sweep.MODES[MODE.value](config, workdir), workdir)
    except InputError as error:
        stop(error)
    except Interrupted as interrupted:
        stop(
            f"stopped by {signal.Signals(interrupted.signum).name}, all steps are "
            f"saved in {workdir}; type the same command again to go on",
            128 + interrupted.signum,
        )
    except KeyboardInterrupt:
        stop("interrupted; type the same command again to go on", 128 + signal.SIGINT)
    except OSError as error:
        stop(f"{error.strerror or error}: {error.filename or workdir}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
