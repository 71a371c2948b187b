"""What trained runs look at in a sound, and whether that can be trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from audiojax import attribution
from audiojax.attribution import Curve
from audiojax.errors import InputError, check_choice, listed
from audiojax.inference import BATCH_SIZE, Clip, Member, evaluated_rows
from audiojax.methods import METHODS, Logit, Method, of_waveform
from audiojax.predictor import Predictor
from audiojax.pretrained import Variables

# A map is said to be worthless, if it is more like those of weights drawn anew.
LIKENESS_LIMIT = 0.5
# How many times they are drawn.
REDRAWN = 3


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Where one class's logit comes from, in the row of a sound that has most of it.

    Attributes:
        predicted: the most probable class of the whole sound.
        target: the class that is explained.
        probability: of the target, of the whole sound.
        start: seconds at which the row begins.
        samples: [T] float32, what the image is of.
        image: [mel, frames, C], the log-mel.
        attribution: [mel, frames, C].
        logit: of the target, of this row.
        missed: what of the attribution's sum the gradients of Integrated Gradients
            alone would have missed; None of other methods.
    """

    predicted: str
    target: str
    probability: float
    start: float
    samples: np.ndarray
    image: np.ndarray
    attribution: np.ndarray
    logit: float
    missed: float | None

    @property
    def map(self) -> np.ndarray:
        """The attribution of all channels together, [mel, frames]."""
        return self.attribution.sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class Explanation(Attribution):
    """The same, down to the waveform, and what it is worth.

    Attributes:
        waveform: attribution [T] of the samples, by Integrated Gradients; None of
            other methods.
        silence: the target's logit of silence, the baseline.
        deletion: the target's probability as the map's pixels get the mean level.
        insertion: the same as they are put into an image of the mean level.
        likeness: [REDRAWN], how like the map is to those of weights drawn anew.
    """

    waveform: np.ndarray | None
    silence: float
    deletion: Curve
    insertion: Curve
    likeness: np.ndarray

    @property
    def sums(self) -> tuple[float, float] | None:
        """Of Integrated Gradients the attribution's sum, and what gradients alone give.

        Both as shares of the difference of the logits from silence's, which the first
        should be: 1 is complete. None of other methods.
        """
        if self.missed is None:
            return None
        difference, total = self.logit - self.silence, float(self.attribution.sum())
        return total / difference, (total - self.missed) / difference

    @property
    def incomplete(self) -> bool:
        """Whether Integrated Gradients' sum is off by more than a hundredth."""
        return self.sums is not None and not abs(self.sums[0] - 1) <= 0.01

    @property
    def worthless(self) -> bool:
        """Whether the map does not depend on the weights."""
        return bool(self.likeness.mean() > LIKENESS_LIMIT)


class _Programs:
    """What is compiled for the runs of a workdir; nothing twice."""

    def __init__(self, member: Member, method: Method):
        self.runs = member.variables
        self.columns = member.columns
        classifier = member.classifier
        self.logits = jax.jit(classifier.test_logits)
        self.attribution = jax.jit(
            lambda variables, target, *given: method(
                Logit(classifier, variables, target), *given
            )
        )
        self.waveform = jax.jit(
            lambda variables, target, *given: of_waveform(
                Logit(classifier, variables, target), *given
            )
        )
        self._draw = dataclasses.replace(classifier, weights=None).init

    def redrawn(self, key: jax.Array) -> list[Variables]:
        """The variables of each run with new weights; images are standardized alike."""
        keys = jax.random.split(key, len(self.runs))
        pairs = zip(self.runs, keys, strict=True)
        return [{**self._draw(key), "input": run["input"]} for run, key in pairs]


