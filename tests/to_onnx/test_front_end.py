import dataclasses

import numpy as np
import onnx
import pytest

from audiojax import features
from audiojax.features import PRESETS, LogMel

ort = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

from audiojax.to_onnx.front_end import add_log_mel  # noqa: E402
from audiojax.to_onnx.graph import Graph, Shaped  # noqa: E402

SMALL = LogMel(
    sample_rate=8000,
    n_fft=400,
    window_ms=(25.0, 50.0),
    hop_ms=(10.0, 30.0),
    n_mels=20,
    frames=30,
)


def model(settings, num_samples, stretched=False):
    graph = Graph()
    inputs: dict[str, Shaped] = {"audio": (np.float32, ["batch", num_samples])}
    if stretched:
        inputs["length"] = (np.int32, ["batch"])
    length = "length" if stretched else None
    image = add_log_mel(graph, "audio", num_samples, settings, length)
    shape = ["batch", len(settings.window_ms), settings.n_mels, settings.frames]
    return graph.model(inputs, {image: (np.float32, shape)}, {})


def run(built, **inputs):
    session = ort.InferenceSession(built.SerializeToString())
    (image,) = session.run(None, inputs)
    return image.transpose(0, 2, 3, 1)


def sounds(settings, count, num_samples):
    """Tones that begin and end in a little noise."""
    random = np.random.default_rng(0)
    time = np.arange(num_samples) / settings.sample_rate
    pitch = random.uniform(100, settings.sample_rate / 3, (count, 1))
    tone = np.sin(2 * np.pi * pitch * time) * (time < time.mean())
    return (tone + random.normal(0, 0.01, tone.shape)).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"n_fft": 512},
        {"n_fft": 401},  # a prime, which can't be split
        {"n_fft": 405, "window_ms": (49.9, 12.3)},  # odd, and windows beside its parts
        {"window_ms": (10.0,), "hop_ms": (7.5,), "frames": 200},
        {"top_db": 20.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 7])
def test_it_is_the_log_mel(change, batch):
    settings = dataclasses.replace(SMALL, **change)
    audio = sounds(settings, batch, 3001)
    found = run(model(settings, 3001), audio=audio)
    np.testing.assert_allclose(
        found, features.log_mel(audio, settings), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("length", [3001, 3000, 1500, 201, 57, 1])
def test_images_are_stretched_to_their_own_length(length):
    audio = sounds(SMALL, 3, 3001)
    lengths = np.array([length, 3001, 700], np.int32)
    found = run(model(SMALL, 3001, stretched=True), audio=audio, length=lengths)
    expected = features.log_mel(audio, SMALL, lengths)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    settings = PRESETS[preset]
    audio = sounds(settings, 2, 4 * settings.sample_rate)
    found = run(model(settings, audio.shape[1]), audio=audio)
    np.testing.assert_allclose(
        found, features.log_mel(audio, settings), rtol=1e-3, atol=1e-3
    )


def test_there_is_no_fourier_transform_and_no_large_matrix():
    built = model(LogMel(), 5 * 44100)
    operators = {node.op_type for node in built.graph.node}
    assert operators <= {
        *("Pad", "Add", "Gather", "Unsqueeze", "MatMul", "Reshape", "Concat"),
        *("ReduceSumSquare", "Transpose", "Log"),
    }
    assert built.ByteSize() < 8e6  # the whole transforms: 136e6
    onnx.checker.check_model(built, full_check=True)
