"""ESC-50 and its subset ESC-10: five-second clips of sounds around us, in five folds.

K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia
2015, https://doi.org/10.1145/2733373.2806390. Any folder of the same layout can be
read: `meta/esc50.csv` and the files it names in `audio/`.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from audiojax.datasets import audio, download, folders
from audiojax.datasets.recordings import Clip, Info, Recordings, Settings, listed
from audiojax.errors import InputError

logger = logging.getLogger(__name__)

COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
FOLDS = range(1, 6)
NUM_CLASSES = {"esc50": 50, "esc10": 10}

# The last revision. Its sum is the one that several public projects note for this file.
RELEASE = download.Archive(
    name="ESC-50-33c8ce9eb2cf",
    url="https://github.com/karolpiczak/ESC-50/archive/"
    "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6.zip",
    sha256="661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
    size=645_832_161,
)
# Freesound recordings of which the release has clips in two folds each, against its own
# rule; as all published results use those folds, they stay as they are.
SHARED_SOURCES = ("131943", "134049", "209698", "234879")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of `meta/esc50.csv`, in the columns' own words."""

    filename: str
    fold: int
    target: int
    category: str
    esc10: bool
    src_file: str
    take: str


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of one data set and the folder they belong to."""

    name: str
    source_dir: Path
    rows: tuple[Row, ...]

    @property
    def classes(self) -> dict[int, str]:
        """Category by target, in the targets' order: labels count these."""
        return dict(sorted({row.target: row.category for row in self.rows}.items()))

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The rows as every data set gives them, labels from 0 without gaps."""
        labels = {target: label for label, target in enumerate(self.classes)}
        return tuple(
            Clip(row.filename, (labels[row.target],), row.fold, row.src_file)
            for row in self.rows
        )

    def path(self, row: Row) -> Path:
        """Where the row's sound file lies."""
        return self.source_dir / "audio" / row.filename

    def key(self, sample_rate: int) -> str:
        """Changes with the rows, with the files' sizes and times, and with the rate."""
        stats = [self.path(row).stat() for row in self.rows]
        content = [
            str(Esc50.VERSION),
            self.name,
            sample_rate,
            [dataclasses.astuple(row) for row in self.rows],
            [(stat.st_size, stat.st_mtime_ns) for stat in stats],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def read_table(name: str, source_dir: Path) -> Table:
    """Reads `meta/esc50.csv` and checks every row, before any audio is read.

    Args:
        name: "esc50" for all rows, "esc10" for those whose `esc10` is True.
        source_dir: the folder with `meta/` and `audio/`.

    Raises:
        InputError: one for all faulty rows together.
    """
    path = source_dir / "meta" / "esc50.csv"
    if not source_dir.is_dir():
        raise InputError(f"source_dir {source_dir} is not a folder; give ESC-50's")
    if not path.is_file():
        raise InputError(
            f"{source_dir} has no meta/esc50.csv; give the folder that holds ESC-50's "
            "meta/ and audio/ as source_dir"
        )
    table = Table(name, source_dir, tuple(_read_rows(path, source_dir)))
    if name == "esc10":
        rows = tuple(row for row in table.rows if row.esc10)
        table = dataclasses.replace(table, rows=rows)
    if not table.rows:
        raise InputError(f"{path} has no rows for {name}")
    found, whole = len(table.classes), NUM_CLASSES[name]
    if found != whole:
        logger.info(
            "%s holds %d clips of %d classes, not all %d of %s: labels count those %d",
            *(path, len(table.rows), found, whole, name, found),
        )
    return table


def _read_rows(path: Path, source_dir: Path) -> list[Row]:
    """All rows of the CSV, or one error for all that is wrong with them."""
    rows, problems = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            missing = [c for c in COLUMNS if c not in (lines.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path} lacks the columns {', '.join(missing)}; expected "
                    f"{', '.join(COLUMNS)}"
                )
            for fields in lines:
                try:
                    rows.append(_parse(fields))
                except ValueError as error:
                    problems.append(f"line {lines.line_num}: {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file ({error})") from error
    problems += _contradictions(rows)
    problems += [
        f"{row.filename} is not in {source_dir / 'audio'}"
        for row in rows
        if not (source_dir / "audio" / row.filename).is_file()
    ]
    if problems:
        raise InputError(f"{path} has {len(problems)} faults: {listed(problems)}")
    return rows


def _parse(fields: dict[str, str | None]) -> Row:
    """One row of the CSV; a ValueError says what is wrong with it."""
    text: dict[str, str] = {}
    for column in COLUMNS:
        value = fields[column]
        if not value:
            raise ValueError(f"{column} is missing")
        text[column] = value
    if text["fold"] not in map(str, FOLDS):
        raise ValueError(f"fold is {text['fold']!r}, not one of 1 to 5")
    if not (text["target"].isascii() and text["target"].isdigit()):
        raise ValueError(f"target is {text['target']!r}, not a class number")
    if text["esc10"] not in ("True", "False"):
        raise ValueError(f"esc10 is {text['esc10']!r}, not True or False")
    name = PurePosixPath(text["filename"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f"filename {text['filename']!r} leaves the folder audio/")
    return Row(
        filename=str(name),
        fold=int(text["fold"]),
        target=int(text["target"]),
        category=text["category"],
        esc10=text["esc10"] == "True",
        src_file=text["src_file"],
        take=text["take"],
    )


def _contradictions(rows: list[Row]) -> list[str]:
    """File names that come twice, and classes with two names or two numbers."""
    names = collections.Counter(row.filename for row in rows)
    problems = [f"{name} comes {n} times" for name, n in names.items() if n > 1]
    pairs = {(row.target, row.category) for row in rows}
    for column, other in ((0, 1), (1, 0)):
        of_one = collections.defaultdict(list)
        for pair in sorted(pairs):
            of_one[pair[column]].append(str(pair[other]))
        problems += [
            f"{COLUMNS[2 + column]} {value} stands for {' and '.join(values)}"
            for value, values in of_one.items()
            if len(values) > 1
        ]
    return problems


class Esc50(tfds.core.GeneratorBasedBuilder):
    """Stores the clips of a table as mono 16-bit samples, fold by fold.

    TensorFlow Datasets' `Audio` feature would leave an array in 64-bit integers, four
    times the size and slow to parse; `Tensor` stores its bytes, so reading a clip costs
    little more than a copy.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 - its base class declares it so
        tfds.core.BuilderConfig(name="esc50", description="2000 clips of 50 classes"),
        tfds.core.BuilderConfig(name="esc10", description="400 clips of 10 classes"),
    ]

    def __init__(self, *, table: Table, sample_rate: int, data_dir: Path):
        """Builds nothing yet.

        Args:
            table: the clips; its name chooses the config.
            sample_rate: to store them at, in Hz.
            data_dir: where to store them.
        """
        self.table, self.sample_rate = table, sample_rate
        self._stored: dict[str, dict] = {}
        super().__init__(config=table.name, data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "audio": tfds.features.Tensor(
                    shape=(None,), dtype=np.int16, encoding="bytes"
                ),
                "label": tfds.features.ClassLabel(
                    names=list(self.table.classes.values())
                ),
                "filename": tfds.features.Text(),
                "fold": tfds.features.Scalar(np.int32),
                "src_file": tfds.features.Text(),
                "take": tfds.features.Text(),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Environmental sounds, mono, 16 bits.",
            features=features,
            homepage="https://github.com/karolpiczak/ESC-50",
            disable_shuffling=True,  # a clip is found again by its place in its fold
            metadata=tfds.core.MetadataDict(
                sample_rate=self.sample_rate, clips=self._stored
            ),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # the table's folder is there already
        folds = sorted({row.fold for row in self.table.rows})
        return {f"fold{fold}": self._generate_examples(fold) for fold in folds}

    def _generate_examples(self, fold: int) -> Iterator[tuple[int, dict]]:
        rows = [row for row in self.table.rows if row.fold == fold]
        clips = audio.in_parallel(self._read, rows)
        bar = tqdm(
            zip(rows, clips, strict=True),
            total=len(rows),
            desc=f"{self.table.name} fold {fold}",
            unit=" clips",
            disable=None,
        )
        for place, (row, samples) in enumerate(bar):
            self._stored[row.filename] = {
                "num_samples": len(samples),
                "sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
            }
            yield (
                place,
                {
                    "audio": samples,
                    "label": row.category,
                    "filename": row.filename,
                    "fold": row.fold,
                    "src_file": row.src_file,
                    "take": row.take,
                },
            )

    def _read(self, row: Row) -> np.ndarray:
        return audio.read(self.table.path(row), self.sample_rate)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow Datasets without its notes and bars; errors come as ever."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.WARNING)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        absl.logging.set_verbosity(verbosity)


def _open(table: Table, sample_rate: int, folder: Path) -> Esc50:
    """The prepared builder; the clips are decoded on the first call only.

    TensorFlow Datasets writes to a folder of another name and renames it at the end, so
    what a killed process leaves is never taken for the whole; it is cleared away here.
    """
    with folders.locked(folder):
        with _quiet():
            builder = Esc50(table=table, sample_rate=sample_rate, data_dir=folder)
        if not builder.data_path.exists():
            logger.info("preparing %d clips in %s", len(table.rows), folder)
            shutil.rmtree(folder, ignore_errors=True)
            _prepare(builder)
    return builder


def _prepare(builder: Esc50) -> None:
    """Decodes and stores all clips, or raises one error for all that can't be."""
    try:
        with _quiet():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                file_format="array_record",
            )
    except InputError as error:
        # It names the first clip alone; the user wants to know of all of them.
        paths = [builder.table.path(row) for row in builder.table.rows]
        problems = audio.problems(paths, builder.sample_rate) or [str(error)]
        raise InputError(
            f"{len(problems)} of {len(paths)} sound files can't be used: "
            f"{listed(problems)}"
        ) from None


def load(name: str, settings: Settings) -> Recordings:
    """Opens ESC-50 or ESC-10, preparing it on the first call.

    Args:
        name: "esc50" or "esc10".
        settings: source_dir is the folder with `meta/` and `audio/`, or None to
            download it.

    Raises:
        InputError: for a source that is missing or faulty, with all that is wrong.
    """
    store, sample_rate = folders.data_dir(settings.data_dir), settings.sample_rate
    if settings.source_dir is None:
        source = download.fetch(RELEASE, store)
    else:
        source = Path(settings.source_dir).expanduser()
    table = read_table(name, source)
    folder = store / f"{name}-{sample_rate}Hz-{table.key(sample_rate)}"
    builder = _open(table, sample_rate, folder)
    with _quiet():
        sources = builder.as_data_source()
    metadata = builder.info.metadata
    assert metadata is not None
    return _recordings(table, sample_rate, metadata["clips"], sources)


def _recordings(table: Table, sample_rate: int, stored: dict, sources) -> Recordings:
    places, used = [], collections.Counter()
    for row in table.rows:
        places.append((sources[f"fold{row.fold}"], used[row.fold]))
        used[row.fold] += 1

    def read(index: int) -> np.ndarray:
        source, place = places[index]
        samples = source[place]["audio"]
        return samples.astype(np.float32) / np.float32(audio.FULL_SCALE)

    clips, classes = table.clips, tuple(table.classes.values())
    content = [
        sample_rate,
        classes,
        [dataclasses.astuple(clip) for clip in clips],
        [stored[clip.filename]["sha256"] for clip in clips],
    ]
    shared = [
        source
        for source in SHARED_SOURCES
        if len({clip.fold for clip in clips if clip.source == source}) > 1
    ]
    return Recordings(
        info=Info(table.name, classes, sample_rate, clips, tuple(shared)),
        fingerprint=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        lengths=np.array([stored[clip.filename]["num_samples"] for clip in clips]),
        read=read,
    )
