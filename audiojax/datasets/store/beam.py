"""Prepares a data set by a pipeline of Apache Beam, for more files than one machine.

python -m audiojax.datasets.store.beam --name=NAME --source_dir=DIR --data_dir=DIR \
    --sample_rate=HZ [--runner=DirectRunner] [options of the pipeline]
python -m audiojax.datasets.store.beam --fetch_from=gs://... --name=NAME \
    --source_dir=DIR --data_dir=DIR --sample_rate=HZ

docs/data.md tells how to do it on Google Cloud Dataflow.
"""

import argparse
import sys

from audiojax import datasets
from audiojax.datasets import Settings
from audiojax.datasets.store import prepare
from audiojax.errors import InputError


def main(arguments: list[str]) -> None:
    """Prepares what the arguments name; those not known here are the pipeline's."""
    parser = argparse.ArgumentParser("audiojax.datasets.store.beam", allow_abbrev=False)
    parser.add_argument("--name", choices=datasets.TABLES, required=True)
    parser.add_argument("--source_dir", required=True, help="the original files")
    parser.add_argument("--data_dir", help="for prepared data: a folder or gs://...")
    parser.add_argument("--sample_rate", type=int, required=True, help="in Hz")
    parser.add_argument("--fetch_from", help="bring what is there to data_dir instead")
    given, options = parser.parse_known_args(arguments)
    settings = Settings(
        source_dir=given.source_dir,
        data_dir=given.data_dir,
        sample_rate=given.sample_rate,
    )
    info = datasets.TABLES[given.name](settings)
    if given.fetch_from is None:
        folder = prepare.with_beam(info, settings, options)
        print(f"{len(info.clips)} files are prepared in {folder}")
    elif options:
        parser.error(f"unknown arguments: {' '.join(options)}")
    else:
        prepare.fetch(info, settings, given.fetch_from)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"audiojax: {error}")
