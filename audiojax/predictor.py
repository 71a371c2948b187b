"""What finished runs say of any sound, however long it is."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from audiojax import clips, runs
from audiojax.errors import InputError, difference
from audiojax.inference import Clip, Job, Member
from audiojax.sounds import Content
from audiojax.workdir import Run, Workdir, named

# The share of a window that the next one hears again.
OVERLAP = 0.5


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is said of one sound, as a whole and window by window.

    Attributes:
        seconds: its length.
        logits: [classes] float64, of the whole as evaluation makes them.
        embedding: [features] float32, pooled before the head; of an ensemble, those of
            all runs one after the other. The mean over the rows that `logits` are of.
        start: [W] seconds at which each window begins.
        end: [W] seconds at which it ends.
        window_logits: [W, classes] float64.
        window_embedding: [W, features] float32.
    """

    seconds: float
    logits: np.ndarray
    embedding: np.ndarray
    start: np.ndarray
    end: np.ndarray
    window_logits: np.ndarray
    window_embedding: np.ndarray


class Predictor:
    """Finished runs of one or more workdirs, whose logits are averaged.

    The runs of a workdir are averaged first and the workdirs then, so that each workdir
    counts alike, as in `audiojax.ensemble`. How a sound of any length becomes rows of
    what the network hears, and how it becomes an image, is as it was in training.

    Attributes:
        classes: their names, in the order of the logits.
        task: what labels mean.
        runs: names of the runs, for each workdir.
        members: the runs themselves, for each workdir.
        window_seconds: length of a window, what the network hears at once; None where
            the workdirs differ in it, and there are no windows then.
    """

    def __init__(self, members: Sequence[Member], runs: Mapping[str, Sequence[str]]):
        """See `load`, which gives one of what workdirs hold."""
        first = members[0].classifier
        self.classes, self.task = first.classes, first.task
        self.runs, self.members = runs, members
        lengths = {member.row_seconds for member in self.members}
        self.window_seconds = lengths.pop() if len(lengths) == 1 else None

    def unseen(self, seconds: Sequence[float]) -> list[str]:
        """What `logits` leave out of sounds of these lengths, in sentences."""
        sentences = {}
        for classifier in (member.classifier for member in self.members):
            rate = classifier.log_mel.sample_rate
            lengths = np.rint(np.multiply(seconds, rate)).astype(np.int64)
            sentences[clips.unseen(lengths, classifier.clip_policy, rate)] = None
        return list(filter(None, sentences))

    def logits(self, given: Sequence[Clip]) -> np.ndarray:
        """Logits [N, classes] float64, each clip's as evaluation makes them.

        Args:
            given: N sound files of any format, rate and length, or pairs of an array
                [T] or [T, channels] and its rate in Hz; floating point numbers have
                full scale 1, integers that of their type.

        Raises:
            InputError: for the first clip that can't be used.
        """
        rows = [found.logits for found in self._whole(given)]
        return np.stack(rows) if rows else np.zeros((0, len(self.classes)))

    def probabilities(self, given: Sequence[Clip]) -> np.ndarray:
        """Probabilities [N, classes] float64 of N clips, given as in `logits`."""
        return self.task.probabilities(self.logits(given))

    def embeddings(self, given: Sequence[Clip]) -> np.ndarray:
        """Pooled features [N, features] float32 before the head, as in `logits`.

        Those of all runs stand one after the other: averaged they would mean nothing.
        """
        rows = [found.embedding for found in self._whole(given)]
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def _whole(self, given: Sequence[Clip]) -> Iterator[Prediction]:
        _check_list(given)
        for found in self.predictions(given, overlap=None):
            if isinstance(found, InputError):
                raise found
            yield found

    def predictions(
        self,
        given: Iterable[Clip],
        *,
        overlap: float | None = OVERLAP,
        on_progress: Callable[[float], object] = lambda share: None,
    ) -> Iterator[Prediction | InputError]:
        """What is said of each sound, in order; long ones are read as a stream.

        A sound no longer than a row is one window. A longer one has windows all over,
        each full, the last one at its end.

        Args:
            given: as in `logits`.
            overlap: the share of a window that the next one hears again, from 0 to
                below 1; None: there are no windows.
            on_progress: called with shares of sounds that are done, which sum to one
                for each sound.

        Yields:
            For each sound a `Prediction`, or why it can't be used.

        Raises:
            InputError: for an overlap out of range, or where workdirs hear windows of
                different lengths.
        """
        if overlap is not None and not 0 <= overlap < 1:
            raise InputError(
                f"overlap is {overlap}; give a share of a window from 0 to below 1"
            )
        if overlap is not None and self.window_seconds is None:
            lengths = [f"{member.row_seconds:g} s" for member in self.members]
            raise InputError(
                f"{named(self.runs)} hear windows of {named(lengths)}; long sounds "
                "need one length: give workdirs of the same config.data.clip_seconds"
            )
        given = list(given)
        count = len(self.members)
        done = [
            member.jobs(given, overlap, lambda share: on_progress(share / count))
            for member in self.members
        ]
        for jobs in zip(*done, strict=True):
            problem = next((job.problem for job in jobs if job.problem), None)
            yield problem or self._joined(jobs)

    def _joined(self, jobs: Sequence[Job]) -> Prediction:
        """The average over the workdirs."""
        rows = [list(map(np.stack, zip(*job.found, strict=True))) for job in jobs]
        pairs = list(zip(jobs, rows, strict=True))
        whole = [[x[job.evaluated].mean(axis=0) for x in found] for job, found in pairs]
        windows = [[x[job.windows] for x in found] for job, found in pairs]
        first = jobs[0]
        length = min(self.window_seconds or first.seconds, first.seconds)
        return Prediction(
            seconds=first.seconds,
            logits=np.mean([logits for logits, _ in whole], axis=0),
            embedding=np.concatenate([pooled for _, pooled in whole]),
            start=first.times,
            end=first.times + length,
            window_logits=np.mean([logits for logits, _ in windows], axis=0),
            window_embedding=np.concatenate([x for _, x in windows], axis=-1),
        )


