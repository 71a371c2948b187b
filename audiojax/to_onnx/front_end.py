"""The log-mel of `features.log_mel` as an ONNX graph of matrix products.

ONNX's own Fourier transform is missing or slow in onnxruntime-web and in converters for
phones. The matrix of a whole transform of 4410 samples would have 39 million numbers.
So the transform is split in two, as Cooley and Tukey do once: with N = N1 * N2 and
n = N2 * n1 + n2, k = k1 + N1 * k2,

    X[k] = sum_n2 e(n2 k2 / N2) * (sum_n1 x[n] e(n k1 / N)),    e(t) = exp(-2 pi i t),

where the inner sum is, for each n2, a matrix product over n1, which takes the window
and the twiddle factors in, and the outer one is a matrix product too. A real signal's
power is the same at k and N - k, so only k1 to N1 / 2 are computed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from audiojax import features
from audiojax.features import LogMel
from audiojax.to_onnx.graph import Graph


def add_log_mel(
    graph: Graph,
    audio: str,
    num_samples: int,
    settings: LogMel,
    length: str | None = None,
) -> str:
    """Adds the log-mel of waveforms.

    Args:
        graph: gets the operators.
        audio: waveforms [B, num_samples].
        num_samples: length of each.
        settings: as of `features.log_mel`.
        length: int32 [B], how many samples are a clip's own, as of
            `features.log_mel`; None for all.

    Returns:
        Images [B, windows, n_mels, frames], channels first.
    """
    half = settings.n_fft // 2
    if length is None:
        pads = graph.constant([0, half, 0, half], np.int64)
        padded = graph.add("Pad", audio, pads, mode="reflect")
    else:
        length = graph.reshape(length, 0, 1)
        padded = _reflected(graph, audio, num_samples, length, half)
    split = _split(settings, num_samples)
    mel = graph.constant(_folded_filters(settings, split))
    outer = graph.constant(_outer(split))
    channels = []
    for window, hop in zip(settings.window_lengths, settings.hop_lengths, strict=True):
        count = _num_frames(num_samples, settings, hop)
        frames = _frames(graph, padded, settings.n_fft, window, hop, count, split)
        power = _power(graph, frames, window, count, split, settings.n_fft, outer)
        bands = graph.add("MatMul", power, mel)
        log = graph.add("Log", graph.add("Add", bands, graph.constant(settings.eps)))
        if length is None:
            weights = features.resize_weights(count, settings.frames).T
            resize = graph.constant(weights)
        else:
            resize = _stretch(graph, length, hop, count, settings)
        channels.append(graph.add("MatMul", resize, log))
    first = graph.constant([1], np.int64)
    images = [graph.add("Unsqueeze", channel, first) for channel in channels]
    image = graph.add(
        "Transpose", graph.add("Concat", *images, axis=1), perm=[0, 1, 3, 2]
    )
    if not settings.top_db:
        return image
    top = graph.add("ReduceMax", image, axes=[2, 3])
    return graph.add(
        "Max", image, graph.add("Sub", top, graph.constant(settings.depth))
    )


class _Split(NamedTuple):
    """N1, of which the first `kept` k1 are computed, and N2."""

    inner: int
    outer: int

    @property
    def kept(self) -> int:
        return self.inner // 2 + 1

    def rows(self, window: int) -> int:
        """How many n1 a window meets."""
        return -(-window // self.outer)


def _num_frames(num_samples: int, settings: LogMel, hop: int) -> int:
    half = settings.n_fft // 2
    return (num_samples + 2 * half - settings.n_fft) // hop + 1


def _split(settings: LogMel, num_samples: int) -> _Split:
    """The split with the fewest products in all frames."""
    n_fft = settings.n_fft

    def products(split: _Split) -> int:
        outer = (2 * split.outer) ** 2 * split.kept
        return sum(
            _num_frames(num_samples, settings, hop) * (2 * window * split.kept + outer)
            for window, hop in zip(
                settings.window_lengths, settings.hop_lengths, strict=True
            )
        )

    divisors = (size for size in range(1, n_fft + 1) if n_fft % size == 0)
    return min((_Split(n_fft // size, size) for size in divisors), key=products)


def _frames(
    graph: Graph, padded: str, n_fft: int, window: int, hop: int, count: int, s: _Split
) -> str:
    """The samples under the windows, [B, N2, frames, n1]."""
    starts = np.arange(count)[None, :, None] * hop + _place(n_fft, window, s)[0]
    within = np.arange(s.outer)[:, None, None]
    steps = np.arange(s.rows(window))[None, None] * s.outer
    # Added in the graph: the sum is long, and a runtime computes it once.
    index = graph.add(
        "Add",
        graph.constant(starts, np.int64),
        graph.constant(within + steps, np.int64),
    )
    return graph.add("Gather", padded, index, axis=1)


def _place(n_fft: int, window: int, split: _Split) -> tuple[int, int]:
    """Where a frame's samples begin in n_fft, and where in them the window does.

    The window is centered in n_fft; its samples are a multiple of N2, and end within.
    """
    begin = (n_fft - window) // 2
    first = min(begin, n_fft - split.rows(window) * split.outer)
    return first, begin - first


def _power(
    graph: Graph,
    frames: str,
    window: int,
    count: int,
    split: _Split,
    n_fft: int,
    outer: str,
) -> str:
    """Power [B, frames, N2 * kept] of frames."""
    rows, kept = split.rows(window), split.kept
    hann = np.zeros(rows * split.outer)
    begin = _place(n_fft, window, split)[1]
    # Periodic: one longer than needed, its last sample dropped.
    hann[begin : begin + window] = np.hanning(window + 1)[:-1]
    n, k1 = np.arange(len(hann)), np.arange(kept)
    inner = hann[:, None] * np.exp(-2j * np.pi * (np.outer(n, k1) % n_fft) / n_fft)
    inner = inner.reshape(rows, split.outer, kept).swapaxes(0, 1)
    matrices = graph.constant([inner.real, inner.imag])
    apart = graph.add("Unsqueeze", frames, graph.constant([1], np.int64))
    spectra = graph.add("MatMul", apart, matrices)  # [B, 2, N2, frames, kept]
    spectra = graph.reshape(spectra, 0, 2 * split.outer, count * kept)
    spectra = graph.add("MatMul", outer, spectra)
    spectra = graph.reshape(spectra, 0, 2, split.outer, count, kept)
    power = graph.add("ReduceSumSquare", spectra, axes=[1], keepdims=0)
    power = graph.add("Transpose", power, perm=[0, 2, 1, 3])
    return graph.reshape(power, 0, 0, split.outer * kept)


def _outer(split: _Split) -> np.ndarray:
    """The outer transform [2 * N2, 2 * N2], real parts first, then imaginary ones."""
    n2 = np.arange(split.outer)
    turn = 2 * np.pi * (np.outer(n2, n2) % split.outer) / split.outer
    real, imaginary = np.cos(turn), -np.sin(turn)
    return np.block([[real, -imaginary], [imaginary, real]])


def _folded_filters(settings: LogMel, split: _Split) -> np.ndarray:
    """The mel filters [N2 * kept, n_mels] in the order in which powers come."""
    filters = features.mel_filters(settings)
    k2, k1 = np.meshgrid(np.arange(split.outer), np.arange(split.kept), indexing="ij")
    k = (k1 + split.inner * k2).ravel()
    frequency = np.minimum(k, settings.n_fft - k)
    # Some come twice, as k and N - k: the second one counts nothing.
    _, once = np.unique(frequency, return_index=True)
    folded = np.zeros((len(k), settings.n_mels), np.float32)
    folded[once] = filters[frequency[once]]
    return folded


def _reflected(
    graph: Graph, audio: str, num_samples: int, length: str, pad: int
) -> str:
    """The first samples, as many as `length` [B, 1], reflected at both ends."""
    one, two = (graph.constant(number, np.int32) for number in (1, 2))
    last = graph.add("Sub", length, one)
    period = graph.add("Max", graph.add("Mul", last, two), one)
    places = graph.constant(np.arange(-pad, num_samples + pad)[None], np.int32)
    place = graph.add("Mod", places, period)
    back = graph.add("Sub", period, place)
    return graph.add("GatherElements", audio, graph.add("Min", place, back), axis=1)


def _stretch(graph: Graph, length: str, hop: int, most: int, settings: LogMel) -> str:
    """Weights [B, frames, most] that stretch what is there of `most` frames.

    See `features._stretch_weights`.
    """

    def whole(number: object) -> str:
        return graph.constant(number, np.int32)

    new = settings.frames
    more = 2 * (settings.n_fft // 2) - settings.n_fft
    size = graph.add("Div", graph.add("Add", length, whole(more)), whole(hop))
    size = graph.reshape(graph.add("Add", size, whole(1)), 0, 1, 1)
    row, column = np.arange(most)[None, None], np.arange(new)[None, :, None]
    centers = graph.add("Mul", whole(2 * column + 1), size)
    apart = graph.add("Sub", whole((2 * row + 1) * new), centers)
    distance = graph.add("Cast", graph.add("Abs", apart), to=1)
    step = graph.add("Mul", graph.add("Max", size, whole(new)), whole(2))
    share = graph.add("Div", distance, graph.add("Cast", step, to=1))
    weight = graph.add("Relu", graph.add("Sub", graph.constant(1.0), share))
    there = graph.add("Cast", graph.add("Less", whole(row), size), to=1)
    weight = graph.add("Mul", weight, there)
    axis = graph.constant([2], np.int64)
    return graph.add("Div", weight, graph.add("ReduceSum", weight, axis))
