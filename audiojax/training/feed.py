"""What feeds a training: the clips of its runs and their batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from audiojax.clips import ClipPolicy
from audiojax.datasets import Info, Recordings, batches, parts
from audiojax.datasets import balance as balances
from audiojax.datasets.parts import Split
from audiojax.training.hosts import Hosts

Batch = dict[str, np.ndarray]


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


class Feed:
    """The batches of runs: this process's rows of them."""

    def __init__(
        self,
        data: Data,
        policy: ClipPolicy,
        hosts: Hosts,
        *,
        batch_size: int,
        validation: str | None,
        balance: str,
        allow_leaks: bool,
    ):
        """Reads nothing yet.

        Args:
            data: the clips.
            policy: how they become rows.
            hosts: the processes that share each batch.
            batch_size: rows of a batch, of all processes together.
            validation: what is held out, see `parts.split`.
            balance: one of `balance.BALANCES`.
            allow_leaks: see `parts.split`.
        """
        self._data, self._policy, self._hosts = data, policy, hosts
        self._batch_size, self._balance = batch_size, balance
        self._validation, self._allow_leaks = validation, allow_leaks
        # By fold: every seed of it has the same.
        self._splits: dict[int, Split] = {}

    def split(self, fold: int) -> Split:
        """The clips of the runs that are tested on the fold.

        Raises:
            InputError: as `parts.split`.
        """
        if fold not in self._splits:
            self._splits[fold] = parts.split(
                self._data.info, fold, self._validation, allow_leaks=self._allow_leaks
            )
        return self._splits[fold]

    def steps_per_epoch(self, fold: int) -> int:
        """Batches of an epoch; runs side by side must have as many."""
        train = self.split(fold).train
        return batches.num_batches(len(train), self._batch_size)

    def train(self, fold: int, seed: int, epoch: int, start: int) -> Iterable[Batch]:
        """Batches of an epoch, without its first `start`."""
        size = self._batch_size // self._hosts.count
        first = self._hosts.index * size
        train = self.split(fold).train
        balance, weights = self._balance, None
        if balance != "none":
            labels = [self._data.info.clips[i].labels for i in train]
            weights = balances.clip_weights(labels, self._data.info.num_classes)
        stream = batches.train_batches(
            self._data.recordings,
            train,
            batch_size=self._batch_size,
            policy=self._policy,
            seed=seed,
            epoch=epoch,
            start=start,
            rows=slice(first, first + size),
            image=self._data.images,
            weights=weights if balance == "sampling" else None,
        )
        if balance != "class_weights":
            return stream
        of_clip = np.zeros(len(self._data.recordings), np.float32)
        of_clip[train] = weights
        return ({**batch, "weight": of_clip[batch["index"]]} for batch in stream)

    def evaluation(self, indices: np.ndarray) -> Iterator[Batch]:
        """Batches of the clips `indices` in their order."""
        return batches.eval_batches(
            self._data.recordings,
            indices,
            batch_size=self._batch_size,
            policy=self._policy,
            image=self._data.images,
        )
