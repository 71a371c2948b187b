"""A class's logit as a function of images, of waveforms, and of the last stage."""

import jax.numpy as jnp
import numpy as np

from audiojax.methods import METHODS, Logit
from tests import test_explainer


def test_the_logit_is_one_whatever_it_is_made_of():
    classifier, variables = test_explainer.made()
    audio, _ = test_explainer.sound()
    batch = jnp.stack([audio, audio / 2])
    image = classifier.image(batch)
    energy = np.exp(np.asarray(image, np.float64))[:, test_explainer.BAND]
    expected = 1e-2 * energy.sum(axis=(1, 2, 3)) / (32 * 50)
    for sign, target in ((1, 0), (-1, 1)):
        logit = Logit(classifier, variables, jnp.asarray(target))
        maps = classifier.last_maps(variables, image)
        for found in (logit(image), logit.of_audio(None, batch), logit.of_maps(maps)):
            np.testing.assert_allclose(found, sign * expected, rtol=1e-3)


def test_grad_cam_has_an_equal_part_in_each_channel():
    classifier, variables = test_explainer.made()
    image = jnp.ones(classifier.image_shape)
    logit = Logit(classifier, variables, jnp.asarray(0))
    found, missed = METHODS["grad_cam"](logit, image, image, image)
    assert found.shape == image.shape
    assert missed is None
    np.testing.assert_array_equal(found, np.repeat(found[..., :1], 3, axis=-1))