def load(
    *workdirs: epath.PathLike,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    unfinished: bool = False,
) -> Predictor:
    """Opens what was trained, to be used on any sound.

    Args:
        workdirs: one or more, as `audiojax.main` leaves them, folders or gs://. Classes
            are joined by their names.
        folds: the runs of which test folds; None: of all. A run of each fold was
            trained on other clips, and new sounds are new to all of them; clips of the
            data set are new only to the runs of their own fold.
        seeds: the runs of which seeds; None: of all.
        unfinished: use the finished runs of a workdir that has others still to come.

    Raises:
        InputError: if a workdir or a checkpoint of it can't be read; if a fold or
            seed is not there, or not finished and that was not allowed; or if classes
            or tasks differ. All that is wrong is told at once.
    """
    if not workdirs:
        raise InputError("no workdir given; add one or more that audiojax.main filled")
    problems: list[str] = []
    opened: list[tuple[Workdir, list[Run]]] = []
    for path in workdirs:
        try:
            workdir = Workdir(path)
            chosen = runs.choose(workdir, folds, seeds, unfinished=unfinished)
            opened.append((workdir, chosen))
            problems += _misfits(opened[0][0], workdir)
        except InputError as error:
            problems.append(str(error))
    places = collections.Counter(epath.Path(path).resolve() for path in workdirs)
    if twice := [str(place) for place, times in places.items() if times > 1]:
        problems.append(f"the same workdir twice: {named(twice)}")
    if problems:
        raise InputError("\n  ".join(["can't predict with these:", *problems]))
    members = [
        Member(w.classifier, list(map(w.variables, chosen)), opened[0][0].classes)
        for w, chosen in opened
    ]
    names = {str(w.path): [run.name for run in chosen] for w, chosen in opened}
    return Predictor(members, names)


def _misfits(first: Workdir, other: Workdir) -> Iterator[str]:
    """Why the logits of two workdirs can't be averaged."""
    if what := difference(first.classes, other.classes):
        yield f"{other.path}: other classes than {first.path}; it {what}"
    if first.task is not other.task:
        yield (
            f"{other.path}: its task is {other.task.name}, that of {first.path} is "
            f"{first.task.name}"
        )


def _check_list(given: Any) -> None:
    """Refuses one clip where a list of them is expected."""
    single = isinstance(given, str | os.PathLike | Content | np.ndarray)
    if single or (isinstance(given, tuple) and len(given) and np.ndim(given[0])):
        raise InputError(
            "one clip was given; give a list of paths, or of pairs (array, rate)"
        )
