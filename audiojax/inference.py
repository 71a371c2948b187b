"""The runs of one classifier, applied to sounds that are read as streams."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from etils import epath

from audiojax import clips, sounds, task
from audiojax.classifier import Classifier, Variables
from audiojax.errors import InputError
from audiojax.sounds import Content

# Rows that the network sees at once; the last batch is filled up, so that nothing is
# compiled twice.
BATCH_SIZE = 8

# A sound file, or an array [T] or [T, channels] with its rate in Hz.
Clip = str | os.PathLike[str] | Content | tuple[np.ndarray, int]


def _nothing() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclasses.dataclass
class Job:
    """A sound under way in one workdir.

    Attributes:
        seconds: its length.
        times: when its windows begin, in seconds: [W].
        windows: which of its rows they are: [W].
        evaluated: which of its rows evaluation would see: [E].
        num_rows: how many there are; None until the sound is read to its end.
        found: logits [classes], the runs' average, and embedding [features] of each row
            so far.
        problem: why it can't be used.
    """

    seconds: float = 0.0
    times: np.ndarray = dataclasses.field(default_factory=_nothing)
    windows: np.ndarray = dataclasses.field(default_factory=_nothing)
    evaluated: np.ndarray = dataclasses.field(default_factory=_nothing)
    num_rows: int | None = None
    found: list[tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=list)
    problem: InputError | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more will be found."""
        return self.problem is not None or len(self.found) == self.num_rows


# A row to compute: its sound, its samples [T], how many are the sound's own, and by
# which share of the sound the work is further with it.
Row = tuple[Job, np.ndarray, int, float]


class Member:
    """Runs that share a classifier, those of one workdir.

    Attributes:
        classifier: what they are of.
        variables: of each run, on the device.
        columns: which of the classifier's logits are which of the result's.
    """

    def __init__(
        self,
        classifier: Classifier,
        variables: Sequence[Variables],
        classes: Sequence[str],
    ):
        """Compiles nothing yet; logits come in the order of `classes`."""
        self.classifier = classifier
        self.variables = [jax.device_put(of_run) for of_run in variables]
        self.columns = [classifier.classes.index(name) for name in classes]
        # The image is computed once for all runs, which then share one program.
        self._image = jax.jit(self.classifier.image)
        self._outputs = jax.jit(self.classifier.test_outputs)

    @property
    def row_seconds(self) -> float:
        """What the network hears at once."""
        rate = self.classifier.log_mel.sample_rate
        return self.classifier.clip_policy.num_samples / rate

    def jobs(
        self,
        given: Iterable[Clip],
        overlap: float | None,
        on_progress: Callable[[float], object],
    ) -> Iterator[Job]:
        """The sounds in their order, each as soon as it is done.

        While a batch is computed, the next one is read.
        """
        waiting: collections.deque[Job] = collections.deque()
        rows: list[Row] = []
        under_way: Callable[[], None] | None = None
        for job, row in self._rows(given, overlap, on_progress):
            if not waiting or waiting[-1] is not job:
                waiting.append(job)
            rows += [row] if row is not None else []
            if len(rows) == BATCH_SIZE:
                started = self._start(rows, on_progress)
                if under_way is not None:
                    under_way()
                under_way, rows = started, []
            while waiting and waiting[0].done:
                yield waiting.popleft()
        if under_way is not None:
            under_way()
        if rows:
            self._start(rows, on_progress)()
        yield from waiting

    def _rows(
        self,
        given: Iterable[Clip],
        overlap: float | None,
        on_progress: Callable[[float], object],
    ) -> Iterator[tuple[Job, Row | None]]:
        """All rows of all sounds; at the end of each, its job without a row."""
        for clip in given:
            job, count, share = Job(), 0, 0.0
            try:
                for row in self._rows_of(job, clip, overlap):
                    count, share = count + 1, share + row[3]
                    yield job, row
            except InputError as error:
                job.problem = error
                on_progress(1 - share)
            job.num_rows = count
            yield job, None

    def _rows_of(self, job: Job, clip: Clip, overlap: float | None) -> Iterator[Row]:
        policy = self.classifier.clip_policy
        rate = self.classifier.log_mel.sample_rate
        num_samples, job.seconds, blocks = _opened(clip, rate)
        length = np.array([num_samples])
        seen = clips.starts(length, policy, np.arange(clips.counts(length, policy)[0]))
        job.times = window_times(job.seconds, self.row_seconds, overlap)
        last = max(num_samples - policy.num_samples, 0)
        grid = np.minimum(np.rint(job.times * rate).astype(np.int64), last)
        starts = np.unique(np.concatenate([seen, grid]))
        job.evaluated = np.searchsorted(starts, seen)
        job.windows = np.searchsorted(starts, grid)
        own = int(clips.true_lengths(length, policy)[0])
        for samples in cut(blocks, starts, policy.num_samples):
            yield job, clips.fit(samples, 0, policy), own, 1 / len(starts)

    def _start(
        self, rows: Sequence[Row], on_progress: Callable[[float], object]
    ) -> Callable[[], None]:
        """Begins to compute a batch; what is returned waits for its end."""
        full = [*rows, *[rows[-1]] * (BATCH_SIZE - len(rows))]
        audio = np.stack([samples for _, samples, _, _ in full])
        length = np.array([own for _, _, own, _ in full], np.int32)
        image = self._image(audio, length)
        outputs = [self._outputs(variables, image) for variables in self.variables]

        def wait() -> None:
            logits = task.average([np.asarray(logits) for logits, _ in outputs])
            pooled = np.concatenate([np.asarray(x) for _, x in outputs], axis=-1)
            found = zip(logits[:, self.columns], pooled, strict=True)
            # The rows that fill the batch up stand behind all others.
            for (job, _, _, share), of_row in zip(rows, found, strict=False):
                job.found.append(of_row)
                on_progress(share)

        return wait


