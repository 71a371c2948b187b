"""Two networks of one form beside each other: how alike their features are, by layer.

Before and after training, pretrained and random, or of two seeds: each is a set of
variables of the same classifier, and both see the same images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from audiojax import activations, models, similarity
from audiojax.classifier import Classifier, Variables
from audiojax.errors import InputError, difference
from audiojax.workdir import Workdir

# The share of the variance whose directions each measure of same layers takes.
MEASURES = {"svcca": similarity.VARIANCE, "cca": 1.0}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How alike the layers of two networks are.

    Attributes:
        layers: [L] names of stages and of layers inside of them.
        cka: [L, L], debiased linear CKA of features pooled over the image, each clip an
            example: rows are the layers before, columns those after.
        correlation: [L], of each layer with itself, all pixels of all clips being
            examples: SVCCA or the mean canonical correlation.
        change: [L], the relative change of each layer's weights.
    """

    layers: tuple[str, ...]
    cka: np.ndarray
    correlation: np.ndarray
    change: np.ndarray

    def rows(self) -> list[dict[str, str | float]]:
        """A row of a table for each layer: `layer`, `cka`, `correlation`, `change`.

        Their `cka` is that of the layer with itself.
        """
        columns = np.diagonal(self.cka), self.correlation, self.change
        return [
            {"layer": name, "cka": cka, "correlation": correlation, "change": change}
            for name, cka, correlation, change in zip(
                self.layers, *(column.tolist() for column in columns), strict=True
            )
        ]


def compare(
    classifier: Classifier,
    before: Variables,
    after: Variables,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
    measure: str = "svcca",
) -> Comparison:
    """Compares two networks of one form on the same images.

    Args:
        classifier: what both are of; only its network and its images' size are used.
        before: `params`, `batch_stats` and `input` of the one, as `Classifier.init` and
            `Workdir.variables` give them.
        after: those of the other.
        images: log-mel images [N, mel, frames, C], not standardized; each network
            standardizes them by its own `input`.
        layers: names of stages and of layers inside of them (`models.capture`); None
            for all stages.
        measure: of layers with themselves, "svcca", or "cca" for the mean canonical
            correlation over all directions.

    Returns:
        The comparison, of which `compare(after, before)` is the transpose, save for
        `change`.

    Raises:
        InputError: for an unknown measure or layer, for too few images
            (`check_images`), or where features are constant or not finite; the layer is
            named.
    """
    if measure not in MEASURES:
        raise InputError(f"measure is {measure!r}; choose one of {', '.join(MEASURES)}")
    names = models.stage_names(classifier.network) if layers is None else tuple(layers)
    check_images(classifier, len(images), names)
    moments = {name: similarity.Moments() for name in names}
    pooled: list[tuple[dict[str, np.ndarray], ...]] = []
    both = [
        activations.batches(classifier, variables, images, names)
        for variables in (before, after)
    ]
    for pair in zip(*both, strict=True):
        pooled.append(tuple({n: x.mean(axis=1) for n, x in of.items()} for of in pair))
        for name in names:
            x, y = (of[name].reshape(-1, of[name].shape[-1]) for of in pair)
            moments[name].add(x, y)
    first, other = (
        {name: np.concatenate([of[name] for of in side]) for name in names}
        for side in zip(*pooled, strict=True)
    )
    correlations = [
        _named(name, lambda m=m: m.correlations(MEASURES[measure]).mean())
        for name, m in moments.items()
    ]
    return Comparison(
        names,
        heat_map(first, other),
        np.array(correlations),
        changes(classifier, before, after, names),
    )


def check_images(
    classifier: Classifier, count: int, layers: Sequence[str] | None = None
) -> None:
    """Checks that so many images are enough to compare layers; computes nothing.

    Raises:
        InputError: for a name that the network lacks, or too few images for a layer's
            canonical correlations, all pixels being examples.
    """
    for name, (pixels, channels) in activations.sizes(classifier, layers).items():
        least = -(-similarity.EXAMPLES_PER_DIMENSION * channels // pixels)
        if count < least:
            raise InputError(
                f"{name}: {count} clips of {pixels} pixels are too few for "
                f"{channels} dimensions; give at least {least} clips, or leave the "
                "layer out"
            )


def heat_map(
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    measure: Callable[[np.ndarray, np.ndarray], float] = similarity.cka,
) -> np.ndarray:
    """How alike each layer of one network is to each of another.

    Args:
        before: features [N, D] of the same N clips by the layers' names, as
            `activations.pooled` gives them.
        after: those of the other network, which may be of another form.
        measure: of two sets of features, such as `similarity.svcca`.

    Returns:
        [layers before, layers after].

    Raises:
        InputError: as the measure, with the layers' names.
    """
    return np.array(
        [
            [
                _named(f"{a} and {b}", lambda x=x, y=y: measure(x, y))
                for b, y in after.items()
            ]
            for a, x in before.items()
        ]
    )


def changes(
    classifier: Classifier,
    before: Variables,
    after: Variables,
    layers: Sequence[str] | None = None,
) -> np.ndarray:
    """The relative change of the weights of layers (`similarity.relative_change`).

    Weights are all parameters, those of BatchNorm too; running statistics are none.

    Args:
        classifier: what both are of.
        before: variables, of which `params` are taken.
        after: those of the other network.
        layers: names of stages and of layers inside of them; None for all stages.

    Returns:
        [L], 0 where nothing changed.

    Raises:
        InputError: for a name that the network lacks.
    """
    network = classifier.network
    names = models.stage_names(network) if layers is None else tuple(layers)
    sides = [variables["params"] for variables in (before, after)]
    found = []
    for name in names:
        weights = (models.layer_params(network, params, name) for params in sides)
        found.append(_named(name, lambda of=weights: similarity.relative_change(*of)))
    return np.array(found)


def _named(name: str, function: Callable[[], float]) -> float:
    """What a function gives; what it refuses is told with the layer's name."""
    try:
        return float(function())
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def check_same(first: Workdir, other: Workdir) -> None:
    """Checks that the runs of two workdirs can be compared layer by layer.

    Raises:
        InputError: if they are of different networks, images, classes or clips.
    """
    ours, theirs = first.classifier, other.classifier
    stages = [models.stage_names(c.network) for c in (ours, theirs)]
    pairs = {
        "network": (first.model, other.model),
        "last stage": (stages[0][-1], stages[1][-1]),
        "config.features": (ours.log_mel, theirs.log_mel),
        "clip policy": (ours.clip_policy, theirs.clip_policy),
    }
    for what, (here, there) in pairs.items():
        if here != there:
            raise InputError(
                f"{other.path}: its {what} is {there}, that of {first.path} is {here}; "
                "compare runs of one network on the same images"
            )
    if first.classes != other.classes:
        raise InputError(
            f"{other.path}: other classes than {first.path}; it "
            f"{difference(first.classes, other.classes) or 'has another order'}; "
            "compare runs of the same data"
        )
    data, other_data = first.data, other.data
    if data and other_data and (what := other_data.differs(data)):
        raise InputError(
            f"{other.path}: other clips than {first.path}; {what}; compare runs of the "
            "same data"
        )
