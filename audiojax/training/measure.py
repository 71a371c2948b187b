"""Measures of a study that train no network: linear probes, and how networks change."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import activations, calibration, comparison, files, models, probe, study
from audiojax.classifier import Classifier, Variables
from audiojax.clips import by_clip
from audiojax.config import Config
from audiojax.datasets import Recordings
from audiojax.errors import InputError
from audiojax.training import trainer
from audiojax.training.trainer import Trainer
from audiojax.workdir import TEST, Run, Workdir

logger = logging.getLogger(__name__)

# Where what was measured is kept, in a study's workdir.
FOLDER = "measures"
# A batch's images [B, mel, frames, C], labels and clip numbers [B].
Images = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished training of a study.

    Attributes:
        trainer: that trained it.
        workdir: where it was trained.
    """

    trainer: Trainer
    workdir: Workdir

    def before(self, run: Run) -> Variables:
        """What the run began with."""
        return jax.device_get(self.trainer.initial_state(run).variables)

    def after(self, run: Run) -> Variables:
        """What it ended with."""
        return self.workdir.variables(run)

    def images(self, indices: np.ndarray) -> Iterator[Images]:
        """The clips of these numbers, batch by batch."""
        for batch in self.trainer.feed.evaluation(indices):
            real = np.asarray(batch["mask"]) > 0
            image = np.asarray(self.trainer.batch_image(batch))
            yield image[real], batch["label"][real], batch["index"][real]


def open_trained(
    config: Config, folder: epath.PathLike, recordings: Recordings
) -> Trained:
    """The training of a config in its workdir."""
    data = trainer.open_data(config, recordings)
    return Trained(Trainer(config, data), Workdir(folder))


def check_clips(classifier: Classifier, settings: study.Study) -> None:
    """Checks that the clips are enough to compare the layers of a network.

    Raises:
        InputError: if not, or for a layer that the network lacks.
    """
    layers, count = study.layers(settings, classifier.network), settings.clips
    if settings.choices == "repetition":
        count = min(count, study.REPETITION_CLIPS)
    if count:
        comparison.check_images(classifier, count, layers)


def fixed_clips(count: int, recordings: Recordings) -> np.ndarray:
    """The numbers of so many clips, evenly spread over the data set.

    Raises:
        InputError: if there are fewer.
    """
    if count > len(recordings):
        raise InputError(
            f"config.study.clips is {count}, but {recordings.info.name} has "
            f"{len(recordings)} clips; give at most so many, or 0 to compare nothing"
        )
    return np.rint(np.linspace(0, len(recordings) - 1, count)).astype(int)


def probes(trained: Trained, workdir: epath.PathLike, kind: str) -> list[dict]:
    """What a linear probe of each stage tells, of the network before its training.

    Args:
        trained: whose network it is.
        workdir: of the study, where what was found is kept.
        kind: of the points that are made.

    Returns:
        A point of `transfer.json` for each stage; none where a clip may have several
        classes, for which there is no probe.
    """
    if trained.trainer.data.info.task.name == "multi_label":
        logger.warning("no linear probes: a clip may have several classes")
        return []
    folds = {}
    for fold in trained.workdir.folds:
        run = trained.workdir.of_fold(fold)[0]
        path = epath.Path(workdir) / FOLDER / f"{kind}-{run.name}.json"
        make = functools.partial(_probe, trained, run)
        folds[fold] = _kept(path, _seen(trained, [run]), make)
    stages = models.stage_names(trained.trainer.classifier.network)
    return [_point(kind, stage, folds) for stage in stages]


def _point(kind: str, stage: str, folds: Mapping[int, Mapping[str, Any]]) -> dict:
    """The folds' probes of a stage, as a point of `transfer.json`."""
    runs = [
        {"fold": fold, "seed": None, **found["stages"][stage]}
        for fold, found in folds.items()
    ]
    values = [run["score"] for run in runs]
    counts = [found["clips"] for found in folds.values()]
    scores = {
        "metric": "accuracy",
        **study.spread(values),
        "interval": list(calibration.wilson_together(values, counts)),
        "runs": runs,
        "parameters": None,
        "flops": None,
    }
    place = {"kind": kind, "stage": stage, "training": None}
    return {**place, "scores": scores, "to_pretrained": None}


def _probe(trained: Trained, run: Run) -> dict[str, Any]:
    """Each stage's probe of a fold, and the number of its test clips."""
    built, variables = trained.trainer, trained.before(run)
    split, clips = built.feed.split(run.fold), built.data.info.clips
    (train, train_label, index), (test, test_label, _) = (
        _features(trained, variables, part) for part in (split.train, split.test)
    )
    groups = np.unique([clips[i].source for i in index], return_inverse=True)[1]
    found = {}
    for stage in train:
        fitted = probe.fit(train[stage], train_label, test[stage], test_label, groups)
        found[stage] = {"score": fitted.accuracy, "strength": fitted.strength}
    logger.info("probes of fold %d: done", run.fold)
    return {"clips": len(test_label), "stages": found}


