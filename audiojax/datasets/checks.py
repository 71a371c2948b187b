"""Checks of clips, labels and folds that a result's honesty hangs on, and a summary."""

from __future__ import annotations

import collections
import logging
import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from audiojax.datasets.recordings import Clip, Info
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)

Indices = Sequence[int] | np.ndarray

# How a user goes on all the same.
GO_ON = "or set config.data.allow_leaks=True to go on"


def check_info(info: Info, *, allow_leaks: bool = False) -> None:
    """Checks a data set before its audio is read.

    Args:
        info: names, labels, folds and sources of all clips.
        allow_leaks: only warn of recordings that are in several folds.

    Raises:
        InputError: if there are no two clips, or no two classes (one is enough where a
            clip may have none), if classes differ only in case or blanks, if a class
            has no clips, if all clips are in one fold, or if clips of one source are in
            several folds and the publisher's are not so.
    """
    if len(info.clips) < 2:
        names = [clip.filename for clip in info.clips]
        found = f"one clip only ({names[0]})" if names else "no clips"
        raise InputError(
            f"{info.name} has {found}; training and testing need several of each class"
        )
    if info.num_classes < (1 if info.multi_label else 2):
        found = f"one class only ({info.classes[0]!r})" if info.classes else "no class"
        raise InputError(
            f"{info.name} has {found}; a classifier needs two: give the folder above "
            "the classes' own, or a class for all the rest"
        )
    check_names(info.name, info.classes)
    _check_folds(info)
    pairs = _shared(info.clips, [clip.fold for clip in info.clips])
    _refuse(
        [pair for source, pair in pairs.items() if source not in info.shared_sources],
        f"{info.name}: clips of one recording are in several folds, which would "
        "flatter the result",
        "put the clips of a recording into one fold",
        allow_leaks,
    )


def check_names(name: str, classes: Sequence[str]) -> None:
    """Checks that no slip of the keyboard has made two classes of one.

    Raises:
        InputError: if class names of the data set `name` differ only in case, blanks or
            the way in which Unicode writes them, or one is blank.
    """
    spellings = collections.defaultdict(list)
    for written in classes:
        plain = unicodedata.normalize("NFC", written).casefold()
        spellings[" ".join(plain.split())].append(repr(written))
    twins = [" and ".join(found) for found in spellings.values() if len(found) > 1]
    if twins:
        raise InputError(
            f"{name} has classes that differ only in case or blanks: {listed(twins)}; "
            "give them one name, or names that differ more"
        )
    if blank := spellings.get(""):
        raise InputError(f"{name} has a class without a name: {blank[0]}")


def check_split(
    info: Info,
    train_indices: Indices,
    test_indices: Indices,
    *,
    allow_leaks: bool = False,
) -> None:
    """Checks one split before it is trained on.

    Raises:
        InputError: if a class has no clip to train on, or a source recording is on
            both sides; see `check_disjoint`.
    """
    trained, tested = (
        {label for i in indices for label in info.clips[i].labels}
        for indices in (train_indices, test_indices)
    )
    if untrained := sorted(tested - trained):
        names = [info.classes[label] for label in untrained]
        raise InputError(
            f"{info.name}: {listed(map(repr, names))} would be tested and never "
            "trained, as all of its clips are held out; put some into another fold"
        )
    if untested := sorted(trained - tested):
        names = [info.classes[label] for label in untested]
        logger.warning(
            "%s: no test clip of %s; the scores do not tell of %s",
            *(info.name, listed(map(repr, names)), "it" if len(names) == 1 else "them"),
        )
    check_disjoint(info, train_indices, test_indices, allow_leaks=allow_leaks)


def check_disjoint(
    info: Info,
    train_indices: Indices,
    test_indices: Indices,
    *,
    allow_leaks: bool = False,
) -> None:
    """Checks that no source recording is heard in training and in the test.

    Recordings that the publisher's own folds share are only warned of.

    Raises:
        InputError: if one is, unless that is allowed; the clips are named.
    """
    clips = [info.clips[i] for i in (*train_indices, *test_indices)]
    sides = [0] * len(train_indices) + [1] * len(test_indices)
    pairs = _shared(clips, sides)
    if known := [source for source in pairs if source in info.shared_sources]:
        logger.warning(
            "%s: its own folds share %d recordings between training and test: %s",
            *(info.name, len(known), listed(pairs.pop(source) for source in known)),
        )
    _refuse(
        pairs.values(),
        f"{info.name}: {len(pairs)} source recordings are on both sides of the split, "
        "which would flatter the result",
        "put the clips of a recording into one fold",
        allow_leaks,
    )


