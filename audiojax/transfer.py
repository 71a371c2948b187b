"""Measures what pretraining is worth, as the paper's analysis does.

python -m audiojax.transfer --config configs/study_esc10.py [--workdir DIR]
    [--config.study.choices=repetition ...]
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from absl import app, flags
from ml_collections import config_flags

from audiojax import command, report, study
from audiojax import config as configs
from audiojax.training import study as studies


def define_flags() -> flags.FlagHolder:
    """Defines the flags, only for the command, and gives that of the config."""
    flags.DEFINE_string(
        "workdir", None, "Where results go, a folder or gs://; default runs/CONFIG_NAME"
    )
    return config_flags.DEFINE_config_file(
        "config",
        help_string="File of the config, such as configs/study_esc10.py.",
        lock_config=True,
    )


def main(argv: Sequence[str], config: flags.FlagHolder) -> None:
    """Trains and measures what the config asks for, and prints the table."""
    workdir = command.named_workdir(argv, config, flags.FLAGS.workdir)
    command.prepare()
    with command.one_sentence(workdir):
        configs.read_none(config.value)
        print(f"workdir {workdir}", flush=True)
        found = studies.train(config.value, workdir)
        print(study.table(found))
        print(
            f"results      {workdir}/{study.TRANSFER}\n"
            f"table        {workdir}/{study.TABLE}\n"
            f"report       {report.write_page([workdir])}"
        )


if __name__ == "__main__":
    CONFIG = define_flags()
    app.run(
        functools.partial(main, config=CONFIG),
        flags_parser=functools.partial(command.parse, CONFIG),
    )