def _features(
    trained: Trained, variables: Variables, indices: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Pooled features [N, D] of each stage, labels and clip numbers [N] of clips."""
    rows, label, index = [], [], []
    for image, labels, numbers in trained.images(indices):
        rows.append(activations.pooled(trained.trainer.classifier, variables, image))
        label.append(labels)
        index.append(numbers)
    windows = np.concatenate(label), np.concatenate(index)
    found = {
        stage: by_clip(np.concatenate([row[stage] for row in rows]), *windows)
        for stage in rows[0]
    }
    _, labels, numbers = next(iter(found.values()))
    return {stage: features for stage, (features, *_) in found.items()}, labels, numbers


def comparisons(
    trained: Trained,
    workdir: epath.PathLike,
    kind: str,
    settings: study.Study,
    clips: np.ndarray,
) -> list[dict[str, Any]]:
    """How alike a network is before and after its training, and with two seeds.

    Args:
        trained: whose network it is.
        workdir: of the study, where what was found is kept.
        kind: what the network begins with, such as "pretrained".
        settings: of the study.
        clips: numbers of those in which networks are compared; the repetition takes a
            batch of the test fold.

    Returns:
        Of each comparison its `name`, `fold` and `seed`, and as `comparison.Comparison`
        its `layers`, `cka`, `change` and, as "svcca" or "cca", its correlations; or the
        `problem` that it has.
    """
    names = study.layers(settings, trained.trainer.classifier.network)
    if not settings.clips or not names:
        return []
    measure, found = study.MEASURE[settings.choices], []

    @functools.lru_cache(maxsize=1)
    def images(numbers: tuple[int, ...]) -> np.ndarray:
        batches = trained.images(np.array(numbers))
        return np.concatenate([image for image, *_ in batches])

    for what, (first, of_first), (other, of_other) in _pairs(trained):
        numbers = tuple(clips.tolist())
        if settings.choices == "repetition":
            test = trained.trainer.feed.split(other.fold).test
            numbers = tuple(test[: study.REPETITION_CLIPS].tolist())
        asked = {
            **_seen(trained, [first, other]),
            "clips": len(numbers),
            "layers": list(names),
        }

        def compare(of=(first, of_first, other, of_other), numbers=numbers):
            sides = of[1](of[0]), of[3](of[2])
            return _compare(trained, *sides, images(numbers), names, measure)

        path = epath.Path(workdir) / FOLDER / f"{kind}-{what}-{other.name}.json"
        told = {"name": f"{kind}, {NAMES[what]}", "fold": other.fold}
        row = {**told, "seed": other.seed, **_kept(path, asked, compare)}
        if "problem" in row:
            logger.warning("%s, %s: %s", told["name"], other.name, row["problem"])
        found.append(row)
    return found


NAMES = {"trained": "before and after", "seeds": "two seeds"}
Side = tuple[Run, Callable[[Run], Variables]]


def _pairs(trained: Trained) -> Iterator[tuple[str, Side, Side]]:
    """What is compared: each run's beginning and end, and the first seed's end."""
    for fold in trained.workdir.folds:
        first, *others = runs = trained.workdir.of_fold(fold)
        for run in runs:
            yield "trained", (run, trained.before), (run, trained.after)
        for run in others:
            yield "seeds", (first, trained.after), (run, trained.after)


def _compare(
    trained: Trained,
    before: Variables,
    after: Variables,
    images: np.ndarray,
    names: Sequence[str],
    measure: str,
) -> dict[str, Any]:
    """The comparison as JSON holds it; features may have nothing to compare."""
    try:
        found = comparison.compare(
            trained.trainer.classifier, before, after, images, names, measure
        )
    except InputError as error:
        return {"layers": list(names), "problem": str(error)}
    return {
        "layers": list(names),
        "cka": found.cka.tolist(),
        measure: found.correlation.tolist(),
        "change": found.change.tolist(),
    }


def _seen(trained: Trained, runs: Sequence[Run]) -> dict[str, Any]:
    """What tells runs from others of their name: the sums of what they predicted."""
    sums = {entry.run: entry.files for entry in trained.workdir.entries}
    return {"runs": [(sums[run] or {}).get(TEST) for run in runs]}


def _kept(
    path: epath.Path, asked: Mapping[str, Any], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What the file holds, if it was asked for the same; else it is made and kept."""
    with contextlib.suppress(files.DamagedError, *files.ABSENT):
        held = files.read_sealed(path, "it is made anew")
        if held["asked"] == asked:
            return held["found"]
    found = make()
    files.write_sealed(path, {"asked": asked, "found": found})
    return found
