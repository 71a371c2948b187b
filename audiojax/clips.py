"""Clips of any length as rows of one length: which part of a clip, and what fills up.

A clip that is longer than a row is cut, or seen through windows; one that is shorter
is filled up with zeros or with itself, or its image is stretched. What holds in
training and in evaluation holds in prediction too, so a `ClipPolicy` is part of the
classifier.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from audiojax.errors import InputError, check_choice

MODES = ("pad", "repeat", "crop", "stretch")
# What 16-bit samples are divided by to lie in [-1, 1].
INT16_FULL_SCALE = 32768


@dataclasses.dataclass(frozen=True)
class ClipPolicy:
    """How a clip of any length becomes rows of `num_samples`.

    Attributes:
        mode: what is done with clips of another length.
            "pad": zeros follow what is shorter; what is longer is cut at the end.
            "repeat": what is shorter is repeated until the row is full; what is longer
            is cut at the end.
            "crop": zeros follow what is shorter; of what is longer, training sees a
            random window, a new one each epoch, and evaluation averages the logits of
            evenly spaced ones.
            "stretch": the image of what is shorter is made of its own samples alone
            and stretched to full width, as the paper's code does with the slices of
            UrbanSound8K; what is longer is cut at the end.
        num_samples: length of a row.
        num_windows: the most windows of a clip in evaluation; for "crop".

    Raises:
        InputError: for an unknown mode, or a number below 1.
    """

    mode: str
    num_samples: int
    num_windows: int = 1

    def __post_init__(self):
        check_choice("config.data.clip_mode", self.mode, MODES)
        if self.num_samples < 1:
            raise InputError(
                f"config.data.clip_seconds makes clips of {self.num_samples} samples; "
                "give at least one sample"
            )
        if self.num_windows < 1:
            raise InputError(
                f"config.data.num_windows is {self.num_windows}; give at least 1"
            )

    @property
    def needs_length(self) -> bool:
        """Whether an image depends on how many of its samples are the clip's own."""
        return self.mode == "stretch"


def counts(lengths: np.ndarray, policy: ClipPolicy) -> np.ndarray:
    """How many windows evaluation sees of clips of `lengths` [N] samples: int64 [N].

    As many as it takes to cover the clip, but at most `num_windows`; one of each clip
    that is no longer than a row, and one in every mode but "crop".
    """
    lengths = np.asarray(lengths, np.int64)
    if policy.mode != "crop":
        return np.ones_like(lengths)
    return np.clip(-(-lengths // policy.num_samples), 1, policy.num_windows)


def every(lengths: np.ndarray, policy: ClipPolicy) -> tuple[np.ndarray, np.ndarray]:
    """All windows of all clips that evaluation sees, those of a clip together.

    Args:
        lengths: [N] in samples.
        policy: how clips become rows.

    Returns:
        For each of W windows the position of its clip in `lengths`, and its number
        in that clip, from 0: both int64 [W].
    """
    count = counts(lengths, policy)
    clip = np.repeat(np.arange(len(count)), count)
    return clip, np.arange(len(clip)) - first(lengths, policy)[clip]


def first(lengths: np.ndarray, policy: ClipPolicy) -> np.ndarray:
    """Where in `every` the windows of each clip begin: int64 [N]."""
    count = counts(lengths, policy)
    return np.cumsum(count) - count


def starts(
    lengths: np.ndarray, policy: ClipPolicy, number: np.ndarray | int
) -> np.ndarray:
    """Where windows begin, in samples from the clip's start: int64 [N].

    The first and last stand at the clip's ends, the others evenly between; a single
    window of a longer clip stands in its middle.

    Args:
        lengths: [N] of each window's clip, in samples.
        policy: how clips become rows.
        number: [N] or one for all: the window's number in its clip, from 0.
    """
    spare, count = _spare(lengths, policy), counts(lengths, policy)
    return np.where(count > 1, number * spare // np.maximum(count - 1, 1), spare // 2)


def drawn(lengths: np.ndarray, policy: ClipPolicy, chance: np.ndarray) -> np.ndarray:
    """Where random windows begin, all places alike: `starts` for training.

    `chance` [N] are random numbers from [0, 1). In every mode but "crop" all are 0.
    """
    return (chance * (_spare(lengths, policy) + 1)).astype(np.int64)


def _spare(lengths: np.ndarray, policy: ClipPolicy) -> np.ndarray:
    """Samples by which each clip's window can move: [N]."""
    lengths = np.asarray(lengths, np.int64)
    if policy.mode != "crop":
        return np.zeros_like(lengths)
    return np.maximum(lengths - policy.num_samples, 0)


def fit(samples: np.ndarray, start: int, policy: ClipPolicy) -> np.ndarray:
    """One row [num_samples]: a clip's window, filled up to full length.

    The window begins at sample `start` of the whole clip `samples` [T].
    """
    window = samples[start : start + policy.num_samples]
    missing = policy.num_samples - len(window)
    if missing and policy.mode == "repeat":
        return np.resize(window, policy.num_samples)
    return np.pad(window, (0, missing)) if missing else window


def true_lengths(lengths: np.ndarray, policy: ClipPolicy) -> np.ndarray:
    """How many samples of a row are the clip's own: int32 [N]."""
    return np.minimum(lengths, policy.num_samples).astype(np.int32)


def unseen(lengths: np.ndarray, policy: ClipPolicy, sample_rate: int) -> str | None:
    """What evaluation does not see of these clips, as a sentence; None if all is seen.

    Their lengths [N] are in samples, the rate is in Hz.
    """
    seen = counts(lengths, policy) * policy.num_samples
    lost = (lengths - seen)[lengths > seen] / sample_rate
    if not len(lost):
        return None
    row = f"{policy.num_samples / sample_rate:.3f} s"
    half, most = f"{np.median(lost):.3f} s", f"{lost.max():.3f} s"
    longer = f"{len(lost)} of {len(lengths)} clips are longer than"
    if policy.mode != "crop":
        return (
            f"{longer} {row} and are cut at the end: half of them by at most {half}, "
            f"the longest by {most}"
        )
    enough = -(-int(np.max(lengths)) // policy.num_samples)
    return (
        f"{longer} {policy.num_windows} windows of {row}, and evaluation leaves out "
        f"what lies between: of half of them at most {half}, of the longest {most}; "
        f"config.data.num_windows={enough} would leave out nothing"
    )


def by_clip(
    logits: np.ndarray, label: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of each clip's windows.

    Args:
        logits: [W, classes] of the windows.
        label: [W] or [W, classes].
        index: [W] the number of the window's clip.

    Returns:
        Logits [N, classes] float32, labels and clip numbers [N], each clip once, in
        the order in which they first stand.
    """
    _, first, clip = np.unique(index, return_index=True, return_inverse=True)
    total = np.zeros((len(first), logits.shape[-1]))
    np.add.at(total, clip, logits)
    order = np.argsort(first)
    mean = (total / np.bincount(clip)[:, None])[order]
    kept = first[order]
    return mean.astype(np.float32), label[kept], index[kept]
