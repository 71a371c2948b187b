"""What users bring: each kind of bad input gets its sentence, or loses nothing."""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiojax import datasets
from audiojax.errors import InputError
from audiojax.training import results
from tests import mixed_tree, tiny

RATE = 8000
GOOD = tuple(f"{kind}/{n}.wav" for kind in ("cat", "dog") for n in range(4))


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        name: of the kind.
        spoil: changes a good folder of class folders.
        says: words of the sentence that it must get; none if it must work.
        clips: how many there are if it works.
        told: words of a warning, if it works.
        source: what is given as source_dir, from the folder; a CSV for `audio_csv`.
    """

    name: str
    spoil: Callable[[Path], object]
    says: tuple[str, ...] = ()
    clips: int = len(GOOD)
    told: str = ""
    source: str = ""


def write(name, **options):
    return lambda folder: mixed_tree.write(folder / name, seed=99, **options)


def content(name, data):
    def spoil(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return spoil


def samples(name, values):
    return lambda folder: soundfile.write(
        folder / name, np.array(values), RATE, subtype="FLOAT"
    )


def cut(name, keep):
    """Writes a sound and cuts its file to a share, or to a number of bytes."""

    def spoil(folder):
        mixed_tree.write(folder / name, seed=99, seconds=2)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(
            whole[: int(len(whole) * keep if keep < 1 else keep)]
        )

    return spoil


def claiming(name, before, claim):
    """Writes a sound, then a number in its header, after the bytes `before`."""

    def spoil(folder):
        mixed_tree.write(folder / name, seed=99)
        whole = (folder / name).read_bytes()
        start = whole.index(before) + len(before)
        changed = whole[:start] + claim + whole[start + len(claim) :]
        (folder / name).write_bytes(changed)

    return spoil


def huge_flac(name):
    """After a rate of 16 kHz and one channel: 16 bits, 2^36 - 1 samples."""
    return claiming(name, b"\x03\xe8\x00", b"\xff" * 5)


def huge_wav(name, size):
    return claiming(name, b"data", size.to_bytes(4, "little"))


def renamed(old, new):
    return lambda folder: os.rename(folder / old, folder / new)


def link(name, target):
    return lambda folder: (folder / name).symlink_to(target)


def removed(*names):
    return lambda folder: [shutil.rmtree(folder / n) for n in names]


def copied(old, *names):
    return lambda folder: [shutil.copy(folder / old, folder / new) for new in names]


def made(name):
    return lambda folder: (folder / name).mkdir(parents=True)


def one_clip_only(folder):
    for name in GOOD[1:]:
        (folder / name).unlink()
    (folder / "dog").rmdir()


def parts(folder):
    """Parts in which one class is never tested."""
    for kind in ("cat", "dog"):
        os.renames(folder / kind, folder / "train" / kind)
    mixed_tree.write(folder / "test" / "cat" / "x.wav", seed=99)


def table(text, encoding="utf-8", **values):
    """Writes the CSV: a text, in which ROWS stands for a good row for each clip."""

    def spoil(folder):
        rows = [f"{name},{name[:3]}" for name in GOOD]
        for column in values.values():
            rows = [f"{row},{cell}" for row, cell in zip(rows, column, strict=True)]
        whole = text.replace("ROWS", "\n".join(rows))
        (folder / "m.csv").write_bytes(whole.encode(encoding))

    return spoil


def folder_case(name, spoil, *says, **more):
    return Case(name, spoil, says, **more)


def csv_case(name, spoil, *says, **more):
    return Case(name, spoil, says, source="m.csv", **more)


HEAD = "filename,label\n"
HERE = Path(__file__)
UNREADABLE = "is not a readable sound file"
CASES = [
    # Sound files.
    folder_case("zero bytes", content("cat/x.wav", b""), "cat/x.wav", UNREADABLE),
    folder_case("a text", content("cat/x.wav", b"Not a sound."), "x.wav", UNREADABLE),
    folder_case("cut header", cut("cat/x.wav", 20), "cat/x.wav", UNREADABLE),
    folder_case("header only", cut("cat/x.wav", 44), "cat/x.wav", "is cut off"),
    folder_case("no samples", samples("cat/x.wav", []), "cat/x.wav is empty"),
    folder_case("cut wav", cut("cat/x.wav", 0.5), "cat/x.wav is cut off"),
    folder_case("cut flac", cut("cat/x.flac", 0.5), "cat/x.flac"),
    folder_case("cut ogg", cut("cat/x.ogg", 0.5), "cat/x.ogg is cut off"),
    folder_case("cut mp3", cut("cat/x.mp3", 0.5), "cat/x.mp3"),
    folder_case("flac of 2^36 samples", huge_flac("cat/x.flac"), "x.flac is cut off"),
    folder_case("wav of 1 GB", huge_wav("cat/x.wav", 1 << 30), "x.wav is cut off"),
    folder_case("wav of 3 GB", huge_wav("cat/x.wav", 3 << 30), "x.wav is cut off"),
    folder_case("streamed wav", huge_wav("cat/x.wav", 0xFFFFFFFF), clips=9),
    folder_case(
        "above full scale",
        samples("cat/x.wav", [0.5, 1.5] * 99),
        clips=9,
        told="above full scale, and clipped there: cat/x.wav",
    ),
    folder_case("m4a", content("cat/x.m4a", b"\0\0\0 ftypM4A "), "x.m4a", UNREADABLE),
    folder_case("NaN", samples("cat/x.wav", [0, np.nan]), "x.wav", "not finite"),
    folder_case("infinite", samples("cat/x.wav", [np.inf, 0]), "x.wav", "not finite"),
    folder_case("huge", samples("cat/x.wav", [0, 3e4]), "x.wav", "30000; full scale"),
    folder_case("silent", samples("cat/x.wav", [0.0] * 99), clips=9, told="cat/x.wav"),
    folder_case("one sample", samples("cat/x.wav", [0.5]), clips=9, told="cat/x.wav"),
    folder_case("wrong suffix", write("cat/x.flac"), clips=9),
    folder_case("flac named wav", renamed("cat/0.wav", "cat/0.flac")),
    folder_case(
        "wav named txt", renamed("cat/0.wav", "cat/0.txt"), clips=7, told="cat/0.txt"
    ),
    # Names, links and folders.
    folder_case("unicode", write("cat/\u043a\u043e\u0442 \U0001f408.wav"), clips=9),
    folder_case("bytes", renamed("cat/0.wav", os.fsdecode(b"cat/\xff\xfe.wav"))),
    folder_case("line break", write("cat/a\nb.wav"), clips=9),
    folder_case("very long name", write(f"cat/{'x' * 250}.wav"), clips=9),
    folder_case("unicode class", renamed("cat", "ch\u00e4ts d\u2019ici")),
    folder_case("a folder x.wav", made("cat/x.wav")),
    folder_case("a class x.wav", made("x.wav"), "classes without a sound: x.wav"),
    folder_case("empty class", made("emu"), "classes without a sound: emu; fill them"),
    folder_case(
        "link out", link("cat/x.wav", HERE), "cat/x.wav is a symbolic link out"
    ),
    folder_case(
        "link up", link("emu", ".."), "emu is a symbolic link out of the folder"
    ),
    folder_case(
        "link to nothing", link("cat/x.wav", "y"), "x.wav is a symbolic link to"
    ),
    folder_case(
        "link to itself", link("cat/x.wav", "x.wav"), "cat/x.wav is a symbolic"
    ),
    folder_case(
        "link to a class", link("emu", "cat"), "emu is a symbolic link to a fol"
    ),
    folder_case("linked twice", link("dog/x.wav", "0.wav"), "dog/0.wav and dog/x.wav"),
    folder_case(
        "a pipe", lambda f: os.mkfifo(f / "cat/x.wav"), "x.wav is neither a file"
    ),
    folder_case(
        "outside", copied("cat/0.wav", "x.wav"), "x.wav is in no class's folder"
    ),
    folder_case("empty source", removed("cat", "dog"), "has no folders of classes"),
    folder_case(
        "missing source", removed(), "nowhere is not a folder", source="nowhere"
    ),
    folder_case("a file", removed(), "0.wav is not a folder", source="cat/0.wav"),
    # Classes and folds.
    folder_case("one class", removed("dog"), "one class only ('cat')"),
    folder_case("one clip", one_clip_only, "at least 2 recordings", "'cat' has 1"),
    folder_case("case", write("Dog/0.wav"), "case or blanks", "'Dog' and 'dog'"),
    folder_case("blank", renamed("cat", "dog "), "case or blanks: 'dog' and 'dog '"),
    folder_case(
        "few clips", write("emu/0.wav"), "at least 2 recordings", "'emu' has 1"
    ),
    folder_case(
        "a class untested", parts, clips=9, told="in one fold: 'dog' in 2; where that"
    ),
    folder_case(
        "a copy",
        copied("cat/0.wav", *(f"cat/copy{n}.wav" for n in range(5))),
        "cat/0.wav and cat/copy",
        "the same to the bit",
        "config.data.allow_leaks=True",
    ),
    # Tables.
    csv_case("byte-order mark", table(f"\ufeff{HEAD}ROWS\n")),
    csv_case("CRLF", lambda f: table((HEAD + "ROWS\n").replace("\n", "\r\n"))(f)),
    csv_case("no last line end", table(f"{HEAD}ROWS")),
    csv_case(
        "quoted", table(f'"filename","label"\nROWS\n"{GOOD[0]}","cat"\n'), "line 10"
    ),
    csv_case("fold gaps", table("filename,label,fold\nROWS\n", f=[2, 7] * 4)),
    csv_case(
        "twice", table(f"{HEAD}ROWS\ncat/0.wav,dog\n"), "line 10: cat/0.wav is in"
    ),
    csv_case(
        "no label column", table("filename,class\nROWS\n"), "lacks the columns lab"
    ),
    csv_case(
        "no label", table(f"{HEAD}ROWS\ncat/0.wav,\n"), "line 10: label is missing"
    ),
    csv_case(
        "trailing blank", table(f"{HEAD}cat/0.wav,cat \n"), "line 2: label 'cat '"
    ),
    csv_case("a line break", table(f'{HEAD}cat/0.wav,"c\nat"\n'), "label 'c\\nat' has"),
    csv_case(
        "an open quote", table(f'{HEAD}cat/0.wav,"cat\n'), "m.csv is not a readable"
    ),
    csv_case(
        "semicolons", table("filename;label\ncat/0.wav;cat\n"), "put commas between"
    ),
    csv_case("Latin-1", table(f"{HEAD}x.wav,b\u00e4r\n", "latin-1"), "not in UTF-8"),
    csv_case("UTF-16", table(f"{HEAD}ROWS\n", "utf-16"), "m.csv is not in UTF-8"),
    csv_case("a sound as table", copied("cat/0.wav", "m.csv"), "m.csv is not in UTF"),
    csv_case("no rows", table(HEAD), "m.csv has no rows"),
    csv_case("no table", removed(), "m.csv is not there; give a CSV file"),
    csv_case(
        "more cells", table(f"{HEAD}cat/0.wav,cat,1\n"), "line 2: 3 cells, but the"
    ),
    csv_case(
        "absolute", table(f"{HEAD}/etc/x.wav,cat\n"), "'/etc/x.wav' leaves the CSV"
    ),
    csv_case(
        "dots", table(f"{HEAD}../x.wav,cat\n"), "filename '../x.wav' leaves the CSV"
    ),
    csv_case(
        "no such file", table(f"{HEAD}cat/9.wav,cat\n"), "line 2: cat/9.wav is not"
    ),
    csv_case(
        "a folder", table(f"{HEAD}cat,cat\n"), "cat is a folder, not a sound file"
    ),
    csv_case("not a sound", table(f"{HEAD}ROWS\nm.csv,dog\n"), "m.csv", UNREADABLE),
    csv_case(
        "negative fold",
        table("filename,label,fold\nROWS\n", f=[1, -2] * 4),
        "fold is '-2'",
    ),
    csv_case(
        "one fold",
        table("filename,label,fold\nROWS\n", f=[3] * 8),
        "all clips in fold 3",
    ),
    csv_case(
        "a fold without a class",
        table("filename,label,fold\nROWS\n", f=[1, 1, 2, 2, 2, 2, 2, 2]),
        told="all clips of a class in one fold: 'dog' in 2",
    ),
    csv_case(
        "unknown part",
        table("filename,label,split\nROWS\n", f=["train", "dev"] * 4),
        "split is 'dev', not one of test",
    ),
    csv_case(
        "a group in two folds",
        table(
            "filename,label,fold,group\nROWS\n",
            f=[1, 2] * 4,
            g=["", "a"] * 3 + ["a"] * 2,
        ),
        "clips of one recording are in several folds",
        "cat/1.wav and dog/2.wav",
    ),
    csv_case(
        "too few groups",
        table("filename,label,group\nROWS\n", g=["a"] * 4 + ["b", "c"] * 2),
        "at least 2 recordings for 2 folds",
        "'cat' has 1",
    ),
]


@pytest.fixture
def folder(tmp_path):
    """Four clips of each of two classes."""
    for seed, name in enumerate(GOOD):
        mixed_tree.write(tmp_path / "sounds" / name, seed, seconds=0.02, rate=RATE)
    return tmp_path / "sounds"


def settings(folder, source="", **more):
    given = {
        "num_folds": 2,
        "sample_rate": RATE,
        "data_dir": str(folder.parent / "store"),
    }
    return datasets.Settings(source_dir=str(folder / source), **given | more)


def load(folder, source="", **more):
    name = "audio_csv" if source.endswith(".csv") else "audio_folder"
    return datasets.load(name, settings(folder, source, **more))


def test_thirty_kinds_at_least():
    assert len({case.name for case in CASES}) == len(CASES) >= 30


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_each_kind_gets_its_sentence_or_loses_nothing(case, folder, caplog):
    case.spoil(folder)
    if case.says:
        with pytest.raises(InputError) as error:
            load(folder, case.source)
        for words in case.says:
            assert words in str(error.value)
        return
    with caplog.at_level(logging.WARNING):
        recordings = load(folder, case.source)
    assert len(recordings) == case.clips
    assert case.told in caplog.text
    assert bool(case.told) == bool(caplog.text)
    for index, length in enumerate(recordings.lengths):
        assert len(recordings.audio(index)) == length >= 1


def test_bad_files_can_be_skipped_and_are_named(folder, caplog):
    content("cat/x.wav", b"no sound")(folder)
    content("dog/y.ogg", b"")(folder)
    huge_flac("dog/z.flac")(folder)
    recordings = load(folder, on_bad_file="skip")
    assert [clip.filename for clip in recordings.info.clips] == list(GOOD)
    skipped = recordings.info.report["skipped"]
    assert set(skipped) == {"cat/x.wav", "dog/y.ogg", "dog/z.flac"}
    assert "4294967 seconds" in skipped.pop("dog/z.flac")
    assert all(UNREADABLE in why for why in skipped.values())
    assert "cat/x.wav" in caplog.text


def test_what_was_skipped_stands_in_the_results(folder):
    content("cat/x.wav", b"no sound")(folder)
    info = load(folder, on_bad_file="skip").info
    written = results.summarize(tiny.get_config(), info, [], [])
    assert list(written["report"]["skipped"]) == ["cat/x.wav"]


def test_a_class_of_which_all_is_skipped_is_not_lost_silently(folder):
    for name in GOOD[4:]:
        content(name, b"no sound")(folder)
    with pytest.raises(InputError, match="dog"):
        load(folder, on_bad_file="skip")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(folder):
    (folder / "cat" / "0.wav").chmod(0)
    with pytest.raises(InputError, match=r"0\.wav is not a readable sound file"):
        load(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read(folder):
    (folder / "cat").chmod(0)
    try:
        with pytest.raises(InputError, match="cat can't be read"):
            load(folder)
    finally:
        (folder / "cat").chmod(0o755)


@pytest.mark.parametrize(
    "name",
    [
        "cut wav",
        pytest.param("missing source", marks=pytest.mark.slow),
        pytest.param("twice", marks=pytest.mark.slow),
    ],
)
def test_the_command_ends_in_one_sentence(name, folder, tmp_path, repo_root):
    (case,) = (case for case in CASES if case.name == name)
    case.spoil(folder)
    kind = "audio_csv" if case.source.endswith(".csv") else "audio_folder"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "audiojax.main", "--config=configs/my_audio.py"),
            f"--config.data.name={kind}",
            f"--config.data.source_dir={folder / case.source}",
            f"--config.data.data_dir={tmp_path / 'store'}",
            "--config.data.num_folds=2",
            f"--workdir={tmp_path / 'work'}",
        ],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (said,) = (li for li in done.stderr.splitlines() if li.startswith("audiojax: "))
    for words in case.says:
        assert words in said
