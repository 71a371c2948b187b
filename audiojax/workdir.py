"""What a sweep left in its folder: the one reader of it, which changes nothing."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from audiojax import checkpoint, classifier, files
from audiojax.classifier import Classifier, Variables
from audiojax.config import Config, completed
from audiojax.errors import InputError, difference, listed
from audiojax.fingerprint import Fingerprint
from audiojax.task import TASKS, Task

# Which clips it was trained on; and what was trained, also in the folder of each run.
DATA, CONFIG, RESULTS = "data.json", "config.json", "results.json"
# In the folder of each run only.
RESULT, CHECKPOINTS, METRICS = "result.json", "checkpoints", "metrics.jsonl"
TEST, VALIDATION = "predictions.npz", "validation.npz"
# What mends a run's damaged file, as long as its checkpoints are whole.
AGAIN = "type the training command again, which makes it anew from the checkpoint"

named = functools.partial(listed, between=", ")


@dataclasses.dataclass(frozen=True, order=True)
class Run:
    """One training: the fold that is tested on, and the seed of all that is random."""

    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"fold{self.fold}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What `result.json`, and `results.json` in its list, say of a finished run.

    Attributes:
        run: which.
        steps: batches seen.
        skipped_steps: updates left out because a value was not finite.
        seconds: that the training took.
        final: scores of the test clips at the end, as `Task.scores` gives them.
        raw: the same without averaging, None where the model is no average.
        best: the same after the best epoch, with its number `epoch` and its
            `validation` scores; None where no epoch was picked.
        files: sums of the run's other files, by their names; None if it was written
            by a version that made none.
    """

    run: Run
    steps: int
    skipped_steps: int
    seconds: float
    final: dict[str, Any]
    raw: dict[str, Any] | None = None
    best: dict[str, Any] | None = None
    files: dict[str, str] | None = None

    @classmethod
    def read(cls, folder: epath.Path, advice: str = AGAIN) -> Entry:
        """Reads the `result.json` of a run's folder.

        Raises:
            DamagedError: if it is.
            InputError: if a newer version of audiojax wrote it.
            FileNotFoundError, NotADirectoryError: if it is not there.
        """
        return files.read_sealed(folder / RESULT, advice, cls.from_json)

    def check_files(self, folder: epath.Path, advice: str = AGAIN) -> None:
        """Compares the run's files with their sums.

        Raises:
            DamagedError: for the first that is missing or not what was written.
        """
        for name, expected in (self.files or {}).items():
            path = folder / name
            if not path.exists():
                raise files.DamagedError(path, "is missing", advice)
            if files.sha256(path) != expected:
                raise files.DamagedError(path, files.CHANGED, advice)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Entry:
        """Reads what `to_json` gave."""
        names = {field.name for field in dataclasses.fields(cls)}
        fields = {name: content[name] for name in content if name in names}
        return cls(Run(content["fold"], content["seed"]), **fields)

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON holds it."""
        fields = {"name": self.run.name} | vars(self.run) | vars(self)
        del fields["run"]
        return {name: x for name, x in fields.items() if x is not None}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a run, or an average of runs, says of some clips.

    Attributes:
        logits: [N, classes].
        label: [N] class numbers, or [N, classes] of 0 and 1.
        filename: [N], each clip once.
    """

    logits: np.ndarray
    label: np.ndarray
    filename: np.ndarray