class Explainer:
    """Finished runs whose mean logits are explained.

    Attributes:
        classes: their names, in the order of the logits.
        classifier: of the first workdir; all have its images.
    """

    def __init__(self, opened: Predictor, method: str = "integrated_gradients"):
        """Compiles nothing yet.

        Args:
            opened: as `audiojax.load` gives it.
            method: a key of `METHODS`.

        Raises:
            InputError: for an unknown method, or workdirs of different images.
        """
        check_choice("method", method, METHODS)
        first, *others = [member.classifier for member in opened.members]
        for path, other in zip(list(opened.runs)[1:], others, strict=True):
            if (first.log_mel, first.clip_policy) != (other.log_mel, other.clip_policy):
                raise InputError(
                    f"{path} hears other images than {next(iter(opened.runs))} "
                    "(config.features, config.data.clip_seconds, clip_mode or "
                    "num_windows); explain them one by one"
                )
        self.classes, self.classifier = opened.classes, first
        self._task, self._method = opened.task, method
        self._programs = [_Programs(m, METHODS[method]) for m in opened.members]
        self._image = jax.jit(first.image)

    def check_target(self, target: str) -> None:
        """Raises an InputError for a class that there is not."""
        if target not in self.classes:
            raise InputError(
                f"there is no class {target!r}; the classes are "
                f"{listed(self.classes, ', ', 60)}"
            )

    def attribute(
        self, clip: Clip, target: str | None = None, seed: int = 0
    ) -> Attribution:
        """What a class's logit comes from.

        Of several rows that evaluation averages over, that one is explained whose
        logit of the class is the largest.

        Args:
            clip: a sound file, or an array with its rate.
            target: the class; None for the most probable one.
            seed: of what is random.

        Raises:
            InputError: if there is no such class, the sound can't be used, or a logit
                is not finite.
        """
        if target is not None:
            self.check_target(target)
        starts, rows, own = evaluated_rows(clip, self.classifier)
        length = own if self.classifier.clip_policy.needs_length else None
        images = [self._image_of(row, length) for row in rows]
        logits = np.concatenate([self.logits(image[None]) for image in images])
        if not np.isfinite(logits).all():
            raise InputError(
                f"{clip}: the model's logits are not finite, its training diverged; "
                "train it again with a lower config.optimizer.learning_rate"
            )
        whole = logits.mean(axis=0)
        predicted = int(whole.argmax())
        number = predicted if target is None else self.classes.index(target)
        best = int(logits[:, number].argmax())
        samples = rows[best][:length]
        found, missed = self._attributed(number, images[best], samples, seed)
        return Attribution(
            predicted=self.classes[predicted],
            target=self.classes[number],
            probability=float(self._task.probabilities(whole[None])[0, number]),
            start=float(starts[best]),
            samples=samples,
            image=images[best],
            attribution=found,
            logit=float(logits[best, number]),
            missed=missed,
        )

    def explain(
        self, clip: Clip, target: str | None = None, seed: int = 0
    ) -> Explanation:
        """What `attribute` finds, down to the waveform, and what it is worth.

        Takes and raises the same.
        """
        found = self.attribute(clip, target, seed)
        number, image = self.classes.index(found.target), found.image
        rolls, draws = jax.random.split(jax.random.key(seed + 1))
        redrawn = [
            self._attributed(number, image, found.samples, seed, key)[0].sum(axis=-1)
            for key in jax.random.split(draws, REDRAWN)
        ]
        # Silence is so far from what was trained on that masks of any kind break the
        # network at once: what is deleted gets the mean level of the image.
        level = np.broadcast_to(image.mean(axis=(0, 1), keepdims=True), image.shape)
        deletion, insertion = attribution.curves(
            lambda batch: self._probability(batch, number),
            *(image, level, found.map, rolls),
        )
        silence = self._silence(found.samples)
        return Explanation(
            **vars(found),
            waveform=self._of_waveform(found.samples, number),
            silence=float(self.logits(silence[None])[0, number]),
            deletion=deletion,
            insertion=insertion,
            likeness=np.array([attribution.likeness(found.map, x) for x in redrawn]),
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        """The mean logits [B, classes] float64 of images [B, mel, frames, C]."""
        means = []
        for programs in self._programs:
            runs = [programs.logits(variables, images) for variables in programs.runs]
            mean = np.stack(runs).mean(axis=0, dtype=np.float64)
            means.append(mean[:, programs.columns])
        return np.mean(means, axis=0)

    def _probability(self, images: np.ndarray, number: int) -> np.ndarray:
        """Of one class, [B]; batches have one size, so that one program serves."""
        missing = -len(images) % BATCH_SIZE
        full = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        parts = np.split(full, len(full) // BATCH_SIZE)
        logits = np.concatenate([self.logits(part) for part in parts])
        return self._task.probabilities(logits)[: len(images), number]

    def _image_of(self, row: np.ndarray, length: int | None) -> np.ndarray:
        lengths = [] if length is None else [np.array([length], np.int32)]
        return np.asarray(self._image(row[None], *lengths)[0])

    def _row(self, samples: np.ndarray) -> tuple[np.ndarray, int | None]:
        """The samples filled up to a row, and how many there are where it matters."""
        missing = self.classifier.clip_policy.num_samples - len(samples)
        length = len(samples) if self.classifier.clip_policy.needs_length else None
        return np.pad(samples, (0, missing)), length

    def _silence(self, samples: np.ndarray) -> np.ndarray:
        row, length = self._row(samples)
        return self._image_of(np.zeros_like(row), length)

    def _attributed(
        self,
        number: int,
        image: np.ndarray,
        samples: np.ndarray,
        seed: int,
        redrawn: jax.Array | None = None,
    ) -> tuple[np.ndarray, float | None]:
        """The map of the mean logit; with a key that of weights drawn anew by it.

        And of Integrated Gradients what its sum would have missed.
        """
        silence, key, means = self._silence(samples), jax.random.key(seed), []
        for i, programs in enumerate(self._programs):
            runs = programs.runs
            if redrawn is not None:
                runs = programs.redrawn(jax.random.fold_in(redrawn, i))
            target = programs.columns[number]
            pairs = [
                programs.attribution(variables, target, image, silence, key)
                for variables in runs
            ]
            means.append(_means(pairs))
        found, missed = _means(means)
        return np.maximum(found, 0) if self._method == "grad_cam" else found, missed

    def _of_waveform(self, samples: np.ndarray, number: int) -> np.ndarray | None:
        if self._method != "integrated_gradients":
            return None
        row, length = self._row(samples)
        means = []
        for programs in self._programs:
            target = programs.columns[number]
            parts = [
                programs.waveform(variables, target, row, length)
                for variables in programs.runs
            ]
            means.append(np.mean(parts, axis=0)[:length])
        return np.stack(means).mean(axis=0)


def _means(pairs: Sequence[tuple[Any, Any]]) -> tuple[np.ndarray, float | None]:
    """The mean map, and the mean of the numbers beside them where there are such."""
    maps, numbers = zip(*pairs, strict=True)
    mean = None if numbers[0] is None else float(np.mean(numbers))
    return np.mean(maps, axis=0), mean
