"""The builder of TensorFlow Datasets that all sound files are prepared by."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import absl.logging
import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import registered

from audiojax import sounds
from audiojax.datasets import parallel
from audiojax.datasets.recordings import Info
from audiojax.errors import InputError

# The splits: every file's samples, and what is known of them, in the same order.
AUDIO, NOTES = "audio", "notes"
# 16-bit steps between the extremes of a sound that is no more than a dither's noise.
SILENCE = 2
UNUSABLE = sounds.Sound(np.zeros(0, np.int16), clipped=False, loud=False)

Example = dict[str, Any]
# Its name in the data set, and where it lies.
File = tuple[str, Any]


class Note(NamedTuple):
    """What is known of one sound file once it has been decoded.

    Attributes:
        filename: in the data set.
        num_samples: stored, at the rate of the data set; 0 if it can't be used.
        sha256: of the stored samples.
        silent: whether there is nothing in it to be heard.
        clipped: whether it was cut at full scale, see `sounds.Sound`.
        loud: whether it was above full scale, and is cut there now.
        problem: why it can't be used, or "".
    """

    filename: str
    num_samples: int
    sha256: str
    silent: bool
    clipped: bool
    loud: bool
    problem: str


def decode(file: File, sample_rate: int) -> Example:
    """One example of the split `audio`, to be stored at that rate in Hz.

    A file that can't be used has no samples.
    """
    filename, path = file
    try:
        sound, problem = sounds.decode(path, sample_rate), ""
    except InputError as error:
        sound, problem = UNUSABLE, str(error)
    samples = sound.samples
    return {
        "audio": samples,
        "filename": _encoded(filename),
        "num_samples": len(samples),
        "sha256": hashlib.sha256(samples.tobytes()).hexdigest(),
        "silent": len(samples) > 0 and np.ptp(samples.astype(np.int32)) <= SILENCE,
        "clipped": sound.clipped,
        "loud": sound.loud,
        "problem": _encoded(problem),
    }


def _encoded(text: str) -> bytes:
    """File names may hold bytes that are no text: they pass unchanged."""
    return text.encode("utf-8", "surrogateescape")


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if type(value) is bytes else value


def _without_samples(example: Example) -> Example:
    return example | {"audio": np.zeros(0, np.int16)}


class AudioFiles(tfds.core.GeneratorBasedBuilder):
    """Stores sound files as mono 16-bit samples at one rate, each once.

    Labels and folds are not stored: they may change without anything being decoded
    again. No file is left out, so that a clip is found by its place; one that can't be
    used has its `problem` and no samples.

    TensorFlow Datasets' `Audio` feature would leave an array in 64-bit integers, four
    times the size and slow to parse; `Tensor` stores its bytes, so reading a clip costs
    little more than a copy.
    """

    VERSION = tfds.core.Version("3.0.0")

    def __init__(
        self,
        info: Info,
        files: Sequence[File],
        folder: epath.PathLike,
        *,
        on_clip: Callable[[], object] = lambda: None,
        decoded: Iterable[Example] | None = None,
    ):
        """Builds nothing yet.

        Args:
            info: of the data set, with the rate to store at.
            files: those to store, in this order.
            folder: where to store them.
            on_clip: called as each file is stored, unless Beam does it.
            decoded: examples of the files, instead of decoding them.
        """
        self.data_set, self.files = info, files
        self.text = info.description or info.name
        self.on_clip, self.decoded = on_clip, decoded
        self.decode = functools.partial(decode, sample_rate=info.sample_rate)
        self._notes: list[Example] = []
        config = tfds.core.BuilderConfig(name=info.name, description=self.text)
        with quiet():
            super().__init__(config=config, data_dir=folder)

    def _info(self) -> tfds.core.DatasetInfo:
        text, flag = tfds.features.Text(), tfds.features.Scalar(np.bool_)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.text,
            homepage=self.data_set.homepage,
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Tensor(
                        shape=(None,), dtype=np.int16, encoding="bytes"
                    ),
                    "filename": text,
                    "num_samples": tfds.features.Scalar(np.int64),
                    "sha256": text,
                    "silent": flag,
                    "clipped": flag,
                    "loud": flag,
                    "problem": text,
                }
            ),
            disable_shuffling=True,  # a clip is found again by its place
            metadata=tfds.core.MetadataDict(sample_rate=self.data_set.sample_rate),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # the files are there already
        return {AUDIO: self._generate_examples(), NOTES: enumerate(self._notes)}

    def _generate_examples(self) -> Iterator[tuple[int, Example]]:
        examples = self.decoded or parallel.in_parallel(self.decode, self.files)
        for place, example in enumerate(examples):
            self._notes.append(_without_samples(example))
            yield place, example
            self.on_clip()

    def prepare(
        self, *, file_format: str = "array_record", pipeline_options: Any = None
    ) -> None:
        """Decodes and stores all files.

        Args:
            file_format: "array_record" for random access; a bucket takes "tfrecord".
            pipeline_options: `apache_beam`'s, of `AudioFilesByBeam`.
        """
        self.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False, beam_options=pipeline_options
            ),
            file_format=file_format,
        )

    def examples(self) -> Iterator[Example]:
        """The split `audio` of what is stored as "tfrecord"."""
        with quiet():
            stored: Any = self.as_dataset(shuffle_files=False)
        return iter(tfds.as_numpy(stored[AUDIO]))

    def notes(self) -> Iterator[Note]:
        """What is known of each file, in order."""
        for example in self.source(NOTES):
            values = (example[name] for name in Note._fields)
            yield Note(*map(_decoded, values))

    def source(self, split: str) -> Any:
        """Random access to a split's examples."""
        with quiet():
            sources: Any = self.as_data_source()
        return sources[split]


with registered.skip_registration():  # its name is the other's

    class AudioFilesByBeam(AudioFiles):
        """The same data set, decoded by a pipeline of Apache Beam."""

        name = AudioFiles.name

        def _split_generators(self, dl_manager, pipeline):
            import apache_beam as beam  # pyright: ignore[reportMissingImports]

            del dl_manager
            one = self.decode  # for the workers, without the builder
            decoded = (
                pipeline
                | beam.Create(list(enumerate(self.files)))
                | "Spread" >> beam.Reshuffle()
                | "Decode" >> beam.MapTuple(lambda place, file: (place, one(file)))
            )
            bare = beam.MapTuple(lambda place, ex: (place, _without_samples(ex)))
            return {AUDIO: decoded, NOTES: decoded | "Bare" >> bare}


def stored_samples(source: Iterable, place: int) -> np.ndarray:
    """The samples at a place of the split `audio`: int16 [T]."""
    return source[place]["audio"]  # pyright: ignore[reportIndexIssue]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TensorFlow Datasets without its notes and bars; errors come as ever.

    One of the notes is a warning that a data set's name is not in the code.
    """
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        absl.logging.set_verbosity(verbosity)
