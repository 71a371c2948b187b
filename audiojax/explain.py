"""Shows and plays what trained networks look at in sounds, and tests if that is true.

python -m audiojax.explain WORKDIR [WORKDIR ...] SOUND [SOUND ...] --out DIR
    [--method integrated_gradients|smooth_grad|grad_cam] [--target CLASS]

Workdirs and sounds are given as for `audiojax.predict`. Of each sound DIR receives a
picture, numbers, what the explanation keeps of the sound and what it leaves, and the
measures of its worth; of several sounds also pictures of each class.
"""

from __future__ import annotations

import functools
import io
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import soundfile
from absl import app, flags
from etils import epath
from tqdm import tqdm

from audiojax import attribution, audible, command, files, pictures, predict
from audiojax.attribution import Curve
from audiojax.errors import InputError, listed
from audiojax.explainer import LIKENESS_LIMIT, Explainer, Explanation
from audiojax.features import LogMel, mel_corners
from audiojax.methods import METHODS
from audiojax.pictures import Row

logger = logging.getLogger(__name__)

# Of a class, the most probable ones.
MOST_IN_SHEET = 12


def numbers(found: Explanation) -> dict[str, Any]:
    """What is told of an explanation beside its map, as JSON holds it."""

    def curve(of: Curve) -> dict[str, Any]:
        return {
            "area": of.area,
            "random_area": of.random_area,
            "probability": of.probability.tolist(),
            "random": of.random.tolist(),
        }

    waveform = found.waveform
    return {
        "predicted": found.predicted,
        "target": found.target,
        "probability": found.probability,
        "start": found.start,
        "logit": found.logit,
        "logit_of_silence": found.silence,
        "sum": float(found.attribution.sum(dtype=np.float64)),
        "completeness": found.sums
        and dict(zip(("sum", "gradients_alone"), found.sums, strict=True)),
        "waveform_sum": None if waveform is None else float(waveform.sum()),
        "share": attribution.shares(len(found.deletion.probability)).tolist(),
        "deletion": curve(found.deletion),
        "insertion": curve(found.insertion),
        "redrawn_weights": {
            "likeness": found.likeness.tolist(),
            "limit": LIKENESS_LIMIT,
            "worthless": found.worthless,
        },
    }


def write(
    found: Explanation, name: str, told: Mapping[str, Any], log_mel: LogMel, out: str
) -> None:
    """Writes all that there is of one sound: NAME.png, .npz, .json and two sounds."""
    base, rate = epath.Path(out), log_mel.sample_rate
    title = f"{found.target} {found.probability:.2f}"
    pictures.side_by_side(
        [_row(name, found, rate)], title, log_mel, base / f"{name}.png"
    )
    mask = audible.kept_pixels(found.map)
    kept, left = audible.split(found.samples, mask.astype(float), log_mel)
    for samples, what in ((kept, "kept"), (left, "left")):
        _write_sound(base / f"{name}.{what}.wav", samples, rate)
    arrays = {
        "image": found.image,
        "attribution": found.attribution,
        "kept": mask,
        "samples": found.samples,
        "hertz": mel_corners(log_mel)[1:-1],
        "seconds": _seconds(found, rate),
    }
    if found.waveform is not None:
        arrays["waveform_attribution"] = found.waveform
    files.write_arrays(base / f"{name}.npz", arrays)
    files.write_json(base / f"{name}.json", {**told, **numbers(found)})


def _seconds(found: Explanation, rate: int) -> np.ndarray:
    """The middle of each frame, from the beginning of the row."""
    width = found.image.shape[1]
    return (np.arange(width) + 0.5) * len(found.samples) / rate / width


def _row(name: str, found: Explanation, rate: int) -> Row:
    return Row(name, found.image[..., 0], found.map, len(found.samples) / rate)


def _write_sound(path: epath.Path, samples: np.ndarray, rate: int) -> None:
    buffer = io.BytesIO()
    # A part may be louder than the whole; floating point numbers are not cut.
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    files.write_bytes(path, buffer.getvalue())


