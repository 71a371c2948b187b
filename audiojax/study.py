"""What pretraining is worth: the trainings of a study, and what they are worth.

A study is the analysis of Palanisamy, Singhania, Yao 2020 (arXiv 2007.11154): a network
trained from pretrained and from random weights, with stages frozen, drawn anew or left
out. `training/study.py` trains it; here is what it consists of and how it is read.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from audiojax import command, files, models, summary
from audiojax.classifier import Classifier
from audiojax.errors import InputError, check_choice
from audiojax.models import Network
from audiojax.workdir import Workdir

# What a study's workdir holds beside the workdirs of its trainings.
TRANSFER, TABLE = "transfer.json", "transfer.csv"

# Fields of `config.model` for each kind of training, beside the stage. The others are
# as the config has them, which tells of each what it does.
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "ours": {"freeze": {}, "fusion": {}, "cutoff": {}},
    "repetition": {
        "freeze": {"update_batch_norm": True},
        "fusion": {"keep_batch_norm": True, "he_fan_out": True},
        "cutoff": {},
    },
}
# The field of `config.model` that names the stage, for each kind.
FIELDS = {"freeze": "freeze", "fusion": "reinitialize", "cutoff": "cut"}
# What each kind does, after which the stage is named.
SAYING = {
    "freeze": "frozen up to",
    "fusion": "drawn anew from",
    "cutoff": "cut before",
    "probe": "probe of",
    "random_probe": "probe, random, of",
}


# Of each choice, what correlates the same layers (`comparison.MEASURES`).
MEASURE = {"ours": "svcca", "repetition": "cca"}
# Clips of the test fold in which the repetition compares networks: one batch.
REPETITION_CLIPS = 32


@dataclasses.dataclass(frozen=True)
class Study:
    """What is studied; the fields of `config.study`.

    Attributes:
        stages: the stages X, in the network's order; empty for all of them.
        choices: how it is done, a key of `CHOICES`: "ours", or as the one published
            "repetition" of the paper did it, to compare with its numbers.
        clips: in how many clips, evenly spread over the data set, networks are compared
            before and after training; 0: they are not.
        layers: layers inside of stages in which they are compared beside all stages,
            such as "denseblock1.denselayer2.conv2" (see `models.capture`).
    """

    stages: tuple[str, ...] = ()
    choices: str = "ours"
    clips: int = 400
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        """Checks the choice and the number."""
        check_choice("config.study.choices", self.choices, CHOICES)
        if self.clips < 0:
            raise InputError(
                f"config.study.clips is {self.clips}; give a number of clips, or 0"
            )


@dataclasses.dataclass(frozen=True)
class Point:
    """A training of a study.

    Attributes:
        kind: "pretrained", "random", or a key of `FIELDS`.
        stage: the stage X; None where the network is not modified.
        model: fields of `config.model` in which it differs from the others.
    """

    kind: str
    stage: str | None
    model: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.kind if self.stage is None else f"{self.kind}={self.stage}"


def points(study: Study, network: Network) -> list[Point]:
    """The trainings of a study, the unmodified network first.

    Nothing is left to train if it is cut before its first stage, so there is no such
    one.

    Args:
        study: what is asked for.
        network: whose stages they are.

    Raises:
        InputError: if the network lacks a stage, or one is named twice.
    """
    stages = models.stage_names(network)
    for stage in study.stages:
        if stage not in stages or study.stages.count(stage) > 1:
            what = "twice" if stage in stages else "which the network lacks"
            raise InputError(
                f"config.study.stages names {stage!r}, {what}; choose some of "
                f"{', '.join(stages)}, each once, or none for all of them"
            )
    chosen = sorted(study.stages, key=stages.index) or stages
    found = [Point("pretrained", None, {}), Point("random", None, {"pretrained": None})]
    for kind, fields in CHOICES[study.choices].items():
        found += [
            Point(kind, stage, {FIELDS[kind]: stage, **fields})
            for stage in chosen
            if (kind, stage) != ("cutoff", stages[0])
        ]
    return found


def layers(study: Study, network: Network) -> tuple[str, ...]:
    """Where networks are compared: all stages, each after the layers inside of it.

    Layers that are in no stage come last, for `models.capture` to name. The repetition
    compares layers alone.
    """
    if study.choices == "repetition":
        return study.layers
    found: list[str] = []
    for stage in models.stage_names(network):
        found += [name for name in study.layers if name.startswith(f"{stage}.")]
        found.append(stage)
    return (*found, *(name for name in study.layers if name not in found))


def scores(workdir: epath.PathLike) -> dict[str, Any] | None:
    """What the finished runs of one training are worth; None if there are none.

    Returns:
        The task's `metric`; `runs`, each with its `fold`, `seed` and `score` by that;
        their `mean`, standard deviation `std` (of the population) and number `count`;
        `interval`, 95 % of the mean, over all test clips together; and what `size`
        gives.
    """
    opened = Workdir(workdir)
    if not opened.entries:
        return None
    found = summary.folds(opened)
    table = summary.table(found, opened)
    runs = [
        {"fold": fold.fold, "seed": seed, "score": score}
        for fold, row in zip(found, table, strict=False)
        for seed, score in row["seeds"]
    ]
    values = [run["score"] for run in runs]
    return {
        "metric": opened.task.metric,
        **spread(values),
        "interval": list(table[-1]["single"].interval),
        "runs": runs,
        **size(opened.classifier),
    }


@functools.cache
def _size(network: Any, image_shape: tuple[int, ...]) -> dict[str, Any]:
    image = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    init = functools.partial(network.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    run = functools.partial(network.apply, train=False)
    cost: Any = jax.jit(run).lower(variables, image).cost_analysis()
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {"parameters": count, "flops": cost["flops"]}


def size(classifier: Classifier) -> dict[str, Any]:
    """The number of `parameters`, and by XLA's count the `flops` of one image."""
    network: Any = classifier.network  # by its annotations it has no hash
    return _size(network, classifier.image_shape)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (of the population) and number of values."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
        "count": len(values),
    }


