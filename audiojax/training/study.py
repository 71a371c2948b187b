"""What pretraining is worth: trains a study's networks, and measures them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from etils import epath

from audiojax import classifier as classifiers
from audiojax import config as configs
from audiojax import drawings, figures, files, models, study
from audiojax import task as tasks
from audiojax.classifier import Classifier
from audiojax.config import Config
from audiojax.datasets import Recordings
from audiojax.errors import InputError
from audiojax.study import FIELDS, TABLE, TRANSFER, Point, Study
from audiojax.training import grid, hosts, measure, results, sweep
from audiojax.workdir import RESULTS


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a study trains.

    Attributes:
        config: that of the unmodified network, without `study`.
        study: what is studied.
        stages: of the network, without the head.
        points: what is studied, each with the name of the folder of its training.
            Points that are the same training have the same, that of the first of them.
    """

    config: Config
    study: Study
    stages: tuple[str, ...]
    points: Sequence[tuple[Point, str]]

    def configs(self, workdir: epath.PathLike) -> dict[str, Config]:
        """The config of each training, by its folder in the workdir."""
        return {
            str(epath.Path(workdir) / point.name): _at(self.config, point)
            for point, folder in self.points
            if point.name == folder
        }


def _at(config: Config, point: Point) -> Config:
    return configs.at(config, {f"model.{name}": x for name, x in point.model.items()})


def plan(config: Config) -> Plan:
    """The study that a config with `study` describes.

    Raises:
        InputError: if it has none, its network is not the whole pretrained one, or as
            `study.points`, `measure.check_clips`, `classifier.create` and
            `classifier.frozen_stages`.
    """
    if "study" not in config:
        raise InputError(
            "the config has no field study, which says what is studied; give a config "
            "such as configs/study_esc10.py"
        )
    base = config.copy_and_resolve_references().unlock()
    settings = Study(**base.study)
    del base["study"]
    model = base.lock().model
    if model.pretrained is None:
        raise InputError(
            "config.model.pretrained is None; a study compares random weights with "
            "pretrained ones, so give it imagenet or a .safetensors file"
        )
    for field in FIELDS.values():
        if model[field] is not None:
            raise InputError(
                f"config.model.{field} is {model[field]!r}, but a study sets it to "
                "each stage itself; leave it None, and name stages in "
                "config.study.stages"
            )
    classifier, _ = _training(base)
    network = classifier.network
    measure.check_clips(classifier, settings)
    found: list[tuple[Point, str]] = []
    known: list[tuple[Any, str]] = []
    for point in study.points(settings, network):
        ours = _training(_at(base, point))
        same = next((name for theirs, name in known if theirs == ours), point.name)
        known.append((ours, same))
        found.append((point, same))
    return Plan(base, settings, models.stage_names(network), found)


def _training(config: Config) -> tuple[Classifier, tuple[str, ...]]:
    """What is trained and which stages are frozen, equal for equal trainings."""
    classifier = classifiers.create(config, ("one", "other"), tasks.of(False))
    network = classifier.network
    frozen = classifiers.frozen_stages(config, network)
    stages = tuple(models.stage_paths(network))
    if classifier.new_stages == stages and not classifier.keep_batch_norm:
        # Nothing of the weights is left.
        classifier = dataclasses.replace(classifier, weights=None, new_stages=())
    return classifier, frozen


def train(
    config: Config,
    workdir: epath.PathLike,
    *,
    recordings: Recordings | None = None,
) -> dict[str, Any]:
    """Trains every network of a study that is not trained yet, and measures them.

    Each training is in a folder of its own in the workdir, which is a workdir like any
    other. Several processes may be given the same workdir, and recordings stand for
    what `config.data` names, as in `sweep.train`.

    Returns:
        What `transfer.json` holds, which is renewed after every training: the
        `points`, each with its `kind`, `stage`, the folder of its `training`, its
        `scores` as `study.scores` gives them, and, as `to_pretrained`, how they are
        beside those of the unmodified network, see `study.beside`. At the end come the
        `points` of `measure.probes`, and `similarity` as `measure.comparisons` gives
        it.

    Raises:
        InputError: as `plan`, `measure.fixed_clips`, `grid.check_all` and
            `sweep.train`.
    """
    planned = plan(config)
    at = planned.configs(workdir)
    grid.check_all(at, named=recordings is None)
    recordings = sweep.load(planned.config) if recordings is None else recordings
    clips = measure.fixed_clips(planned.study.clips, recordings)
    grid.train_all(at, lambda: _write(planned, workdir), recordings)
    probes, comparisons = [], []
    for kind, probe in (("pretrained", "probe"), ("random", "random_probe")):
        folder = str(epath.Path(workdir) / kind)
        trained = measure.open_trained(at[folder], folder, recordings)
        probes += measure.probes(trained, workdir, probe)
        of = workdir, kind, planned.study, clips
        comparisons += measure.comparisons(trained, *of)
    return _write(planned, workdir, probes, comparisons)


def _write(
    planned: Plan,
    workdir: epath.PathLike,
    probes: Sequence[dict[str, Any]] = (),
    comparisons: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    found = collect(planned, workdir)
    found["points"] += probes
    found["similarity"] = list(comparisons)
    if hosts.everyone().first:
        folder = epath.Path(workdir)
        files.write_sealed(folder / TRANSFER, found)
        files.write_bytes(folder / TABLE, study.as_csv(found).encode())
        for drawing in drawings.drawings(found):
            figures.save_png(drawing.figure, folder / f"{drawing.name}.png")
    return found


def collect(planned: Plan, workdir: epath.PathLike) -> dict[str, Any]:
    """What `transfer.json` holds, of the runs that are finished."""
    folder = epath.Path(workdir)
    scores = {
        name: study.scores(folder / name)
        for _, name in planned.points
        if (folder / name / RESULTS).exists()
    }
    pretrained = scores.get("pretrained")
    rows = []
    for point, name in planned.points:
        ours = scores.get(name)
        rows.append(
            {
                "kind": point.kind,
                "stage": point.stage,
                "training": name,
                "scores": ours,
                "to_pretrained": ours and pretrained and study.beside(ours, pretrained),
            }
        )
    metrics = [found["metric"] for found in scores.values() if found]
    return {
        "config": results.plain(planned.config),
        "study": dataclasses.asdict(planned.study),
        "model": planned.config.model.name,
        "stages": list(planned.stages),
        "metric": metrics[0] if metrics else "score",
        "points": rows,
    }
