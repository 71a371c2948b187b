"""Names what is heard in sound files, by a model that audiojax.export wrote as ONNX.

python classify.py MODEL.onnx FILE [FILE ...] [--top 3]

It needs onnxruntime and NumPy alone, to be copied to where audiojax is not. WAV files
are read by Python itself, all others by soundfile where that is installed. A file's own
probabilities are made as in training's evaluation: of its first row, or, with clip_mode
"crop", by the mean logits of windows all over it. A file longer than the model's row
also has a line for each of windows that overlap by half.
"""

import argparse
import json
import sys
import wave

import numpy as np
import onnxruntime

# How many windows are run at once.
BATCH = 8


def read_wav(path):
    """A WAV file of whole numbers: samples [T, channels] in -1..1, and the rate."""
    with wave.open(path) as file:
        rate, channels = file.getframerate(), file.getnchannels()
        width, content = file.getsampwidth(), file.readframes(file.getnframes())
    if width == 1:  # the only one without a sign
        samples = np.frombuffer(content, np.uint8) / 128.0 - 1
    else:
        # As the upper bytes of 32 bits, which three bytes need too.
        parts = np.frombuffer(content, np.uint8).reshape(-1, width)
        whole = np.zeros((len(parts), 4), np.uint8)
        whole[:, 4 - width :] = parts
        samples = whole.view("<i4")[:, 0] / 2.0**31
    return samples.reshape(-1, channels), rate


def read(path):
    """A sound file mixed to one channel: float [T], and its rate in Hz."""
    try:
        import soundfile
    except ImportError:
        samples, rate = read_wav(path)
    else:
        samples, rate = soundfile.read(path, always_2d=True)
    if not len(samples):
        raise ValueError("it is empty")
    return samples.mean(axis=1), rate


def resample(samples, rate, new_rate):
    """The samples at another rate: what is above half of it is cut off."""
    if rate == new_rate:
        return samples
    # In whole seconds, so that both lengths are whole numbers.
    seconds = -(-len(samples) // rate)
    spectrum = np.fft.rfft(samples, seconds * rate)
    count = -(-len(samples) * new_rate // rate)
    resampled = np.fft.irfft(spectrum, seconds * new_rate)[:count]
    return resampled * (new_rate / rate)


def grid(length, row):
    """Where windows of a file begin that overlap by half, the last one at its end."""
    last = max(length - row, 0)
    return np.append(np.arange(0, last, max(row // 2, 1)), last)


def evaluated(length, row, mode, num_windows):
    """Where the rows of a file begin that evaluation averages over."""
    spare = length - row if mode == "crop" else 0
    count = min(-(-length // row), num_windows)
    if spare <= 0 or count == 1:
        return np.array([max(spare, 0) // 2])
    return np.arange(count) * spare // (count - 1)


def cut(samples, start, row, mode):
    """A row [row] float32 of the samples, filled up where they end."""
    part = samples[start : start + row]
    filled = np.resize(part, row) if mode == "repeat" else np.zeros(row)
    filled[: len(part)] = part
    return filled.astype(np.float32)


def mean_of_logits(probabilities, task):
    """Probabilities [N, classes] of rows as one [classes], by their mean logits."""
    found = probabilities.astype(np.float64)
    if task == "multi_label":
        # float32 is no nearer to 1.
        found = np.clip(found, 6e-8, 1 - 6e-8)
        logits = (np.log(found) - np.log1p(-found)).mean(axis=0)
        return 1 / (1 + np.exp(-logits))
    # Each row's logits but for a constant, which no softmax sees.
    logits = np.log(np.maximum(found, 1e-38)).mean(axis=0)
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


class Model:
    """An exported model.

    Attributes:
        labels: names of the classes.
        rate: samples per second.
        row: how many samples it hears at once.
        mode: what becomes of clips of other lengths.
        num_windows: how many rows of a clip evaluation averages over at most.
        task: "single_label" or "multi_label".
    """

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(
            path, providers=["CPUExecutionProvider"]
        )
        texts = self.session.get_modelmeta().custom_metadata_map
        if "labels" not in texts:
            sys.exit(f"{path}: not written by audiojax.export, it tells no labels")
        told = {name: json.loads(text) for name, text in texts.items()}
        self.labels, self.rate = told["labels"], told["sample_rate"]
        self.row, self.mode = told["samples"], told["clip_mode"]
        self.num_windows, self.task = told["num_windows"], told["task"]

    def __call__(self, samples, rate):
        """Of a sound [T] at a rate its probabilities [classes], and of its windows.

        Of those there come the starts in seconds [N] and the probabilities
        [N, classes].
        """
        samples = resample(samples, rate, self.rate)
        length = len(samples)
        seen = evaluated(length, self.row, self.mode, self.num_windows)
        windows = grid(length, self.row)
        starts = np.union1d(seen, windows)
        found = self.run(samples, starts)
        whole = mean_of_logits(found[np.searchsorted(starts, seen)], self.task)
        return whole, windows / self.rate, found[np.searchsorted(starts, windows)]

    def run(self, samples, starts):
        """Probabilities [N, classes] of the rows that begin at [N] samples."""
        rows = np.stack([cut(samples, at, self.row, self.mode) for at in starts])
        own = min(len(samples), self.row)
        lengths = np.full(len(rows), own, np.int32)
        given = {"audio": rows, "length": lengths}
        names = [tensor.name for tensor in self.session.get_inputs()]
        found = [
            self.session.run(None, {n: given[n][i : i + BATCH] for n in names})[0]
            for i in range(0, len(rows), BATCH)
        ]
        return np.concatenate(found)


def main():
    """Prints the labels of each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--top", type=int, default=3, help="how many labels")
    options = parser.parse_args()
    model, failed = Model(options.model), False

    def best(probabilities):
        order = np.argsort(-probabilities)[: options.top]
        return "  ".join(f"{model.labels[i]} {probabilities[i]:.3f}" for i in order)

    for path in options.files:
        try:
            whole, starts, probabilities = model(*read(path))
        # Each library has its own errors for a file that is none.
        except Exception as error:
            print(f"{path}: can't be read: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{path}: {best(whole)}")
        if len(starts) > 1:
            length = model.row / model.rate
            for start, row in zip(starts, probabilities, strict=True):
                print(f"  {start:.2f}-{start + length:.2f} s: {best(row)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
