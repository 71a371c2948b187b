"""What feeds a training: the clips of its runs and their batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from audiojax.classifier import Classifier
from audiojax.clips import ClipPolicy
from audiojax.datasets import Info, Recordings, batches, parts
from audiojax.datasets import balance as balances
from audiojax.datasets.parts import Split
from audiojax.datasets.store import images
from audiojax.errors import InputError
from audiojax.training.hosts import Hosts

Batch = dict[str, np.ndarray]

STAGES = ("spectrogram", "audio")


def check_stage(stage: str) -> None:
    """Checks where images are made.

    Raises:
        InputError: if it is not one of `STAGES`.
    """
    if stage not in STAGES:
        raise InputError(
            f"config.data.stage is {stage!r}; choose spectrogram (each image is made "
            "once) or audio (images are made in the training step)"
        )


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run reads.

    Attributes:
        recordings: all clips, by number.
        images: [N, mel, frames, C] by clip number in the stage "spectrogram", None in
            the stage "audio".
    """

    recordings: Recordings
    images: np.ndarray | None

    @property
    def info(self) -> Info:
        """Names, classes and folds."""
        return self.recordings.info


def open_data(
    recordings: Recordings,
    classifier: Classifier,
    *,
    stage: str,
    batch_size: int,
    cache_dir: str | None,
) -> Data:
    """The data in the form that the stage asks for.

    Images are those of the classifier; they are made in batches of that size, and kept
    in the folder, or where None is taken for it.

    Raises:
        InputError: for an unknown stage, or recordings at another rate than the
            classifier's.
    """
    check_stage(stage)
    info, rate = recordings.info, classifier.log_mel.sample_rate
    if info.sample_rate != rate:
        raise InputError(
            f"{info.name} is at {info.sample_rate} Hz, but "
            f"config.features.sample_rate is {rate}; make them the same"
        )
    if stage == "audio":
        return Data(recordings, images=None)
    cached = images.image_cache(
        recordings,
        key=repr(classifier.log_mel),
        shape=classifier.image_shape,
        compute=jax.jit(classifier.batch_image),
        policy=classifier.clip_policy,
        batch_size=batch_size,
        cache_dir=cache_dir,
    )
    return Data(recordings, cached)


@dataclasses.dataclass(frozen=True)
class Feed:
    """The batches of runs: this process's rows of them.

    Attributes:
        data: the clips.
        policy: how they become rows.
        hosts: the processes that share each batch.
        batch_size: rows of a batch, of all processes together.
        validation: what is held out, see `parts.split`.
        balance: one of `balance.BALANCES`.
        allow_leaks: see `parts.split`.
        clean_copy: see `batches.train_batches`.
    """

    data: Data
    policy: ClipPolicy
    hosts: Hosts
    batch_size: int
    validation: str | None
    balance: str
    allow_leaks: bool
    clean_copy: bool = False
    # By fold: every seed of it has the same.
    _splits: dict[int, Split] = dataclasses.field(default_factory=dict)

    def split(self, fold: int) -> Split:
        """The clips of the runs that are tested on the fold.

        Raises:
            InputError: as `parts.split`.
        """
        if fold not in self._splits:
            self._splits[fold] = parts.split(
                self.data.info, fold, self.validation, allow_leaks=self.allow_leaks
            )
        return self._splits[fold]

    def epoch_size(self, fold: int) -> int:
        """Rows of an epoch that count."""
        return len(self.split(fold).train) * (2 if self.clean_copy else 1)

    def steps_per_epoch(self, fold: int) -> int:
        """Batches of an epoch; runs side by side must have as many."""
        return batches.num_batches(self.epoch_size(fold), self.batch_size)

    def train(self, fold: int, seed: int, epoch: int, start: int) -> Iterable[Batch]:
        """Batches of an epoch, without its first `start`."""
        size = self.batch_size // self.hosts.count
        first = self.hosts.index * size
        train, weights = self.split(fold).train, None
        if self.balance != "none":
            labels = [self.data.info.clips[i].labels for i in train]
            weights = balances.clip_weights(labels, self.data.info.num_classes)
        stream = batches.train_batches(
            self.data.recordings,
            train,
            batch_size=self.batch_size,
            policy=self.policy,
            seed=seed,
            epoch=epoch,
            start=start,
            rows=slice(first, first + size),
            image=self.data.images,
            weights=weights if self.balance == "sampling" else None,
            clean_copy=self.clean_copy,
        )
        if self.balance != "class_weights":
            return stream
        of_clip = np.zeros(len(self.data.recordings), np.float32)
        of_clip[train] = weights
        return ({**batch, "weight": of_clip[batch["index"]]} for batch in stream)

    def evaluation(self, indices: np.ndarray) -> Iterator[Batch]:
        """Batches of the clips `indices` in their order."""
        return batches.eval_batches(
            self.data.recordings,
            indices,
            batch_size=self.batch_size,
            policy=self.policy,
            image=self.data.images,
        )