class Workdir:
    """A folder that a sweep filled, or is filling; here or in a bucket.

    Attributes:
        path: the folder.
        config: the sweep's whole config, as JSON holds it.
        classes: names, in the order of the logits.
        task: what labels mean.
        model: the network's name.
        entries: of the finished runs, by fold and seed.
        unfinished: the runs that the config asks for and that are not among them.
    """

    def __init__(self, path: epath.PathLike):
        """Reads `results.json`.

        Raises:
            InputError: if there is none, or it is not what a sweep writes.
        """
        self.path = epath.Path(path)
        again = "type its training command again, which writes it anew"
        try:
            results = files.read_sealed(self.path / RESULTS, again)
            self.config: dict[str, Any] = results["config"]
            self.classes: tuple[str, ...] = tuple(results["classes"])
            # Before it was written, the metric told the task.
            multi = results.get("metric") == "mAP"
            default = "multi_label" if multi else "single_label"
            self.task: Task = TASKS[results.get("task", default)]
            entries = map(Entry.from_json, results["runs"])
            self.entries = sorted(entries, key=lambda entry: entry.run)
            sweep = self.config["sweep"]
            planned = itertools.starmap(
                Run, itertools.product(sweep["folds"], sweep["seeds"])
            )
            self.unfinished = [run for run in planned if run not in self.runs]
            self.model: str = self.config["model"]["name"]
        except files.ABSENT:
            raise InputError(
                f"{self.path}: no {RESULTS}, so this is not a workdir with a finished "
                "run; give the folder that was --workdir in training"
            ) from None
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.path / RESULTS}: not what a sweep writes ({error!r}); {again}, "
                "or give another workdir"
            ) from None

    @property
    def runs(self) -> list[Run]:
        """The finished runs, by fold and seed."""
        return [entry.run for entry in self.entries]

    @property
    def folds(self) -> list[int]:
        """The folds that have a finished run, in order."""
        return sorted({run.fold for run in self.runs})

    def of_fold(self, fold: int) -> list[Run]:
        """The finished runs of a fold, by seed."""
        return [run for run in self.runs if run.fold == fold]

    def lacking(self, name: str, folds: Sequence[int]) -> list[Run]:
        """The finished runs of the folds that have no file of that name."""
        runs = [run for fold in folds for run in self.of_fold(fold)]
        return [run for run in runs if not self.file(run, name).exists()]

    def file(self, run: Run, name: str) -> epath.Path:
        """The path of a file of a run."""
        return self.path / run.name / name

    @property
    def classifier(self) -> Classifier:
        """The classifier that the runs are of.

        Raises:
            InputError: if this version can't build it.
        """
        fields = traverse_util.unflatten_dict(completed(self.config), sep=".")
        return classifier.create(as_config(fields), self.classes, self.task)

    def variables(self, run: Run, which: str = "last") -> Variables:
        """What `Classifier.logits` takes, as NumPy arrays.

        They are of the end of the training: averages, if the training kept such, and
        with "raw" those that were averaged. With "best" they are of its best epoch. A
        damaged newest checkpoint is named, and the one before it is read.

        Raises:
            InputError: if there is no whole checkpoint, or no best epoch was picked.
        """
        model = checkpoint.read_model(checkpoint.newest(self.file(run, CHECKPOINTS)))
        best, ema = model.pop("best"), model.pop("ema")
        if which != "best":
            return model if which == "raw" else {**model, **(ema or {})}
        if best is None:
            raise InputError(
                f"{self.path}: no best epoch was picked; train with "
                "config.sweep.validation set, or take the last epoch"
            )
        return best

    def predictions(self, run: Run, name: str = TEST) -> Predictions:
        """A run's predictions of its test clips, or of its validation clips.

        Raises:
            InputError: if the file is damaged, or is not such a file.
        """
        entry = next(entry for entry in self.entries if entry.run == run)
        entry.check_files(self.path / run.name)
        return read_predictions(self.file(run, name), len(self.classes))

    @property
    def origin(self) -> dict[str, Any]:
        """What it was begun with: `versions`, `device`, `git_revision`, if told.

        Raises:
            DamagedError: if the file that tells it is.
        """
        try:
            told = files.read_sealed(self.path / CONFIG, AGAIN)
        except files.ABSENT:
            return {}
        names = ("versions", "device", "git_revision")
        return {name: told[name] for name in names if told.get(name)}

    @property
    def data(self) -> Fingerprint | None:
        """What it was trained on; None if a version wrote it that did not tell.

        Raises:
            InputError: if that file is damaged.
        """
        path = self.path / DATA
        return read_data(path) if path.exists() else None


def read_data(path: epath.Path) -> Fingerprint:
    """Reads a workdir's `data.json`.

    Raises:
        DamagedError: if it is.
    """
    again = "type the training command again, which writes it anew"
    return files.read_sealed(path, again, Fingerprint.from_json)


def as_config(plain: Mapping[str, Any]) -> Config:
    """The config of a workdir as config files give it: tuples instead of lists."""
    fields = {
        name: as_config(value)
        if isinstance(value, Mapping)
        else tuple(value)
        if isinstance(value, list)
        else value
        for name, value in plain.items()
    }
    return ConfigDict(fields)


def read_predictions(path: epath.Path, num_classes: int) -> Predictions:
    """Reads an `.npz` of the fields of `Predictions`, of so many classes.

    Raises:
        InputError: if it is damaged, or is not such a file.
    """
    try:
        arrays = files.read_arrays(path)
        found = Predictions(**{n: arrays[n] for n in ("logits", "label", "filename")})
    # With one bit flipped, or cut off, NumPy and its libraries raise all kinds.
    except Exception as error:
        raise InputError(
            f"{path}: damaged ({error!r}); copy it again, or train its run again"
        ) from None
    logits, label, filename = found.logits, found.label, found.filename
    shape = (len(filename), num_classes)
    if logits.shape != shape or len(label) != len(filename) or not len(filename):
        raise InputError(
            f"{path}: damaged: logits {logits.shape} and {len(label)} labels where "
            f"{shape} and {len(filename)} were expected; train its run again"
        )
    if not np.isfinite(logits).all():
        raise InputError(
            f"{path}: logits that are not finite, the training diverged; train its "
            "run again with a lower config.optimizer.learning_rate"
        )
    clips, counts = np.unique(filename, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"{path}: clips that are there twice: {named(clips[counts > 1])}; train "
            "its run again"
        )
    return found


def aligned(
    ours: Predictions, source: object, theirs: Predictions, first: object
) -> np.ndarray:
    """A run's logits [N, classes] in another run's order of clips.

    Rows are joined by the clips' names, never by their places. `source` and `first`
    say in messages where the two were read.

    Raises:
        InputError: if the clips or their labels are not the same; those that differ
            are named.
    """
    row = {str(name): i for i, name in enumerate(ours.filename)}
    order = [str(name) for name in theirs.filename]
    if what := difference(order, list(row)):
        raise InputError(
            f"{source}: other clips than {first}; it {what}; average runs of the same "
            "data and folds"
        )
    rows = [row[name] for name in order]
    label = ours.label[rows]
    others = [
        f"{name} is {here}, there {there}"
        for name, here, there in zip(order, label, theirs.label, strict=True)
        if np.any(here != there)
    ]
    if others:
        raise InputError(
            f"{source}: other labels than {first}; {named(others)}; average runs of "
            "the same data"
        )
    return ours.logits[rows]
