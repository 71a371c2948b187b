"""Writes what was trained as one file that other programs run, the log-mel inside.

python -m audiojax.export WORKDIR --format=onnx|stablehlo --out FILE
    [--fold N] [--seed N[,N...]]

Waveforms go in and probabilities come out. Several seeds of a fold are averaged, as the
paper's ensemble, into one model. Each file is read back, run and compared with the
classifier before it gets its name. What is needed to use it, such as the classes and
the sample rate, is in an ONNX file's metadata, and beside a StableHLO one in FILE.json.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from etils import epath
from jax import export as jax_export

from audiojax import command, files, runs, to_stablehlo
from audiojax.classifier import Classifier
from audiojax.errors import InputError, check_choice
from audiojax.pretrained import Variables
from audiojax.to_stablehlo import mean_logits
from audiojax.workdir import Run, Workdir

logger = logging.getLogger(__name__)

# How far the probabilities of what was written may be from the classifier's.
TOLERANCE = 1e-4

# The model's inputs by name: `audio`, and `length` where images are stretched.
Inputs = Mapping[str, np.ndarray]
# The file's bytes -> inputs -> probabilities [B, classes].
Reader = Callable[[bytes], Callable[[Inputs], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What is exported.

    Attributes:
        classifier: it computes in float32, whatever it was trained in.
        members: the variables of each run; their logits are averaged.
        metadata: what the user of the file needs to know; see `describe`.
    """

    classifier: Classifier
    members: list[Variables]
    metadata: dict[str, Any]


def choose(workdir: Workdir, fold: int | None, seeds: Sequence[int]) -> list[Run]:
    """The runs to export: one, or the given seeds of one fold.

    Args:
        workdir: whose runs they are.
        fold: which; None if there is only one.
        seeds: which; empty if there is only one.

    Raises:
        InputError: there are several to choose from, or as `runs.choose`.
    """
    chosen = runs.choose(workdir, None if fold is None else [fold], seeds or None)
    if len({run.fold for run in chosen}) > 1 or (len(chosen) > 1 and not seeds):
        raise InputError(
            f"{runs.told(workdir)}; choose with --fold and --seed, and several seeds, "
            "such as --seed=0,1, are averaged"
        )
    return chosen


def describe(workdir: Workdir, chosen: Sequence[Run]) -> dict[str, Any]:
    """What the user of an exported model needs to know, as JSON holds it.

    Returns:
        `labels`, in the order of the probabilities; `task`; `sample_rate` in Hz;
        `samples`, the length of a row; `clip_mode` and `num_windows`, how clips of any
        length become rows; and `source`: the workdir, its runs, the network and the
        versions that it was trained and exported by.
    """
    classifier = workdir.classifier
    policy = classifier.clip_policy
    return {
        "labels": list(workdir.classes),
        "task": workdir.task.name,
        "sample_rate": classifier.log_mel.sample_rate,
        "samples": policy.num_samples,
        "clip_mode": policy.mode,
        "num_windows": policy.num_windows,
        "source": {
            "workdir": str(workdir.path),
            "runs": [run.name for run in chosen],
            "model": workdir.model,
            "exported_by": f"audiojax {importlib.metadata.version('audiojax')}",
            **workdir.origin,
        },
    }


def read(workdir: Workdir, chosen: Sequence[Run]) -> Trained:
    """Reads what is exported of a workdir.

    Raises:
        InputError: a run has no whole checkpoint.
    """
    classifier = workdir.classifier
    if classifier.test_shifts > 1:
        logger.warning(
            "evaluation averages over %d shifts of each image; the exported model "
            "takes each as it is, so its results differ a little",
            classifier.test_shifts,
        )
    network = classifier.network.clone(dtype=jnp.float32)
    return Trained(
        dataclasses.replace(classifier, network=network),
        [workdir.variables(run) for run in chosen],
        describe(workdir, chosen),
    )