def _opened(clip: Clip, sample_rate: int) -> tuple[int, float, Iterator[np.ndarray]]:
    """The number of samples at a rate, the seconds, and float32 samples in blocks."""
    if isinstance(clip, tuple):
        array, rate = np.asarray(clip[0]), clip[1]
        samples = sounds.from_array(array, rate, sample_rate)
        return len(samples), len(array) / rate, iter([samples])
    source = clip if isinstance(clip, Content) else epath.Path(clip)
    stream = sounds.Stream(source, sample_rate)
    return stream.num_samples, stream.seconds, map(sounds.full_scale, stream.blocks())


def evaluated_rows(
    clip: Clip, classifier: Classifier
) -> tuple[np.ndarray, np.ndarray, int]:
    """The rows that evaluation makes of a sound.

    Returns:
        When each begins in seconds [E], their samples [E, T] float32, and how many of
        a row are the sound's own.

    Raises:
        InputError: if the sound can't be used.
    """
    policy, rate = classifier.clip_policy, classifier.log_mel.sample_rate
    num_samples, _, blocks = _opened(clip, rate)
    length = np.array([num_samples])
    starts = clips.starts(length, policy, np.arange(clips.counts(length, policy)[0]))
    cuts = cut(blocks, starts, policy.num_samples)
    rows = np.stack([clips.fit(samples, 0, policy) for samples in cuts])
    return starts / rate, rows, int(clips.true_lengths(length, policy)[0])


def cut(
    blocks: Iterable[np.ndarray], starts: Sequence[int] | np.ndarray, length: int
) -> Iterator[np.ndarray]:
    """Cuts windows out of a stream, and holds no more of it than one of them.

    Args:
        blocks: the stream, arrays [n].
        starts: where windows begin, ascending.
        length: of a window.

    Yields:
        For each start the samples [length], fewer at the stream's end. The stream is
        read to its end.
    """
    blocks = iter(blocks)
    held, first = np.zeros(0, np.float32), 0
    for start in starts:
        while first + len(held) < start + length:
            if (block := next(blocks, None)) is None:
                break
            kept = held[max(start - first, 0) :]
            first += len(held) - len(kept)
            held = np.concatenate([kept, block]) if len(kept) else block
        yield held[max(start - first, 0) :][:length]
    for _ in blocks:
        pass


def window_times(seconds: float, length: float, overlap: float | None) -> np.ndarray:
    """When the windows of a sound begin, in seconds [W]: evenly, save for the last.

    That one ends with the sound. Of a sound no longer than a window there is one, and
    if `overlap` is None there are none.
    """
    if overlap is None:
        return np.zeros(0)
    last, hop = max(seconds - length, 0.0), length * (1 - overlap)
    # What is less than a millisecond away from the last one is the last one.
    count = max(math.ceil((last - 1e-3) / hop), 0)
    return np.append(hop * np.arange(count), last)
