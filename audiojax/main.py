"""Trains and evaluates what a config describes.

python -m audiojax.main --config configs/esc50_resnet.py [--workdir DIR]
    [--mode train|evaluate] [--config.optimizer.learning_rate=3e-4 ...]
"""

from __future__ import annotations

import functools
import shlex
import sys

from absl import app, flags
from ml_collections import config_flags

from audiojax import command, datasets, report
from audiojax import config as configs
from audiojax.command import not_waiting, one_sentence, prepare
from audiojax.config import Config
from audiojax.mistakes import Find
from audiojax.training import grid, hosts, results, sweep

# What each does of one config, and of all points of a config file's sweep.
MODES = {
    "train": (sweep.train, grid.train),
    "evaluate": (sweep.evaluate, grid.evaluate),
}

CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="File of the config; configs/NAME.py is a ready one in any folder.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where results go, a folder or gs://; default runs/CONFIG_NAME."
)
MODE = flags.DEFINE_enum(
    "mode", "train", list(MODES), "Train, or score the checkpoints again."
)
MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the processes of one job.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first one.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "This one's number, from 0.")

parse = functools.partial(command.parse, CONFIG)


def clips_of(config: Config) -> Find:
    """Gives the clips that a config names, as they were trained on."""
    recordings = datasets.load(config.data.name, sweep.data_settings(config))
    number = {clip.filename: i for i, clip in enumerate(recordings.info.clips)}
    return lambda name, _: recordings.samples(number[name])


def show(config: Config, workdir: str) -> None:
    """Writes the report, and prints where everything is and what to type next."""
    picture = report.write(workdir)
    page = report.write_page([workdir], find=clips_of(config))
    again = shlex.join([*sys.orig_argv, "--mode", "evaluate"])
    print(
        f"results      {workdir}/results.json\n"
        f"picture      {picture}\n"
        f"report       {page}\n"
        f"checkpoints  {workdir}/fold*-seed*/checkpoints\n"
        f"score them again with\n  {again}"
    )


def main(argv: list[str]) -> None:
    """Runs one mode."""
    workdir = command.named_workdir(argv, CONFIG, WORKDIR.value)
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    given = config_flags.get_override_values(flags.FLAGS["config"])
    prepare()
    with not_waiting(), one_sentence(workdir):
        if MULTIHOST.value:
            hosts.connect(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        configs.read_none(CONFIG.value)
        fields = configs.fields_to_sweep(path, given=list(given))
        print(f"workdir {workdir}", flush=True)
        of_one, of_all = MODES[MODE.value]
        if fields:
            print(grid.table(of_all(CONFIG.value, workdir, fields)))
            return
        found = of_one(CONFIG.value, workdir)
        if not hosts.everyone().first:
            return
        if MODE.value == "evaluate":
            results.check_same(found, workdir)
        print(results.table(found))
        if MODE.value == "evaluate":
            print(f"the same as {workdir}/results.json")
        else:
            show(CONFIG.value, workdir)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