def write_classes(
    done: Mapping[str, Explanation],
    classes: Sequence[str],
    log_mel: LogMel,
    out: str,
) -> None:
    """Draws for each predicted class its sounds, and the mean over them."""
    rate = log_mel.sample_rate
    for number, label in enumerate(classes):
        ours = {name: found for name, found in done.items() if found.predicted == label}
        if not ours:
            continue
        # Labels may hold what no file name does.
        base = f"class{number}-" + re.sub(r"[^\w.-]", "_", label)
        best = sorted(ours, key=lambda name: -ours[name].probability)[:MOST_IN_SHEET]
        some = "" if len(best) == len(ours) else f"the {len(best)} most probable of "
        rows = [_row(name, ours[name], rate) for name in best]
        title = f"{label}: {some}{len(ours)} sounds"
        place = epath.Path(out)
        pictures.side_by_side(rows, title, log_mel, place / f"{base}.sheet.png")
        rows = [_row("", found, rate) for found in ours.values()]
        mean = Row(
            "mean",
            np.mean([row.image for row in rows], axis=0),
            np.mean([row.attribution for row in rows], axis=0),
            max(row.seconds for row in rows),
        )
        title = f"{label}: mean of {len(ours)} sounds"
        pictures.side_by_side([mean], title, log_mel, place / f"{base}.mean.png")


def line(name: str, found: Explanation) -> str:
    """What is printed of a sound."""
    deletion, insertion = found.deletion, found.insertion
    sums = ""
    if found.sums is not None:
        sums = "  complete to {:.1%} (gradients alone {:.1%})".format(*found.sums)
    return (
        f"{name}  {found.target} {found.probability:.2f}"
        f"  deletion {deletion.area:.2f} (random {deletion.random_area:.2f})"
        f"  insertion {insertion.area:.2f} (random {insertion.random_area:.2f})"
        f"  redrawn weights {found.likeness.mean():.2f}{sums}"
    )


def mean_line(done: Collection[Explanation]) -> str:
    """What is printed of several sounds together."""
    told = []
    for name, better in (("deletion", np.less), ("insertion", np.greater)):
        curves: list[Curve] = [getattr(found, name) for found in done]
        ours = np.array([curve.area for curve in curves])
        random = np.array([curve.random_area for curve in curves])
        told.append(
            f"{name} {ours.mean():.3f} (random {random.mean():.3f}, "
            f"{better.__name__} for {int(better(ours, random).sum())})"
        )
    return f"mean of {len(done)} sounds  {'  '.join(told)}"


def run(workdirs: Sequence[str], sounds: Sequence[str]) -> bool:
    """Explains what the flags and arguments ask for.

    Returns:
        Whether all sounds could be used.

    Raises:
        InputError: if nothing can be done; no sound has been read then.
    """
    options = flags.FLAGS
    given = predict.named_sounds(workdirs, sounds)
    if not options.out:
        raise InputError("no --out; give the folder that is written to")
    problems = [clip for clip in given if isinstance(clip, InputError)]
    usable = [clip for clip in given if not isinstance(clip, InputError)]
    names = predict.file_names(usable)
    files.check_writable(epath.Path(options.out) / "explain.json")
    opened = predict.load(workdirs)
    explainer = Explainer(opened, options.method)
    if options.target is not None:
        explainer.check_target(options.target)
    runs = {path: list(of_path) for path, of_path in opened.runs.items()}
    log_mel = explainer.classifier.log_mel
    for problem in problems:
        predict.complain(problem)
    done: dict[str, Explanation] = {}
    pairs = list(zip(usable, names, strict=True))
    for clip, name in tqdm(pairs, disable=None, unit="sound", leave=False):
        try:
            found = explainer.explain(clip, options.target)
        except InputError as problem:
            problems.append(problem)
            predict.complain(problem)
            continue
        told = {"file": str(clip), "method": options.method, "runs": runs}
        write(found, name, told, log_mel, options.out)
        predict.show(line(str(clip), found))
        done[name] = found
    if len(done) > 1:
        write_classes(done, opened.classes, log_mel, options.out)
        predict.show(mean_line(done.values()))
    warn(done)
    return not problems


def warn(done: Mapping[str, Explanation]) -> None:
    """Names the explanations that say nothing, or not exactly what they should."""
    if bad := [name for name, found in done.items() if found.worthless]:
        logger.warning(
            "worthless, for they do not depend on the weights (like those of redrawn "
            "weights by more than %g): %s",
            *(LIKENESS_LIMIT, listed(bad, ", ")),
        )
    if bad := [name for name, found in done.items() if found.incomplete]:
        logger.warning(
            "incomplete: the sum of the attribution is off by more than 1 %% of the "
            "difference of the logits: %s",
            listed(bad, ", "),
        )


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_string("out", None, "The folder that is written to.")
    flags.DEFINE_enum(
        "method", "integrated_gradients", list(METHODS), "How the map is made."
    )
    flags.DEFINE_string(
        "target", None, "The class that is explained; default the most probable one."
    )
    predict.define_run_flags()


def main(argv: Sequence[str]) -> None:
    """Explains what the arguments name."""
    predict.use(run, argv)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command.parse, None))
