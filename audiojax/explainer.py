"""What trained runs look at in a sound, and whether that can be trusted."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from audiojax import attribution
from audiojax.attribution import Curve
from audiojax.classifier import Classifier
from audiojax.errors import InputError, check_choice, listed
from audiojax.inference import BATCH_SIZE, Clip, Member, evaluated_rows
from audiojax.predictor import Predictor
from audiojax.pretrained import Variables

# A map is said to be worthless, if it is more like those of weights drawn anew.
LIKENESS_LIMIT = 0.5
# How many times they are drawn.
REDRAWN = 3


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What one class's logit comes from, in the row of a sound that has most of it.

    Attributes:
        predicted: the most probable class of the whole sound.
        target: the class that is explained.
        probability: of the target, of the whole sound.
        start: seconds at which the row begins.
        samples: [T] float32, what the image is of.
        image: [mel, frames, C], the log-mel.
        attribution: [mel, frames, C].
        waveform: attribution [T] of the samples, by Integrated Gradients; None of
            other methods.
        logit: of the target, of this row.
        silence: the same of silence, the baseline.
        deletion: the target's probability as the map's pixels get the mean level.
        insertion: the same as they are put into an image of the mean level.
        likeness: [REDRAWN], how like the map is to those of weights drawn anew.
    """

    predicted: str
    target: str
    probability: float
    start: float
    samples: np.ndarray
    image: np.ndarray
    attribution: np.ndarray
    waveform: np.ndarray | None
    logit: float
    silence: float
    deletion: Curve
    insertion: Curve
    likeness: np.ndarray

    @property
    def map(self) -> np.ndarray:
        """The attribution of all channels together, [mel, frames]."""
        return self.attribution.sum(axis=-1)

    @property
    def rough(self) -> bool:
        """Whether Integrated Gradients' sum is off by more than a hundredth."""
        if self.waveform is None:
            return False
        difference = self.logit - self.silence
        found = self.attribution.sum(dtype=np.float64)
        return bool(abs(found - difference) > 0.01 * abs(difference))

    @property
    def worthless(self) -> bool:
        """Whether the map does not depend on the weights."""
        return bool(self.likeness.mean() > LIKENESS_LIMIT)


