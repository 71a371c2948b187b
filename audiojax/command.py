"""What the commands share: messages, signals, and errors of one sentence."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from audiojax import files, memory
from audiojax.errors import InputError, Interrupted


def stop(message: object, status: int = 1) -> NoReturn:
    """Prints one sentence and ends the program."""
    print(f"audiojax: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """The cells of a table, one line a row, right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def parse(config: flags.FlagHolder[Any] | None, argv: list[str]) -> list[str]:
    """Parses the flags; one that can't be used ends the program in one sentence.

    Of `config`, the flag of the config file, the file is loaded. The plain arguments
    come back, the program's name first.
    """
    try:
        rest = flags.FLAGS(_with_ready_configs(argv))
        if config is not None and config.value is not None:
            config.value.keys()  # a file that could not be loaded says so only now
        return rest
    except flags.UnrecognizedFlagError as error:
        found = difflib.get_close_matches(error.flagname, list(flags.FLAGS), 1)
        hint = f"did you mean --{found[0]}?" if found else "--help names the flags"
        stop(f"there is no flag --{error.flagname}; {hint}")
    except flags.Error as error:
        stop(f"{_line(error)}; --help names the flags")
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        stop(f"can't read the config file: {reason}; the ready ones are in configs/")
    except (AttributeError, KeyError) as error:
        stop(_no_field(str(error.args[0])))
    except (TypeError, ValueError) as error:
        stop(f"can't use the config: {_line(error)}")


def named_workdir(
    argv: Sequence[str], config: flags.FlagHolder[Any], workdir: str | None
) -> str:
    """The workdir that a command with a config was given, or that of its config.

    A plain argument, no config, or a name that is no text ends the program.
    """
    if argv[1:]:
        stop(f"unknown argument {argv[1]!r}; values are given as --flag=value")
    if config.value is None:
        stop("no config given; add --config configs/NAME.py")
    path = config_flags.get_config_filename(flags.FLAGS[config.name])
    workdir = workdir or f"runs/{Path(path).stem}"
    try:
        os.path.abspath(workdir).encode()
    except UnicodeEncodeError:
        stop(f"--workdir is {workdir!r}; give a folder whose name is UTF-8 text")
    return workdir


def _with_ready_configs(argv: Sequence[str]) -> list[str]:
    """The arguments, with the path of a ready config where no file here has its name.

    Those lie beside the package, in the repository as where a wheel was installed.
    """
    found, folder = list(argv), Path(__file__).resolve().parent.parent
    for i, argument in enumerate(argv):
        name, equals, path = argument.partition("=")
        if name.lstrip("-") != "config" or name == "config":
            continue
        place = i
        if not equals:
            place, path = i + 1, "".join(argv[i + 1 : i + 2])
        file = path.partition(":")[0]
        if file and not Path(file).exists() and (folder / file).is_file():
            found[place] = f"{name}={folder / path}" if equals else str(folder / path)
    return found


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _no_field(message: str) -> str:
    """What ml_collections says of an unknown field, which it quotes twice."""
    message = message.replace("\\n", " ").replace("\\'", "'")
    hint = re.search(r'Did you mean "(.+)" instead of "(.+)"', message)
    if hint is None:
        field = _line(message).strip('"')
        return f"the config has no field {field}"
    return f"the config has no field {hint[2]!r}; did you mean {hint[1]!r}?"


def on_terminate(_signum: int, _frame: object) -> None:
    """Ends at a SIGTERM outside of training, where nothing has to be saved."""
    stop("terminated; type the same command again to go on", 128 + signal.SIGTERM)


def _without_closed_loops(error: sys.UnraisableHookArgs) -> None:
    """Prints what could not be raised, save for the echo of a save that failed.

    Orbax raises the first error of a save and closes the loop that TensorStore's
    threads then still have something to tell to.
    """
    if str(error.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(error)


def prepare() -> None:
    """Sets up memory, messages, signals and the cache of compiled programs."""
    memory.keep_freed()
    _check_file_names()
    print_any_text()
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("audiojax").setLevel(logging.INFO)
    # Orbax tells of each of its parts on absl's logger, and there also of the errors
    # that it raises, with a traceback from every thread.
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(
        lambda record: record.levelno < logging.ERROR or "orbax" not in record.pathname
    )
    # A save that failed leaves tasks without an owner, whose errors are of the same.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _without_closed_loops
    signal.signal(signal.SIGTERM, on_terminate)
    _watch_signals()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        programs = files.cache_dir() / "xla"
        jax.config.update("jax_compilation_cache_dir", str(programs))


def _check_file_names() -> None:
    """Ends the program where each library would read another name than UTF-8's."""
    if sys.getfilesystemencoding() == "ascii":
        stop("this Python reads the names of files as ASCII; set PYTHONUTF8=1")


def print_any_text() -> None:
    """Makes `print` write by number what the output's encoding lacks.

    Names of folders need be no text; as an error they would end the program.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


STOPS = (signal.SIGINT, signal.SIGTERM)
# A program that ends sooner than this after a signal has nothing to explain.
SECONDS_TO_END = 0.5


def _watch_signals() -> None:
    """Says after a SIGINT or SIGTERM what holds it up; a second one ends at once.

    What acts on the first one is the main thread, and that may be inside XLA, which
    compiles a large network for a minute: so a thread of its own watches.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_the_second, args=(reading,), daemon=True).start()


def _end_at_the_second(reading: int) -> None:
    stops = (n for n in iter(lambda: os.read(reading, 1)[0], None) if n in STOPS)
    next(stops)
    if not select.select([reading], [], [], SECONDS_TO_END)[0]:
        _say(
            "stopping: this waits for the end of what is being computed, compiled or "
            "written; press Ctrl-C again to end at once"
        )
    signum = next(stops)
    _say("ended at once; type the same command again to go on from what was saved")
    # Files are whole or not there, whenever a process ends.
    os._exit(128 + signum)


def _say(message: str) -> None:
    """Prints at once, also where the main thread is in the middle of printing."""
    standard_error = 2
    os.write(standard_error, f"\naudiojax: {message}\n".encode())


# The job ends with its first process; until then the others can say what they found.
SECONDS_FOR_THE_OTHERS = 5.0


@contextlib.contextmanager
def not_waiting() -> Iterator[None]:
    """Ends a process of a job that failed, without the wait for the others' end.

    They may be waiting for it, in the middle of a step. All that stop together, at a
    signal, end in the ordinary way.
    """
    try:
        yield
    except BaseException as error:
        together = isinstance(error.__context__, Interrupted)
        if together or not jax.distributed.is_initialized():
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        code = error.code if isinstance(error, SystemExit) else 1
        if jax.process_index() == 0:
            time.sleep(SECONDS_FOR_THE_OTHERS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


@contextlib.contextmanager
def one_sentence(workdir: str) -> Iterator[None]:
    """Ends the program in one sentence at what its user can do something about."""
    try:
        yield
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
