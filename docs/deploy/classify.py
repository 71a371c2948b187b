"""Names what is heard in sound files, by a model that audiojax.export wrote as ONNX.

python classify.py MODEL.onnx FILE [FILE ...] [--top 3]

It needs onnxruntime and NumPy alone, to be copied to where audiojax is not. WAV files
are read by Python itself, all others by soundfile where that is installed. A file
longer than the model's row is heard through windows that overlap by half: each has a
line, and the file's own probabilities are their mean.
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


def windows(samples, row, mode):
    """Starts [N] in samples, rows [N, row] float32, and their own lengths [N]."""
    if len(samples) <= row:
        own = len(samples)
        filled = np.resize(samples, row) if mode == "repeat" else np.zeros(row)
        filled[:own] = samples
        rows, starts = filled[None], np.array([0])
    else:
        own, last = row, len(samples) - row
        starts = np.append(np.arange(0, last, max(row // 2, 1)), last)
        rows = np.stack([samples[start : start + row] for start in starts])
    return starts, rows.astype(np.float32), np.full(len(starts), own, np.int32)


class Model:
    """An exported model.

    Attributes:
        labels: names of the classes.
        rate: samples per second.
        row: how many samples it hears at once.
        mode: what becomes of clips that are shorter.
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

    def __call__(self, samples, rate):
        """Starts in seconds [N] and probabilities [N, classes] of the windows."""
        samples = resample(samples, rate, self.rate)
        starts, rows, lengths = windows(samples, self.row, self.mode)
        given = {"audio": rows, "length": lengths}
        names = [tensor.name for tensor in self.session.get_inputs()]
        found = [
            self.session.run(None, {n: given[n][i : i + BATCH] for n in names})[0]
            for i in range(0, len(rows), BATCH)
        ]
        return starts / self.rate, np.concatenate(found)


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
            starts, probabilities = model(*read(path))
        # Each library has its own errors for a file that is none.
        except Exception as error:
            print(f"{path}: can't be read: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{path}: {best(probabilities.mean(axis=0))}")
        if len(starts) > 1:
            length = model.row / model.rate
            for start, row in zip(starts, probabilities, strict=True):
                print(f"  {start:.2f}-{start + length:.2f} s: {best(row)}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