def beside(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any] | None:
    """How much better the runs are than those of the same fold and seed there.

    Folds differ in how hard they are; the differences of pairs do not vary by that.

    Returns:
        As `spread`; None if there is no pair.
    """
    there = {(run["fold"], run["seed"]): run["score"] for run in theirs["runs"]}
    pairs = [(run["fold"], run["seed"], run["score"]) for run in ours["runs"]]
    gains = [s - there[f, seed] for f, seed, s in pairs if (f, seed) in there]
    return spread(gains) if gains else None


def read(workdir: epath.PathLike) -> dict[str, Any]:
    """Reads a study's `transfer.json`.

    Raises:
        DamagedError: if it is.
        FileNotFoundError, NotADirectoryError: if it is not there.
    """
    advice = "type the study's command again, which writes it anew"
    return files.read_sealed(epath.Path(workdir) / TRANSFER, advice)


def as_csv(study: Mapping[str, Any]) -> str:
    """Every score of a `transfer.json`, a line each."""
    buffer = io.StringIO()
    names = ("kind", "stage", "fold", "seed", study["metric"])
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for point in study["points"]:
        for run in (point["scores"] or {"runs": []})["runs"]:
            cells = run["fold"], run["seed"], run["score"]
            writer.writerow([point["kind"], point["stage"] or "", *cells])
    return buffer.getvalue()


def table(study: Mapping[str, Any]) -> str:
    """The trainings of a `transfer.json` and their scores as lines of text."""
    rows = [["", "runs", study["metric"], "std", "95 %", "to pretrained"]]
    for point in study["points"]:
        name = point["kind"]
        if point["stage"] is not None:
            name = f"{SAYING[name]} {point['stage']}"
        found, beside = point["scores"], point["to_pretrained"]
        if found is None:
            rows.append([name, "0", *["no run yet"], "", "", ""])
            continue
        low, high = (f"{100 * end:.1f}" for end in found["interval"])
        gain = "" if beside is None else f"{100 * beside['mean']:+.2f}"
        rows.append(
            [
                name,
                str(found["count"]),
                f"{100 * found['mean']:.2f}",
                f"{100 * found['std']:.2f}",
                f"{low} to {high}",
                gain,
            ]
        )
    return command.columns(rows)