def made_sounds(classifier: Classifier, count: int = 2) -> dict[str, np.ndarray]:
    """Inputs of a model to compare it by: bursts of tones in noise.

    Args:
        classifier: whose rows they are.
        count: rows.

    Returns:
        `audio` float32 [count, samples]; and, where images are stretched, `length`
        int32 [count], of which the first is the whole row.
    """
    random = np.random.default_rng(0)
    samples = classifier.clip_policy.num_samples
    seconds = np.arange(samples) / classifier.log_mel.sample_rate
    pitch = 200 * 2 ** random.uniform(0, 4, (count, 1))
    burst = 0.3 * np.sin(2 * np.pi * pitch * seconds) * (seconds < seconds.mean())
    audio = burst + random.normal(0, 0.01, (count, samples))
    inputs = {"audio": audio.astype(np.float32)}
    if classifier.clip_policy.needs_length:
        inputs["length"] = (samples // np.arange(1, count + 1)).astype(np.int32)
    return inputs


def onnx_bytes(trained: Trained) -> bytes:
    """The model as an ONNX file.

    Raises:
        InputError: the network can't be written, or the extra is not installed.
    """
    to_onnx = _needs_extra("audiojax.to_onnx")
    texts = {name: json.dumps(value) for name, value in trained.metadata.items()}
    model = to_onnx.model(trained.classifier, trained.members, texts)
    return model.SerializeToString(deterministic=True)


def read_onnx(content: bytes) -> Callable[[Inputs], np.ndarray]:
    """An ONNX file, to be run by onnxruntime on the CPU."""
    runtime = _needs_extra("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))[0]


def _needs_extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"--format=onnx needs the packages onnx and onnxruntime ({error}); install "
            "them with pip install 'audiojax[export]'"
        ) from None


def stablehlo_bytes(trained: Trained) -> bytes:
    """The model as `jax.export` serializes it."""
    return to_stablehlo.serialize(trained.classifier, trained.members)


def read_stablehlo(content: bytes) -> Callable[[Inputs], np.ndarray]:
    """A StableHLO file, to be run by JAX on the default device."""
    call = jax_export.deserialize(bytearray(content)).call
    return lambda inputs: np.asarray(call(*inputs.values()))


FORMATS: dict[str, tuple[Callable[[Trained], bytes], Reader]] = {
    "onnx": (onnx_bytes, read_onnx),
    "stablehlo": (stablehlo_bytes, read_stablehlo),
}


def compare(trained: Trained, run: Callable[[Inputs], np.ndarray]) -> float:
    """The largest difference of probabilities from the classifier's, on made sounds.

    Raises:
        InputError: if it is above `TOLERANCE`, or a number is not finite.
    """
    classifier, inputs = trained.classifier, made_sounds(trained.classifier)
    logits = jax.jit(functools.partial(mean_logits, classifier))
    expected = classifier.task.probabilities(
        np.asarray(logits(trained.members, *inputs.values()))
    )
    if not np.isfinite(expected).all():
        raise InputError(
            "the model's probabilities are not finite, its training diverged; train "
            "it again with a lower config.optimizer.learning_rate"
        )
    # One row too: another size of the batch.
    single = {name: array[:1] for name, array in inputs.items()}
    found = np.concatenate([run(inputs), run(single)])
    difference = float(np.abs(found - np.concatenate([expected, expected[:1]])).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported model's probabilities are off by {difference:.1e}, more "
            f"than {TOLERANCE:.0e}, so it was not written; please report it with the "
            "workdir's config.json"
        )
    return difference


def export(
    path: epath.PathLike,
    out: epath.PathLike,
    *,
    format: str = "onnx",
    fold: int | None = None,
    seeds: Sequence[int] = (),
) -> float:
    """Exports runs of a workdir to a file, which is whole and compared or not there.

    Args:
        path: the workdir.
        out: the file.
        format: a key of `FORMATS`.
        fold: which; None if there is only one.
        seeds: which, averaged if several; empty if there is only one.

    Returns:
        The largest difference of probabilities from the classifier's.

    Raises:
        InputError: for a format that is not known, a workdir or run that can't be
            read, or a model that can't be written or computes something else.
    """
    check_choice("--format", format, FORMATS)
    if epath.Path(out).is_dir():
        raise InputError(f"{out} is a folder; give the name of a file as --out")
    write, read_back = FORMATS[format]
    opened = Workdir(path)
    chosen = choose(opened, fold, seeds)
    with files.whole(out) as part:
        part.write_bytes(b"")  # what can't be written is told before the work
        trained = read(opened, chosen)
        part.write_bytes(write(trained))
        difference = compare(trained, read_back(part.read_bytes()))
        if format == "stablehlo":
            files.write_sealed(f"{out}.json", trained.metadata)
    return difference


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_enum("format", "onnx", list(FORMATS), "What is written.")
    flags.DEFINE_string("out", None, "The file.")
    flags.DEFINE_integer("fold", None, "Of which fold, if there are several.")
    flags.DEFINE_list("seed", [], "Which seed, if there are several, or which seeds.")


def main(argv: Sequence[str]) -> None:
    """Exports the workdir named, and prints where the file is."""
    options = flags.FLAGS
    command.prepare()
    if len(argv) != 2:
        command.stop(f"{len(argv) - 1} workdirs given; give one that was trained")
    if not options.out:
        command.stop(f"no --out; give the file, such as --out=model.{options.format}")
    try:
        seeds = [int(seed) for seed in options.seed]
    except ValueError:
        command.stop(f"--seed is {','.join(options.seed)}; give numbers, such as 0,1")
    with command.one_sentence(options.out):
        difference = export(
            argv[1],
            options.out,
            format=options.format,
            fold=options.fold,
            seeds=seeds,
        )
        size = files.size_text(epath.Path(options.out).stat().length)
        print(f"model     {options.out}  ({size})")
        print(f"compared  probabilities differ by {difference:.1e} from JAX's")


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command.parse, None))
