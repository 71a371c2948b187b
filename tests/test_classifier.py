import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax import classifier
from audiojax.clips import ClipPolicy
from audiojax.datasets import Clip, Info, Recordings, batches
from audiojax.datasets.store import images
from audiojax.errors import InputError
from audiojax.features import log_mel
from audiojax.task import TASKS
from tests import tiny

SINGLE = TASKS["single_label"]
RATE = 8000
ROW = RATE // 2


@pytest.fixture
def config():
    config = tiny.get_config()
    config.features.update(sample_rate=RATE, n_fft=800, n_mels=16, frames=16)
    config.data.clip_seconds = 0.5
    config.data.num_windows = 3
    return config


def uneven_recordings():
    """Noise from a twentieth of a row to five rows long."""
    lengths = np.array([200, 399, 2000, ROW, ROW + 1, 11000, 20000])
    clips = tuple(
        Clip(str(i), (i % 2,), i % 2 + 1, str(i)) for i in range(len(lengths))
    )

    def read(index):
        random = np.random.default_rng(index)
        return random.normal(scale=0.1, size=lengths[index]).astype(np.float32)

    info = Info("uneven", ("a", "b"), RATE, clips)
    return Recordings(
        info, ["of noise"] * len(info.clips), lengths, read, in_memory=True
    )


def test_the_config_says_what_becomes_of_lengths(config):
    config.data.clip_mode = "crop"
    found = classifier.create(config, ("a", "b"), SINGLE)
    assert found.clip_policy == ClipPolicy("crop", ROW, 3)
    assert found.image_shape == (16, 16, 3)


@pytest.mark.parametrize(
    "name",
    [
        "tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("resnet18", "densenet121", "inception_v3")
        ),
        pytest.param("efficientnet_lite0", marks=pytest.mark.slow),
    ],
)
def test_what_the_head_is_given_makes_the_logits(config, name):
    config.model.name = name
    config.features.n_mels = config.features.frames = 75
    made = classifier.create(config, ("a", "b", "c"), SINGLE)
    variables = made.init(jax.random.key(0))
    random = np.random.default_rng(0)
    image = random.normal(size=(2, *made.image_shape)).astype(np.float32)
    logits, pooled = jax.jit(made.outputs)(variables, image)
    expected = jax.jit(made.logits)(variables, image)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    head = jax.tree.map(np.asarray, variables["params"][made.network.head])
    by_hand = np.asarray(pooled) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(by_hand, expected, rtol=1e-4, atol=1e-4)


def test_the_last_maps_and_the_head_make_the_logits(config):
    found = classifier.create(config, ("a", "b"), SINGLE)
    variables = found.init(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (2, *found.image_shape))
    variables["input"] = {"mean": jnp.array([1.0, 2, 3]), "std": jnp.array([2.0, 1, 4])}
    maps = found.last_maps(variables, image)
    assert maps.shape == (2, 2, 2, 16)
    logits = found.head_logits(variables, maps)
    np.testing.assert_allclose(logits, found.logits(variables, image), rtol=1e-5)


def test_an_unknown_way_with_lengths_is_named(config):
    config.data.clip_mode = "wrap"
    with pytest.raises(
        InputError, match="clip_mode is 'wrap'; choose one of pad, repeat"
    ):
        classifier.create(config, ("a", "b"), SINGLE)


def test_an_unknown_compute_type_is_named(config):
    config.model.dtype = "float16"
    with pytest.raises(InputError, match="dtype is 'float16'; choose one of float32"):
        classifier.create(config, ("a", "b"), SINGLE)


@pytest.mark.parametrize("name", ["densenet121", "inception_v3"])
def test_a_network_without_branches_to_drop_is_named(config, name):
    config.model.update(name=name, drop_path=0.2)
    with pytest.raises(InputError, match=f"0.2, but {name} has no residual branches"):
        classifier.create(config, ("a", "b"), SINGLE)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_a_network_with_branches_gets_the_rate_to_drop_them(config, name):
    config.model.update(name=name, drop_path=0.2)
    assert classifier.create(config, ("a", "b"), SINGLE).network.drop_path == 0.2


@pytest.mark.parametrize("count", [2, 3, 16])
def test_logits_are_averaged_over_shifts_in_time(config, count):
    config.data.test_shifts = count
    parts = classifier.create(config, ("a", "b"), SINGLE)
    variables = parts.init(jax.random.key(0))
    image = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    rolled = [jnp.roll(image, int(i * 16 / count), axis=2) for i in range(count)]
    expected = np.mean([parts.logits(variables, x) for x in rolled], axis=0)
    found = jax.jit(parts.test_logits)(variables, image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - parts.logits(variables, image)).max() > 1e-3


@pytest.mark.parametrize("count", [0, 1])
def test_without_shifts_the_image_is_as_it_is(config, count):
    config.data.test_shifts = count
    parts = classifier.create(config, ("a", "b"), SINGLE)
    variables, image = parts.init(jax.random.key(0)), jax.numpy.ones((2, 16, 16, 3))
    texts = [
        jax.jit(logits).lower(variables, image).as_text().replace(name, "")
        for name, logits in (
            ("test_logits", parts.test_logits),
            ("logits", parts.logits),
        )
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("mode", ["pad", "repeat", "crop", "stretch"])
def test_cached_images_are_those_of_the_waveforms(config, mode, tmp_path):
    """Both stages see the same in evaluation, whatever a clip's length."""
    config.data.clip_mode = mode
    parts = classifier.create(config, ("a", "b"), SINGLE)
    recordings = uneven_recordings()
    given = {"batch_size": 4, "policy": parts.clip_policy}
    compute = jax.jit(parts.batch_image)
    cached = images.image_cache(
        recordings,
        key=repr(parts.log_mel),
        shape=parts.image_shape,
        compute=compute,
        cache_dir=str(tmp_path),
        **given,
    )
    indices = [5, 0, 2, 4, 1]
    audio = batches.eval_batches(recordings, indices, **given)
    stored = batches.eval_batches(recordings, indices, image=cached, **given)
    for left, right in zip(audio, stored, strict=True):
        np.testing.assert_array_equal(compute(right), right["image"])
        np.testing.assert_allclose(compute(left), right["image"], atol=1e-5)
        assert np.isfinite(right["image"]).all()


def test_stretched_images_are_of_the_clips_own_samples(config):
    config.data.clip_mode = "stretch"
    parts = classifier.create(config, ("a", "b"), SINGLE)
    recordings = uneven_recordings()
    (batch,) = batches.eval_batches(
        recordings, range(4), batch_size=4, policy=parts.clip_policy
    )
    found = jax.jit(parts.batch_image)(batch)
    alone = log_mel(recordings.audio(2)[None], parts.log_mel)
    np.testing.assert_allclose(found[2], alone[0], atol=1e-4)
    padded = log_mel(batch["audio"], parts.log_mel)
    assert np.abs(padded[2] - alone[0]).max() > 1