def check_copies(
    info: Info, digests: Sequence[str], *, allow_leaks: bool = False
) -> None:
    """Checks that no two folds hold the same file under two names.

    Args:
        info: the data set's.
        digests: [N] a sum of each clip's content.
        allow_leaks: only warn of them.

    Raises:
        InputError: if there are such files, unless that is allowed; they are named.
    """
    pairs = _shared(info.clips, [clip.fold for clip in info.clips], digests)
    _refuse(
        pairs.values(),
        f"{info.name}: {len(pairs)} sounds are in several folds, the same to the bit, "
        "which would flatter the result",
        "delete the copies, or put them into one fold",
        allow_leaks,
    )


def check_random(info: Info, *, allow_leaks: bool = False) -> None:
    """Checks that folds may be drawn without regard to recordings.

    Raises:
        InputError: if the data set has folds of its own, or several clips of one
            source, unless leaks are allowed.
    """
    if info.official_folds:
        _refuse(
            [f"folds {', '.join(map(str, info.folds))}"],
            f"config.data.split is 'random', but {info.name} comes with folds, and "
            "results on others can't be compared",
            "leave config.data.split out",
            allow_leaks,
        )
    pairs = _shared(info.clips, range(len(info.clips)))
    _refuse(
        pairs.values(),
        f"config.data.split is 'random', but {len(pairs)} recordings of {info.name} "
        "have several clips, which would come to both sides and flatter the result",
        "set config.data.split='stratified', which keeps them together",
        allow_leaks,
    )


def summary(info: Info, lengths: np.ndarray) -> str:
    """Clips and hours, by class and by fold, as lines of text.

    Args:
        info: the data set's.
        lengths: [N] length of each clip in samples.
    """
    seconds = np.asarray(lengths) / info.sample_rate
    counts, hours = np.zeros(info.num_classes, int), np.zeros(info.num_classes)
    for clip, length in zip(info.clips, seconds, strict=True):
        for label in clip.labels:
            counts[label] += 1
            hours[label] += length / 3600
    folds = collections.Counter(clip.fold for clip in info.clips)
    # A line end in a name, or bytes that are no text, would break the table.
    names = [x if x.isprintable() else repr(x)[1:-1] for x in info.classes]
    width = max(map(len, (*names, "class")))
    lines = [
        f"{info.name}: {len(info.clips)} clips of {info.num_classes} classes, "
        f"{seconds.sum() / 3600:.3f} hours, clips of {seconds.min():.3f} to "
        f"{seconds.max():.3f} s",
        f"clips by fold: {', '.join(f'{k}: {folds[k]}' for k in sorted(folds))}"
        + ("" if info.official_folds else " (made here)"),
        f"  {'class':<{width}}  {'clips':>7}  {'hours':>8}",
    ]
    lines += [
        f"  {name:<{width}}  {count:>7}  {hour:>8.3f}"
        for name, count, hour in zip(names, counts, hours, strict=True)
    ]
    if nothing := sum(not clip.labels for clip in info.clips):
        lines.append(f"  {'(none)':<{width}}  {nothing:>7}")
    return "\n".join(lines)


def _check_folds(info: Info) -> None:
    """Refuses classes without clips; warns of those that one fold has all clips of."""
    folds: list[set[int]] = [set() for _ in info.classes]
    for clip in info.clips:
        for label in clip.labels:
            folds[label].add(clip.fold)
    by_name = list(zip(map(repr, info.classes), folds, strict=True))
    if empty := [name for name, found in by_name if not found]:
        raise InputError(f"{info.name} has no clips of {listed(empty)}; leave it out")
    if len(info.folds) < 2:
        raise InputError(
            f"{info.name} has all clips in fold {info.clips[0].fold}; training and "
            "testing need two folds or more"
        )
    if alone := [f"{name} in {min(at)}" for name, at in by_name if len(at) == 1]:
        logger.warning(
            "%s has all clips of a class in one fold: %s; where that is tested, the "
            "class is not trained and the run is refused: spread its clips over the "
            "folds, or leave that fold out of config.sweep.folds",
            *(info.name, listed(alone)),
        )


def _shared(
    clips: Sequence[Clip], sides: Iterable[int], keys: Iterable[str] | None = None
) -> dict[str, str]:
    """Keys, or else sources, that are on several sides, and two clips that have one."""
    keys = [clip.source for clip in clips] if keys is None else keys
    first: dict[str, tuple[str, int]] = {}
    pairs: dict[str, str] = {}
    for clip, key, side in zip(clips, keys, sides, strict=True):
        filename, other = first.setdefault(key, (clip.filename, side))
        if side != other:
            pairs.setdefault(key, f"{filename} and {clip.filename}")
    return pairs


def _refuse(pairs: Collection[str], found: str, remedy: str, allowed: bool) -> None:
    """Raises for pairs that leak, or only warns of them."""
    if pairs and not allowed:
        raise InputError(f"{found}: {listed(pairs)}; {remedy}, {GO_ON}")
    if pairs:
        logger.warning("%s: %s; going on as it is allowed", found, listed(pairs))
