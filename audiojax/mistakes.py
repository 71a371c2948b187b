"""A report's mistakes to be heard and seen, and what of them was looked at."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import soundfile
from etils import epath

from audiojax import clips, pictures, predictor, sounds
from audiojax.classifier import Classifier
from audiojax.errors import InputError
from audiojax.explainer import Explainer
from audiojax.summary import Mistake
from audiojax.workdir import Workdir

# Seconds of each sound that the page holds.
MOST_SECONDS = 10.0
# One gradient of the head, where other methods take a hundred of the whole network.
METHOD = "grad_cam"

# Gives a clip by its name and a rate in Hz, int16 or float32 [T]; raises an InputError
# where there is none.
Find = Callable[[str, int], np.ndarray]


def in_folder(folder: epath.PathLike) -> Find:
    """Finds clips in the folder of a data set's sounds, or in `audio` below it.

    Raises:
        InputError: if it is none.
    """
    place = epath.Path(folder)
    if not place.is_dir():
        raise InputError(f"--sounds is {place}, no folder; give the data set's sounds")

    def find(name: str, rate: int) -> np.ndarray:
        for path in (place / name, place / "audio" / name):
            if path.is_file():
                return sounds.read(path, rate)
        raise InputError(f"not in {place}")

    return find


def shown(
    wrong: Sequence[Mistake], opened: Workdir, find: Find, *, explained: bool = True
) -> list[dict[str, Any]]:
    """The fields of each mistake, and what a page shows of it.

    Args:
        wrong: the mistakes.
        opened: whose they are.
        find: gives their clips.
        explained: whether to say what was looked at, by `METHOD` of the average of
            the fold's runs.

    Returns:
        In the same order with `sound`, `picture` and `explanation` as data URIs, and
        why there are none, `problem` and `unexplained`; None for what is not there.
    """
    rows = {}
    # Fold by fold: the variables of all may be more than memory holds.
    for fold in sorted({mistake.fold for mistake in wrong}):
        explain = functools.cache(functools.partial(_explainer, opened.path, fold))
        for mistake in (m for m in wrong if m.fold == fold):
            row: dict[str, Any] = dict.fromkeys(
                ("sound", "picture", "explanation", "problem", "unexplained")
            )
            rows[mistake] = vars(mistake) | row
            try:
                rate = opened.classifier.log_mel.sample_rate
                samples = find(mistake.filename, rate)
            except InputError as error:
                rows[mistake]["problem"] = str(error)
                continue
            rows[mistake]["sound"] = _player(samples, rate)
            plain = pictures.plain(image(samples, opened.classifier))
            rows[mistake]["picture"] = _data_uri("image/png", plain)
            if not explained:
                continue
            try:
                found = explain().attribute((samples, rate), mistake.target)
                overlay = pictures.overlay(found.image[..., 0], found.map)
                rows[mistake]["explanation"] = _data_uri("image/png", overlay)
            except InputError as error:
                rows[mistake]["unexplained"] = str(error)
    return [rows[mistake] for mistake in wrong]


def _explainer(path: epath.Path, fold: int) -> Explainer:
    return Explainer(predictor.load(path, folds=[fold], unfinished=True), METHOD)


def _player(samples: np.ndarray, sample_rate: int) -> str:
    """Samples [T] as FLAC of 16 bits, which every browser plays."""
    buffer = io.BytesIO()
    kept = samples[: round(MOST_SECONDS * sample_rate)]
    soundfile.write(buffer, kept, sample_rate, format="FLAC")
    return _data_uri("audio/flac", buffer.getvalue())


def image(samples: np.ndarray, classifier: Classifier) -> np.ndarray:
    """The log-mel of a clip's first row, its first channel: [mel, frames]."""
    policy = classifier.clip_policy
    row = clips.fit(sounds.mono(samples), 0, policy)
    own = np.minimum([len(samples)], policy.num_samples)
    images = classifier.image(jnp.asarray(row[None]), jnp.asarray(own))
    return np.asarray(images)[0, ..., 0]


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
