"""What is looked at in a made sound, by a network made by hand and by trained ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiojax
from audiojax import audible
from audiojax.classifier import Classifier
from audiojax.clips import ClipPolicy
from audiojax.errors import InputError
from audiojax.explainer import Explainer
from audiojax.features import LogMel, mel_corners
from audiojax.inference import Member
from audiojax.methods import METHODS
from audiojax.models import Network
from audiojax.predictor import Predictor
from audiojax.task import TASKS

RATE = 8000
LOG_MEL = LogMel(sample_rate=RATE, n_fft=800, n_mels=32, frames=50)
HERTZ, BURST = 1000, (0.4, 0.6)
CENTERS = mel_corners(LOG_MEL)[1:-1]
BAND = (CENTERS > 700) & (CENTERS < 1400)


class BandEnergy(Network):
    """The energy in a band, averaged over the image; only its head has weights."""

    head = "fc"
    init_conv = jax.nn.initializers.he_normal()

    def stages(self, conv, norm, drop):
        mask = jnp.asarray(BAND, jnp.float32)[None, :, None, None]
        # With fresh statistics a BatchNorm changes next to nothing.
        return [("band", [lambda image: jnp.exp(image) * mask, ("bn", norm)])]


def made(task="single_label", mode="pad"):
    """A classifier, and its variables: the energy is for one class and against one."""
    classifier = Classifier(
        network=BandEnergy(num_classes=2),
        log_mel=LOG_MEL,
        classes=("burst", "none"),
        clip_policy=ClipPolicy(mode, RATE, 3),
        weights=None,
        task=TASKS[task],
    )
    head = {"kernel": 1e-2 * jnp.array([[1.0, -1]] * 3), "bias": jnp.zeros(2)}
    variables = classifier.init(jax.random.key(0))
    return classifier, variables | {"params": {**variables["params"], "fc": head}}


def opened(classifier, *runs):
    member = Member(classifier, runs, classifier.classes)
    return Predictor([member], {"made": ["by hand"] * len(runs)})


def sound(seconds=1.0, noise=0.05):
    times = np.arange(int(seconds * RATE)) / RATE
    inside = (times >= BURST[0]) & (times < BURST[1])
    tone = 0.5 * inside * np.sin(2 * np.pi * HERTZ * times)
    found = tone + np.random.default_rng(0).normal(scale=noise, size=len(times))
    return found.astype(np.float32), RATE


@pytest.fixture(scope="module")
def found():
    """A function of a method, which gives its explanation of the burst."""

    @functools.cache
    def found(method):
        return Explainer(opened(*made()), method).explain(sound())

    return found


def test_the_parts_sum_to_the_difference_from_silence(found):
    explained = found("integrated_gradients")
    difference = explained.logit - explained.silence
    assert explained.attribution.sum() == pytest.approx(difference, rel=0.01)
    assert explained.waveform.sum() == pytest.approx(difference, rel=0.01)
    assert not explained.incomplete
    total, alone = explained.sums
    assert total == pytest.approx(explained.attribution.sum() / difference)
    assert alone == pytest.approx(1, abs=0.02)
    assert found("smooth_grad").sums is None
    # The logit as NumPy has it.
    energy = np.exp(explained.image)[BAND].sum(axis=(0, 1)) / 32 / 50
    assert explained.logit == pytest.approx(1e-2 * energy.sum(), rel=1e-4)


@pytest.mark.parametrize("method", ["integrated_gradients", "smooth_grad"])
def test_the_burst_is_what_is_looked_at(found, method):
    explained = found(method)
    assert (explained.predicted, explained.target) == ("burst", "burst")
    positive = np.maximum(explained.map, 0)
    middles = (np.arange(50) + 0.5) / 50
    inside = (middles > BURST[0] - 0.05) & (middles < BURST[1] + 0.05)
    assert positive[BAND][:, inside].sum() >= 0.8 * positive.sum()
    mask = audible.kept_pixels(explained.map)
    kept, left = audible.split(explained.samples, mask.astype(float), LOG_MEL)
    burst = slice(*(int(second * RATE) for second in BURST))
    place = round(HERTZ * (BURST[1] - BURST[0]))
    loud, soft = (abs(np.fft.rfft(part[burst])[place]) for part in (kept, left))
    assert 20 * np.log10(loud / soft) >= 10


def test_the_waveform_s_part_is_in_the_burst(found):
    size = np.abs(found("integrated_gradients").waveform)
    burst = slice(*(int(second * RATE) for second in BURST))
    assert size[burst].sum() > 0.8 * size.sum()
    assert found("smooth_grad").waveform is None


def test_grad_cam_is_the_mean_over_channels_of_the_last_maps(found):
    """All weights are alike, so their gradients are: the map is the energies' sum."""
    explained = found("grad_cam")
    energy = np.exp(explained.image.astype(np.float64)) * BAND[:, None, None]
    expected = 1e-2 / (32 * 50) * energy.sum(axis=-1)
    np.testing.assert_allclose(explained.map, expected, rtol=1e-3, atol=1e-9)
    assert (found("grad_cam").attribution >= 0).all()


