"""Says which sounds are heard in sound files, by what was trained.

python -m audiojax.predict WORKDIR [WORKDIR ...] SOUND [SOUND ...]

A folder that training has filled is a workdir: all of its finished runs are averaged,
and several workdirs too. What else is named is a sound file of any format, rate and
length, a folder of such files, or `-` for one on the standard input. A sound that is
longer than what the network hears at once is also told window by window.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from absl import app, flags
from etils import epath
from tqdm import tqdm

from audiojax import command, files, predictor, sounds, tables
from audiojax.errors import InputError, listed
from audiojax.inference import Clip
from audiojax.predictor import OVERLAP, Predictor
from audiojax.sounds import Content
from audiojax.tables import FORMATS, Choice, Told
from audiojax.workdir import RESULTS

logger = logging.getLogger(__name__)

STDIN, TRACK = "-", ".txt"
# How many classes are listed, where no threshold chooses them.
TOP = 3
# Standard input is held in memory.
MOST_STDIN = 1 << 30
# Seconds; what is no longer hardly holds a sound that can be told.
SHORT = 0.01


def is_workdir(path: str) -> bool:
    """Whether training has written to a folder, or has begun to."""
    folder = epath.Path(path)
    begun = folder.is_dir() and any(folder.glob("fold*-seed*"))
    return begun or (folder / RESULTS).exists()


def find(name: str) -> Iterator[Clip | InputError]:
    """The sounds that an argument names, or why there are none."""
    if name == STDIN:
        try:
            yield read_stdin()
        except InputError as error:
            yield error
        return
    path = epath.Path(name)
    if path.is_dir():
        yield from find_below(path)
    elif path.exists():
        yield path
    else:
        yield InputError(f"{name}: there is no such file or folder")


def find_below(folder: epath.Path) -> Iterator[Clip | InputError]:
    """The sounds in a folder, by name, however deep they lie; hidden ones are not."""
    shown = list(_files_below(folder))
    sound = [path for path in shown if path.suffix.lower() in sounds.SUFFIXES]
    if others := [path.name for path in shown if path not in set(sound)]:
        logger.warning(
            "%s: left out, for their names are not those of sounds: %s",
            *(folder, listed(others, ", ")),
        )
    yield from sound
    if not sound:
        yield InputError(f"{folder}: there is no sound file in this folder")


def _files_below(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files_below(path)
        else:
            yield path


def read_stdin() -> Content:
    """The sound on the standard input.

    Raises:
        InputError: if there is none, or it is too large.
    """
    data = sys.stdin.buffer.read(MOST_STDIN + 1)
    if not data:
        raise InputError("standard input is empty; pipe a sound file into it")
    if len(data) > MOST_STDIN:
        raise InputError(
            f"standard input holds more than {files.size_text(MOST_STDIN)}; give the "
            "name of a file, which is read piece by piece"
        )
    return Content("standard input", data)


def choose(classes: Sequence[str]) -> Choice:
    """Which classes are listed, by the flags."""
    options = flags.FLAGS
    among = tuple(options.classes or classes)
    if unknown := [name for name in among if name not in classes]:
        raise InputError(
            f"--classes: there is no class {listed(map(repr, unknown), ', ')}; the "
            f"classes are {listed(classes, ', ', 60)}"
        )
    top = options.top
    if top is None:
        top = len(classes) if options.threshold is not None else TOP
    return Choice(tuple(classes), among, top, options.threshold or 0.0)


def numbers(flag: str) -> list[int] | None:
    """The numbers that a flag lists."""
    given: list[str] | None = flags.FLAGS[flag].value
    if given is None:
        return None
    try:
        return [int(text) for text in given]
    except ValueError:
        raise InputError(
            f"--{flag} is {','.join(given)}; give numbers, such as 0,1"
        ) from None


def track_places(place: str, usable: Sequence[Clip]) -> list[epath.Path]:
    """Where the label track of each sound is written.

    Raises:
        InputError: if there are several, and one file is to hold them.
    """
    if place.endswith(TRACK):
        if len(usable) > 1:
            raise InputError(
                f"--labels is {place}, one file, and there are {len(usable)} sounds; "
                "give a folder, whose name does not end so"
            )
        return [epath.Path(place)] * len(usable)
    return [epath.Path(place) / f"{name}{TRACK}" for name in file_names(usable)]


def file_names(usable: Sequence[Clip]) -> list[str]:
    """A name for what is written of each sound: its stem, with a number the next time.

    Such as `a`, `a-2` and `a-3`; a number that another sound's stem has is passed over.
    """
    stems = [epath.Path(str(clip)).stem for clip in usable]
    taken, names = set(stems), []
    for i, stem in enumerate(stems):
        if stem in stems[:i]:
            numbered = (f"{stem}-{number}" for number in itertools.count(2))
            stem = next(name for name in numbered if name not in taken)
            taken.add(stem)
        names.append(stem)
    return names


def write_embeddings(path: str, told: Sequence[Told]) -> None:
    """Writes the embeddings of all sounds and of their windows as one `.npz`."""
    rows = [(i, t.found) for i, t in enumerate(told)]
    windows = [np.full(len(found.start), i) for i, found in rows]
    empty = np.zeros((0, 0), np.float32)
    arrays = {
        "filename": np.array([t.name for t in told], str),
        "embedding": np.array([found.embedding for _, found in rows], np.float32),
        "window_clip": np.concatenate([np.zeros(0, np.int64), *windows]),
        "window_start": np.concatenate([np.zeros(0), *(f.start for _, f in rows)]),
        "window_embedding": np.concatenate([f.window_embedding for _, f in rows])
        if rows
        else empty,
    }
    files.write_arrays(path, arrays)


def show(text: str) -> None:
    """Prints, and leaves the progress bar whole."""
    if text:
        with tqdm.external_write_mode():
            print(text, flush=True)


def named_sounds(
    workdirs: Sequence[str], names: Sequence[str]
) -> list[Clip | InputError]:
    """The sounds that a command's arguments name, or why one can't be used.

    Raises:
        InputError: if there is nothing to do.
    """
    if not workdirs:
        raise InputError(
            f"no workdir among {listed(names, ', ') or 'the arguments'}; first give a "
            f"folder that audiojax.main filled, which holds {RESULTS}"
        )
    if not names:
        raise InputError("no sounds given; add files, folders, or - for standard input")
    if names.count(STDIN) > 1:
        raise InputError("standard input can be read once only; give one -")
    return [clip for name in names for clip in find(name)]


def define_run_flags() -> None:
    """Defines the flags that `load` reads."""
    flags.DEFINE_list("folds", None, "The folds whose runs are used; default all.")
    flags.DEFINE_list("seeds", None, "The seeds whose runs are used; default all.")
    flags.DEFINE_bool(
        "unfinished", False, "Use a workdir's finished runs where others are to come."
    )


def load(workdirs: Sequence[str]) -> predictor.Predictor:
    """Opens the runs that the flags choose; raises as `predictor.load`."""
    return predictor.load(
        *workdirs,
        folds=numbers("folds"),
        seeds=numbers("seeds"),
        unfinished=flags.FLAGS.unfinished,
    )


def run(workdirs: Sequence[str], names: Sequence[str]) -> bool:
    """Prints what is heard, and writes what the flags ask for.

    Returns:
        Whether all sounds could be used.

    Raises:
        InputError: if nothing can be done; no sound has been read then.
    """
    options = flags.FLAGS
    given = named_sounds(workdirs, names)
    usable = [clip for clip in given if not isinstance(clip, InputError)]
    tracks = track_places(options.labels, usable) if options.labels else []
    for path in [*tracks, *filter(None, [options.embeddings])]:
        files.check_writable(path)
    opened = load(workdirs)
    choice = choose(opened.classes)
    header, text = FORMATS[options.format]
    show(header)
    shape = "{l_bar}{bar}| {n:.1f}/{total} sounds [{elapsed}<{remaining}]"
    bar = tqdm(total=len(usable), disable=None, bar_format=shape, leave=False)
    found = opened.predictions(usable, overlap=options.overlap, on_progress=bar.update)
    told: list[Told] = []
    lengths: dict[str, tuple[float, int]] = {}
    problems = [clip for clip in given if isinstance(clip, InputError)]
    with bar:
        for problem in problems:
            complain(problem)
        for clip, said in zip(usable, found, strict=True):
            tracks, place = tracks[1:], tracks[:1]
            if isinstance(said, InputError):
                problems.append(said)
                complain(said)
                continue
            of_clip = Told.by(opened.task, str(clip), said)
            show(text(of_clip, choice))
            for path in place:
                track = tables.label_track(of_clip, choice, opened.task)
                files.write_bytes(path, track.encode("utf-8", "replace"))
            lengths[str(clip)] = said.seconds, len(said.start)
            told += [of_clip] if options.embeddings else []
    if options.embeddings:
        write_embeddings(options.embeddings, told)
    warn(opened, lengths)
    return not problems


def complain(problem: InputError) -> None:
    """Tells why a sound can't be used, and leaves the progress bar whole."""
    with tqdm.external_write_mode(sys.stderr):
        print(f"audiojax: {problem}", file=sys.stderr, flush=True)