def integrated_gradients(
    classifier: Classifier,
    variables: Variables,
    target: jax.Array,
    image: jax.Array,
    silence: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """See `attribution.integrated_gradients`; the baseline is the image of silence.

    Not the mean of the training clips: only some workdirs know it, and silence is what
    a part of a sound that is taken away leaves.
    """
    del key
    score = functools.partial(_score, classifier, variables, target)
    path = attribution.linear_path()
    return attribution.integrated_gradients(score, image, silence, path)


def smooth_grad(
    classifier: Classifier,
    variables: Variables,
    target: jax.Array,
    image: jax.Array,
    silence: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """See `attribution.smooth_grad`."""
    del silence
    score = functools.partial(_score, classifier, variables, target)
    return attribution.smooth_grad(score, image, key)


def grad_cam(
    classifier: Classifier,
    variables: Variables,
    target: jax.Array,
    image: jax.Array,
    silence: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """See `attribution.grad_cam`; each channel of the image has an equal part.

    Of the image as it is, where evaluation averages over shifts of it.
    """
    del silence, key
    maps = classifier.last_maps(variables, image[None])[0]

    def head(maps: jax.Array) -> jax.Array:
        return classifier.head_logits(variables, maps)[:, target]

    found = attribution.grad_cam(head, maps, (image.shape[0], image.shape[1]))
    return jnp.broadcast_to(found[..., None], image.shape) / image.shape[-1]


Method = Callable[
    [Classifier, Variables, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
]
METHODS: dict[str, Method] = {
    "integrated_gradients": integrated_gradients,
    "smooth_grad": smooth_grad,
    "grad_cam": grad_cam,
}


def waveform_gradients(
    classifier: Classifier,
    variables: Variables,
    target: jax.Array,
    audio: jax.Array,
    length: jax.Array | None,
) -> jax.Array:
    """Integrated Gradients [T] of a waveform [T], whose baseline are zeros."""

    def score(batch: jax.Array) -> jax.Array:
        lengths = None if length is None else jnp.full(len(batch), length)
        image = classifier.image(batch, lengths)
        return _score(classifier, variables, target, image)

    path = attribution.geometric_path()
    return attribution.integrated_gradients(score, audio, jnp.zeros_like(audio), path)


def _score(
    classifier: Classifier, variables: Variables, target: jax.Array, image: jax.Array
) -> jax.Array:
    return classifier.test_logits(variables, image)[:, target]


class _Programs:
    """What is compiled for the runs of a workdir; nothing twice."""

    def __init__(self, member: Member, method: Method):
        self.runs = member.variables
        self.columns = member.columns
        classifier = member.classifier
        self.logits = jax.jit(classifier.test_logits)
        self.attribution = jax.jit(functools.partial(method, classifier))
        self.waveform = jax.jit(functools.partial(waveform_gradients, classifier))
        self._draw = jax.jit(dataclasses.replace(classifier, weights=None).init)

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

    def explain(
        self, clip: Clip, target: str | None = None, seed: int = 0
    ) -> Explanation:
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
        length = own if self.classifier.clip_policy.mode == "stretch" else None
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
        image, row = images[best], rows[best]
        silence = self._image_of(np.zeros_like(row), length)
        smooth, rolls, draws = jax.random.split(jax.random.key(seed), 3)
        found = self._attributed(None, number, image, silence, smooth)
        shuffled = [
            self._attributed(key, number, image, silence, smooth).sum(axis=-1)
            for key in jax.random.split(draws, REDRAWN)
        ]
        flat = found.sum(axis=-1)
        # Silence is so far from what was trained on that masks of any kind break the
        # network at once: what is deleted gets the mean level of the image.
        level = np.broadcast_to(image.mean(axis=(0, 1), keepdims=True), image.shape)
        deletion, insertion = attribution.curves(
            lambda batch: self._probability(batch, number), image, level, flat, rolls
        )
        return Explanation(
            predicted=self.classes[predicted],
            target=self.classes[number],
            probability=float(self._task.probabilities(whole[None])[0, number]),
            start=float(starts[best]),
            samples=row[:length],
            image=image,
            attribution=found,
            waveform=self._of_waveform(row, length, number),
            logit=float(logits[best, number]),
            silence=float(self.logits(silence[None])[0, number]),
            deletion=deletion,
            insertion=insertion,
            likeness=np.array([attribution.likeness(flat, x) for x in shuffled]),
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

    def _attributed(
        self,
        key: jax.Array | None,
        number: int,
        image: np.ndarray,
        silence: np.ndarray,
        smooth: jax.Array,
    ) -> np.ndarray:
        """The map of the mean logit; with a key that of weights drawn anew."""
        means = []
        for i, programs in enumerate(self._programs):
            runs = programs.runs
            if key is not None:
                runs = programs.redrawn(jax.random.fold_in(key, i))
            target = programs.columns[number]
            maps = [
                programs.attribution(variables, target, image, silence, smooth)
                for variables in runs
            ]
            means.append(np.mean(maps, axis=0))
        found = np.mean(means, axis=0)
        return np.maximum(found, 0) if self._method == "grad_cam" else found

    def _of_waveform(
        self, row: np.ndarray, length: int | None, number: int
    ) -> np.ndarray | None:
        if self._method != "integrated_gradients":
            return None
        means = []
        for programs in self._programs:
            target = programs.columns[number]
            parts = [
                programs.waveform(variables, target, row, length)
                for variables in programs.runs
            ]
            means.append(np.mean(parts, axis=0)[:length])
        return np.stack(means).mean(axis=0)
