"""Folds that we make: stratified, by source recording, the same every time."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from audiojax.datasets import checks
from audiojax.datasets.recordings import Info, Settings
from audiojax.errors import InputError, listed

# A clip's class, or all of its classes, by name or number.
Label = str | int
Labels = Sequence[Label | tuple[Label, ...]]


def chosen(info: Info, settings: Settings) -> Info:
    """The data set with the folds of `settings.split`: its own, or others made here.

    Raises:
        InputError: if they can't be made, or would leak; see `checks.check_random`.
    """
    if settings.split is None:
        return info
    random = settings.split == "random"
    if random:
        checks.check_random(info, allow_leaks=settings.allow_leaks)
    return made(info, settings.num_folds, settings.seed, by_source=not random)


def made(info: Info, num_folds: int, seed: int, *, by_source: bool = True) -> Info:
    """The data set with stratified folds, the clips of a source together or not.

    Raises:
        InputError: if a class has fewer sources than there are folds, which a
            misspelt one has too.
    """
    checks.check_names(info.name, info.classes)
    labels = [tuple(info.classes[i] for i in clip.labels) for clip in info.clips]
    sources = [clip.source if by_source else clip.filename for clip in info.clips]
    folds = stratified(labels, sources, num_folds, seed).tolist()
    pairs = zip(info.clips, folds, strict=True)
    clips = tuple(dataclasses.replace(clip, fold=fold) for clip, fold in pairs)
    return dataclasses.replace(info, clips=clips, official_folds=False)


def stratified(
    labels: Labels, sources: Sequence[Hashable], num_folds: int, seed: int
) -> np.ndarray:
    """Folds with about the same number of clips of every class.

    Clips of one source stay together. A greedy form of the method of Sechidis,
    Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (ECML 2011): the
    sources of the rarest class first, of those the largest, each to the fold that lacks
    its classes most. It depends on nothing but the arguments, and on their order: sort
    the clips first, as a file system does not.

    Args:
        labels: [N] class or tuple of classes of each clip, by name or number.
        sources: [N] the recording, or the group, that each clip belongs to.
        num_folds: at least 2.
        seed: of the order among sources of the same class and size, at least 0.

    Returns:
        int [N] fold of each clip, from 1 to num_folds.

    Raises:
        InputError: if a class has fewer sources than there are folds; it is named.
    """
    if num_folds < 2:
        raise InputError(f"num_folds is {num_folds}; give at least 2")
    counts, place = _count(
        labels, sources, num_folds, f"{num_folds} folds; lower config.data.num_folds"
    )
    wanted = np.tile(counts.sum(axis=0) / num_folds, (num_folds, 1))
    return _assign(counts, wanted, seed)[place] + 1


def hold_out(
    labels: Labels, sources: Sequence[Hashable], share: float, seed: int
) -> np.ndarray:
    """A share of the clips of every class, by source, chosen as `stratified` does.

    Args:
        labels: [N] classes of each clip, as for `stratified`.
        sources: [N] the recording, or the group, that each clip belongs to.
        share: of the clips to hold out, between 0 and 1. Where each source has one
            class, at least one source of every class is held out, and one is not.
        seed: of the order among sources of the same class and size, at least 0.

    Returns:
        bool [N], True for the clips that are held out.

    Raises:
        InputError: for another share, or if a class has only one source.
    """
    if not 0 < share < 1:
        raise InputError(f"the share to hold out is {share}; give one between 0 and 1")
    counts, place = _count(labels, sources, 2, "holding out a share")
    total = counts.sum(axis=0)
    smallest = np.where(counts > 0, counts, np.inf).min(axis=0)
    held = np.clip(share * total, smallest, np.maximum(total - smallest, smallest))
    return _assign(counts, np.stack([held, total - held]), seed)[place] == 0


def _count(
    labels: Labels, sources: Sequence[Hashable], least: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    """Clips of each class in each source [S, C], and each clip's source number [N]."""
    if not len(labels) or len(labels) != len(sources):
        raise InputError(
            f"a split needs clips, and the source of each; given are {len(labels)} "
            f"clips and {len(sources)} sources"
        )
    # A clip of no class, as a multi-label set may have it, is of a kind of its own.
    kinds = [
        (tuple(map(str, label)) or ("",)) if isinstance(label, tuple) else (str(label),)
        for label in labels
    ]
    names = sorted({kind for of_clip in kinds for kind in of_clip})
    column = {kind: i for i, kind in enumerate(names)}
    row = {source: i for i, source in enumerate(dict.fromkeys(sources))}
    counts = np.zeros((len(row), len(column)))
    for source, of_clip in zip(sources, kinds, strict=True):
        for kind in of_clip:
            counts[row[source], column[kind]] += 1
    few = [
        f"{name!r} has {number}"
        for name, number in zip(names, np.count_nonzero(counts, axis=0), strict=True)
        if name and number < least
    ]
    if few:
        raise InputError(
            f"each class needs at least {least} recordings for {purpose}, or add "
            f"recordings: {listed(few)}"
        )
    return counts, np.array([row[source] for source in sources])


def _assign(counts: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """The part [S] for each source of `counts` [S, C], parts to get `wanted` [P, C]."""
    if seed < 0:
        raise InputError(f"the seed of a split is {seed}; give at least 0")
    total = counts.sum(axis=0)
    random = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    rarest = np.where(counts > 0, total, np.inf).min(axis=1)
    lack, part = wanted.astype(float), np.zeros(len(counts), int)
    for source in np.lexsort((random, -counts.sum(axis=1), rarest)):
        # The part whose distance from what is wanted, each class by its size, falls
        # most. Rounding makes equal what differs in the last bits only.
        weight = counts[source] / total**2
        gain = (lack @ (weight / weight.max())).round(6)
        part[source] = np.lexsort((lack.sum(axis=1).round(6), gain))[-1]
        lack[part[source]] -= counts[source]
    return part