def warn(opened: Predictor, lengths: Mapping[str, tuple[float, int]]) -> None:
    """Tells once what was hardly heard, or not as a whole."""
    if short := [name for name, (seconds, _) in lengths.items() if seconds <= SHORT]:
        logger.warning(
            "no longer than %g s, too short to be told: %s",
            *(SHORT, listed(short, ", ")),
        )
    # One window holds all but the last millisecond.
    long = [seconds for seconds, count in lengths.values() if count > 1]
    for sentence in opened.unseen(long):
        logger.warning("the results of whole sounds are as evaluation's: %s", sentence)


def define_flags() -> None:
    """Defines the flags, only for the command: importing this module brings none."""
    flags.DEFINE_enum("format", "table", list(FORMATS), "What is printed.")
    flags.DEFINE_integer(
        "top", None, f"How many classes are listed; default {TOP}.", lower_bound=1
    )
    flags.DEFINE_float("threshold", None, "The least probability listed.", 0, 1)
    flags.DEFINE_list("classes", None, "Only these classes are listed.")
    flags.DEFINE_float(
        "overlap", OVERLAP, "The share of a window that the next one hears again."
    )
    define_run_flags()
    flags.DEFINE_string(
        "labels", None, "Audacity label tracks: a folder, or NAME.txt for one sound."
    )
    flags.DEFINE_string("embeddings", None, "NAME.npz for what the head is given.")


def use(
    run: Callable[[Sequence[str], Sequence[str]], bool], argv: Sequence[str]
) -> None:
    """Sorts the arguments into workdirs and sounds, and runs a command on them.

    The program ends with status 1 if not all sounds could be used.
    """
    command.prepare()
    with command.one_sentence("the output"):
        workdirs = [name for name in argv[1:] if is_workdir(name)]
        names = [name for name in argv[1:] if name not in workdirs]
        done = run(workdirs, names)
    if not done:
        sys.exit(1)


def main(argv: Sequence[str]) -> None:
    """Predicts what the arguments name."""
    use(run, argv)


if __name__ == "__main__":
    define_flags()
    app.run(main, flags_parser=functools.partial(command.parse, None))
