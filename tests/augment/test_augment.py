import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiojax import augment
from audiojax.augment import Augment, Rows
from audiojax.errors import InputError

SIZE = 8
EVERYTHING = Augment(
    pitch_shift=(-2, 2),
    time_stretch=(0.9, 1.2),
    offset=0.5,
    roll=1.0,
    gain=6.0,
    noise=(0, 20),
    waveform_mixup=0.4,
    shift=1.0,
    time_mask=0.3,
    mel_mask=0.3,
    mixup=0.4,
    cutmix=1.0,
)


def rows_of(shape):
    return Rows(
        values=jax.random.normal(jax.random.key(0), (SIZE, *shape)),
        length=jnp.full(SIZE, shape[0]),
        targets=jnp.eye(SIZE),
        active=jnp.ones(SIZE, bool),
    )


AUDIO, IMAGES = rows_of((400,)), rows_of((12, 20, 3))


# The fields that turn a change on, where they are not of its name.
FIELDS = {"vocoder": ("pitch_shift", "time_stretch")}


@functools.cache
def compiled(*names):
    """The changes of some names, one after the other, as one program."""
    fields = [field for name in names for field in FIELDS.get(name, (name,))]
    settings = {field: getattr(EVERYTHING, field) for field in fields}
    found = augment.changes(Augment(order=names, **settings))
    made = [*found.waveforms, *found.images]
    return jax.jit(lambda rows, keys, key: augment.apply(made, rows, keys, key))


def apply(names, rows, seed=0):
    key = jax.random.key(seed)
    return compiled(*names)(rows, jax.random.split(key, len(rows.values)), key)


def rows_for(name):
    return AUDIO if name in augment.WAVEFORMS else IMAGES


def test_nothing_is_changed_by_default():
    found = augment.changes(Augment())
    assert (found.waveforms, found.images) == ([], [])


@pytest.mark.parametrize("name", augment.CHANGES)
def test_each_change_draws_by_its_key_for_every_clip_apart(name):
    rows = rows_for(name)
    if "mix" not in name:  # equal clips, save where it is the partners that differ
        rows = rows._replace(values=jnp.repeat(rows.values[:1], SIZE, 0))
    once, again, other = (apply([name], rows, seed) for seed in (0, 0, 1))
    # The vocoder's Fourier transform rounds by where its input lies in memory.
    rounding = 1e-5 if name == "vocoder" else 0
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=rounding)
    jax.tree.map(close, once, again)
    assert np.any(once.values != other.values)
    assert np.isfinite(once.values).all()
    assert len({row.tobytes() for row in np.asarray(once.values)}) > SIZE // 2


@pytest.mark.parametrize("name", augment.CHANGES)
def test_rows_that_are_not_active_stay_as_they_are(name):
    active = np.arange(SIZE) % 2 == 0
    rows = rows_for(name)._replace(active=jnp.asarray(active))
    found = apply([name], rows)
    for new, old in zip(found, rows, strict=True):
        np.testing.assert_array_equal(new[~active], old[~active])
    assert np.any(found.values[active] != rows.values[active])


@pytest.mark.parametrize("names", [augment.WAVEFORMS, augment.IMAGES])
def test_devices_do_not_matter(names):
    rows, key = rows_for(names[0]), jax.random.key(3)
    keys = jax.random.split(key, SIZE)
    found = augment.changes(EVERYTHING)
    made = found.waveforms if names == augment.WAVEFORMS else found.images

    def on(count):
        def one(rows, keys):
            return augment.apply(made, rows, keys, key, "batch")

        shared = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), rows)
        step = jax.pmap(one, "batch", devices=jax.devices()[:count])
        found = step(shared, keys.reshape(count, -1))
        return jax.tree.map(lambda x: np.asarray(x).reshape(SIZE, *x.shape[2:]), found)

    for many, one in zip(on(8), on(1), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-6, atol=1e-6)


def test_what_is_drawn_for_a_change_does_not_hang_on_the_others():
    alone = apply(["shift"], IMAGES)
    with_another = Augment(order=("cutmix", "shift"), cutmix=1.0, shift=1.0)
    key = jax.random.key(0)
    _, shift = augment.changes(with_another).images
    found = augment.apply([shift], IMAGES, jax.random.split(key, SIZE), key)
    np.testing.assert_array_equal(found.values, alone.values)


def test_changes_are_made_in_the_order_given():
    names = ("mel_mask", "shift", "mixup")
    settings = Augment(order=names, mel_mask=0.3, shift=1.0, mixup=0.4)
    assert settings.names == names
    numbers = [number for number, _ in augment.changes(settings).images]
    assert numbers == [augment.CHANGES.index(name) for name in names]
    by_itself = Augment(mel_mask=0.3, shift=1.0, mixup=0.4)
    assert by_itself.names == ("shift", "mel_mask", "mixup")


def test_every_change_has_its_place():
    everything = augment.changes(EVERYTHING)
    numbers = [n for n, _ in (*everything.waveforms, *everything.images)]
    assert numbers == list(range(len(augment.CHANGES)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shift": -0.1}, "config.augment.shift is -0.1; expected a share from 0 to 1"),
        ({"offset": 1.5}, "config.augment.offset is 1.5; expected a share"),
        ({"gain": -1.0}, "config.augment.gain is -1.0; give at least 0"),
        ({"mixup": float("nan")}, "config.augment.mixup is nan; give at least 0"),
        ({"pitch_shift": (1,)}, "pitch_shift is .1,.; expected a lowest and a highest"),
        ({"pitch_shift": (-0.5, 1)}, "whole semitones"),
        ({"time_stretch": (1.2, 0.9)}, "time_stretch is .1.2, 0.9.; expected a lowest"),
        ({"time_stretch": (0.1, 1)}, "within 0.5 and 2"),
        ({"order": ("shift", "shift")}, "name each change once"),
        ({"order": ("shift", "roll")}, "those of waveforms .* before those of images"),
        ({"order": ("shfit",)}, "none but vocoder, offset"),
        (
            {"order": ("shift",), "roll": 0.5},
            r"name each change that is on \(roll",
        ),
    ],
)
def test_settings_that_can_not_be_are_refused(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        Augment(**settings)


def test_images_alone_have_no_waveforms_to_change():
    augment.check_stage(Augment(shift=1.0), "spectrogram")
    augment.check_stage(Augment(roll=1.0), "audio")
    with pytest.raises(InputError, match=r"\(roll, gain\).*stage to audio"):
        augment.check_stage(Augment(roll=1.0, gain=3.0), "spectrogram")