def test_deletion_and_insertion_beat_random_masks(found):
    explained = found("integrated_gradients")
    assert explained.deletion.area < explained.deletion.random_area
    assert explained.insertion.area > explained.insertion.random_area
    ends = explained.deletion.probability[[0, -1]]
    np.testing.assert_allclose(explained.insertion.probability[[-1, 0]], ends)
    assert ends[0] == pytest.approx(explained.probability)


def test_an_explanation_that_ignores_the_weights_is_worthless(found):
    """New weights of this network's head make the same map, larger or negative."""
    explained = found("integrated_gradients")
    assert explained.likeness.shape == (3,)
    assert explained.worthless


def test_the_other_class_has_the_opposite_map(found):
    explained = Explainer(opened(*made())).explain(sound(), target="none")
    assert (explained.predicted, explained.target) == ("burst", "none")
    assert explained.probability < 0.5
    expected = -found("integrated_gradients").attribution
    np.testing.assert_allclose(explained.attribution, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param("integrated_gradients", marks=pytest.mark.slow),
        *("smooth_grad", "grad_cam"),
    ],
)
def test_the_mean_of_runs_is_explained(method):
    classifier, variables = made()

    def louder(factor):
        head = {"fc": {"kernel": factor * kernel, "bias": jnp.zeros(2)}}
        return variables | {"params": variables["params"] | head}

    kernel = variables["params"]["fc"]["kernel"]
    both = opened(classifier, variables, louder(2))
    single = opened(classifier, louder(1.5))
    of_both, of_mean = (Explainer(x, method).explain(sound()) for x in (both, single))
    assert of_both.logit == pytest.approx(of_mean.logit, rel=1e-5)
    np.testing.assert_allclose(
        of_both.attribution, of_mean.attribution, rtol=1e-4, atol=1e-6
    )


def test_of_several_rows_the_one_that_has_most_of_the_class():
    classifier, variables = made(mode="crop")
    silence = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([silence, sound()[0]])
    explained = Explainer(opened(classifier, variables)).explain((samples, RATE))
    assert explained.start == 2
    np.testing.assert_array_equal(explained.samples, sound()[0])


@pytest.mark.slow
def test_a_stretched_sound_has_only_its_own_samples():
    classifier, variables = made(mode="stretch")
    explainer = Explainer(opened(classifier, variables))
    explained = explainer.explain(sound(0.7))
    assert explained.waveform is not None
    assert explained.samples.shape == explained.waveform.shape == (int(0.7 * RATE),)
    positive = np.maximum(explained.map, 0).sum(axis=0)
    middles = (np.arange(50) + 0.5) / 50 * 0.7
    inside = (middles > BURST[0] - 0.05) & (middles < BURST[1] + 0.05)
    assert positive[inside].sum() > 0.8 * positive.sum()


def test_bad_input():
    explainer = Explainer(opened(*made()))
    with pytest.raises(InputError, match="no class 'bark'; the classes are burst, no"):
        explainer.explain(sound(), target="bark")
    with pytest.raises(InputError, match="method is 'guess'; choose one of integrated"):
        Explainer(opened(*made()), "guess")
    classifier, variables = made()
    broken = jax.tree.map(lambda x: x * np.nan, variables)
    with pytest.raises(InputError, match="logits are not finite"):
        Explainer(opened(classifier, broken)).explain(sound())
    members = [
        Member(made(mode=mode)[0], [variables], classifier.classes)
        for mode in ("pad", "repeat")
    ]
    with pytest.raises(InputError, match="b hears other images than a"):
        Explainer(Predictor(members, {"a": ["x"], "b": ["x"]}))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_trained_runs(trained_of, method):
    """The sums, that all is repeatable, and that the map depends on the weights."""
    model = audiojax.load(trained_of("crop").workdir)
    clip = trained_of("crop").clips()[9]
    explainer = Explainer(model, method)
    explained = explainer.explain(clip)
    np.testing.assert_allclose(
        explained.probability, model.probabilities([clip]).max(), rtol=1e-4
    )
    assert (explainer.explain(clip).attribution == explained.attribution).all()
    assert not explained.worthless
    if method == "integrated_gradients":
        difference = explained.logit - explained.silence
        assert explained.attribution.sum() == pytest.approx(difference, rel=0.01)
