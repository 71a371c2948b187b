"""The parts of a run: what it trains on, picks an epoch by, and is tested on."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from audiojax.datasets import checks, splits
from audiojax.datasets.recordings import Info
from audiojax.errors import InputError, listed

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Split:
    """Clip numbers of the parts of a run; no recording is in two of them.

    Attributes:
        train: to train on.
        validation: to pick an epoch by; none where the config holds none out.
        test: to report.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(
    info: Info,
    fold: int,
    validation: str | None = None,
    *,
    allow_leaks: bool = False,
) -> Split:
    """The clips that a run trains on, picks by and tests on.

    Args:
        info: the data set's.
        fold: the fold to test on.
        validation: None; "fold" for the fold after the test fold; or a share such as
            "0.15" of the other folds' clips, by class and recording.
        allow_leaks: only warn of recordings that training and test share.

    Raises:
        InputError: if the data set has no such fold, or too few, if a class has no
            clip to train on, or a source recording has clips on both sides.
    """
    if fold not in info.folds or len(info.folds) < 2:
        raise InputError(
            f"config.sweep.folds names fold {fold}; {info.name} has folds "
            f"{', '.join(map(str, info.folds))}, and training needs another one"
        )
    folds = np.array([clip.fold for clip in info.clips])
    others, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    held = _held_out(info, others, fold, validation)
    train, held = others[~held], others[held]
    checks.check_split(info, train, test, allow_leaks=allow_leaks)
    return Split(train, _unshared(info, held, np.concatenate([train, test])), test)


def check_validation(validation: str | None) -> None:
    """Checks what is held out to pick an epoch by, as far as no data are needed.

    Raises:
        InputError: if it is not None, "fold" or a share.
    """
    try:
        possible = validation in (None, "fold") or 0 < float(validation) < 1
    except ValueError:
        possible = False
    if not possible:
        raise InputError(
            f"config.sweep.validation is {validation!r}; give None, fold (the fold "
            "after the test fold), or a share between 0 and 1 such as 0.15"
        )


def _held_out(
    info: Info, indices: np.ndarray, fold: int, validation: str | None
) -> np.ndarray:
    """Which of the clips `indices`, all outside the test fold, are for validation."""
    clips = [info.clips[i] for i in indices]
    if validation is None:
        return np.zeros(len(clips), bool)
    if validation == "fold":
        if len(info.folds) < 3:
            raise InputError(
                "config.sweep.validation is 'fold', which needs three folds; "
                f"{info.name} has {len(info.folds)}; give a share such as 0.15"
            )
        after = info.folds[(info.folds.index(fold) + 1) % len(info.folds)]
        return np.array([clip.fold == after for clip in clips])
    check_validation(validation)
    labels, sources = [x.labels for x in clips], [x.source for x in clips]
    return splits.hold_out(labels, sources, float(validation), seed=0)


def _unshared(info: Info, held: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The validation clips without those whose recording is also heard elsewhere.

    Only recordings that the publisher's own folds share are left by `check_disjoint`.
    """
    heard = {info.clips[i].source for i in others}
    shared = np.array([info.clips[i].source in heard for i in held], bool)
    if shared.any():
        logger.warning(
            "%d validation clips share a recording with training or test and are not "
            "used: %s",
            *(shared.sum(), listed(info.clips[i].filename for i in held[shared])),
        )
    if len(held) and shared.all():
        raise InputError(
            "no validation clip is left: every one shares its recording with the other "
            "parts; give another config.sweep.validation"
        )
    return held[~shared]
