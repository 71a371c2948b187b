import pytest

from audiojax import datasets
from audiojax.datasets.layouts import audio_csv
from audiojax.errors import InputError
from tests import mixed_tree

# Six clips a class, as they lie in the folder.
NAMES = [f"{kind}{n}.wav" for kind in ("cat", "dog") for n in range(6)]
ROWS = [(name, name[:3]) for name in NAMES]


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(NAMES):
        mixed_tree.write(tmp_path / name, seed, seconds=0.02)
    return tmp_path


def write(folder, rows, columns=("filename", "label"), name="metadata.csv"):
    lines = [",".join(map(str, row)) for row in (columns, *rows)]
    (folder / name).write_text("".join(f"{line}\n" for line in lines))


def read(folder, **more):
    given = {"source_dir": str(folder), "sample_rate": 16000, "num_folds": 3, **more}
    return audio_csv.read(datasets.Settings(**given))


def refusal(folder, **more):
    with pytest.raises(InputError) as error:
        read(folder, **more)
    return str(error.value)


def column(table, name):
    return [getattr(row, name) for row in table.clips]


def test_two_columns_are_enough(folder):
    write(folder, ROWS)
    table = read(folder)
    assert table.classes == ("cat", "dog")
    assert column(table, "filename") == NAMES
    assert column(table, "path") == [folder / name for name in NAMES]
    assert column(table, "labels") == [(0,)] * 6 + [(1,)] * 6
    assert column(table, "source") == NAMES
    assert sorted(column(table, "fold")) == [1] * 4 + [2] * 4 + [3] * 4
    assert not table.official_folds
    assert not table.multi_label
    assert column(read(folder, seed=1), "fold") != column(table, "fold")


def test_columns_come_in_any_order_beside_others(folder):
    rows = [("CC-BY", label, name) for name, label in ROWS]
    write(folder, rows, ("license", "label", "filename"))
    assert column(read(folder), "filename") == NAMES


def test_folds_as_given(folder):
    folds = [1, 2, 4] * 4  # a gap is no harm
    rows = [(*row, fold) for row, fold in zip(ROWS, folds, strict=True)]
    write(folder, rows, ("filename", "label", "fold"))
    table = read(folder)
    assert column(table, "fold") == folds
    assert table.official_folds


@pytest.mark.parametrize(
    ("words", "folds"),
    [
        (("train", "validation", "test"), (3, 2, 1)),
        (("TRAIN", "Val", "test"), (3, 2, 1)),
        (("train", "train", "test"), (2, 2, 1)),
        (("train", "valid", "valid"), (2, 1, 1)),
    ],
)
def test_parts_are_folds(folder, words, folds):
    rows = [(*row, word) for row, word in zip(ROWS, words * 4, strict=True)]
    write(folder, rows, ("filename", "label", "split"))
    table = read(folder)
    assert column(table, "fold") == [*folds * 4]
    assert table.official_folds


def test_groups_stay_together(folder):
    groups = ["a", "a", "b", "b", "c", ""] * 2
    rows = [(*row, group) for row, group in zip(ROWS, groups, strict=True)]
    write(folder, rows, ("filename", "label", "group"))
    table = read(folder, num_folds=3)
    assert column(table, "source") == [
        *("a", "a", "b", "b", "c", "cat5.wav"),
        *("a", "a", "b", "b", "c", "dog5.wav"),
    ]
    for group in "abc":
        assert len({row.fold for row in table.clips if row.source == group}) == 1
    assert set(column(table, "fold")) == {1, 2, 3}


def test_several_labels_in_a_cell(folder):
    labels = ["rain", "rain;wind", "", "wind"] * 3
    rows = list(zip(NAMES, labels, strict=True))
    write(folder, rows)
    table = read(folder)
    assert table.multi_label
    assert table.classes == ("rain", "wind")
    assert column(table, "labels") == [(0,), (0, 1), (), (1,)] * 3


def test_a_file_that_excel_or_windows_wrote(folder):
    write(folder, ROWS)
    path = folder / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert column(read(folder), "filename") == NAMES


def test_empty_lines_and_quotes(folder):
    text = "".join(f'"{name}","{label}"\n\n' for name, label in ROWS)
    (folder / "metadata.csv").write_text("filename,label\n" + text)
    assert column(read(folder), "filename") == NAMES


def test_which_file_is_read(folder):
    write(folder, ROWS, name="mine.csv")
    assert len(read(folder).clips) == 12
    assert len(read(folder / "mine.csv").clips) == 12
    write(folder, ROWS[:11], name="other.csv")
    message = refusal(folder)
    assert "has 2 CSV files (mine.csv; other.csv); name the right one" in message
    write(folder, ROWS[1:11])
    assert len(read(folder).clips) == 10
    assert len(read(folder / "other.csv").clips) == 11


def test_what_is_no_source(folder, tmp_path):
    assert "has 0 CSV files; name the right one" in refusal(folder)
    assert "nowhere is not there; give a CSV file" in refusal(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"needs config\.data\.source_dir"):
        audio_csv.read(datasets.Settings(sample_rate=16000))


@pytest.mark.parametrize(
    ("columns", "row", "sentence"),
    [
        ("label", "", "line 2: label is missing"),
        ("label", "dog ", "label 'dog ' has blanks at an end"),
        ("label", " dog", "label ' dog' has blanks at an end"),
        ("label", "big  dog", "label 'big  dog' has blanks"),
        ("label", "dog; cat", "label 'dog; cat' has blanks"),
        ("label", "dog;", "label 'dog;' has blanks at an end, two in a row, a line b"),
        ("label", "dog;dog", "label 'dog;dog' names a class twice"),
        ("label,fold", "cat,0", "line 2: fold is '0', not a whole number from 1"),
        ("label,fold", "cat,-1", "fold is '-1', not"),
        ("label,fold", "cat,1.0", "fold is '1.0', not"),
        ("label,fold", "cat,", "fold is '', not"),
        ("label,fold", "cat,\u00b2", "fold is '\u00b2', not"),
        ("label,split", "cat,dev", "split is 'dev', not one of test, validation, val"),
        ("label,split", "cat,", "split is '', not one of"),
    ],
)
def test_faulty_cells_are_quoted_with_their_line(folder, columns, row, sentence):
    path = folder / "metadata.csv"
    path.write_text(f"filename,{columns}\ncat0.wav,{row}\n", encoding="utf-8")
    message = refusal(folder)
    assert "metadata.csv has 1 faults: line 2" in message
    assert sentence in message


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "line 2: filename is missing"),
        ("none.wav", "line 2: none.wav is not in"),
        ("a\\none.wav", "; write / between folders"),
        ("/etc/passwd", "filename '/etc/passwd' leaves the CSV's folder"),
        ("../x.wav", "filename '../x.wav' leaves the CSV's folder"),
        ("sub/../../x.wav", "leaves the CSV's folder"),
        ("x" * 300 + ".wav", "can't be a file"),
    ],
)
def test_faulty_file_names_are_told_with_their_line(folder, name, sentence):
    write(folder, [(name, "cat")])
    assert sentence in refusal(folder)


def test_all_faults_come_in_one_error(folder):
    write(folder, [("none.wav", "cat"), ("cat1.wav", ""), ("cat2.wav", "dog ")])
    message = refusal(folder)
    assert "has 3 faults" in message
    for sentence in (
        "line 2: none.wav is not in",
        "line 3: label is missing",
        "line 4: label 'dog '",
    ):
        assert sentence in message


def test_one_line_for_each_file(folder):
    write(folder, [*ROWS, ("cat0.wav", "dog"), ("./cat1.wav", "cat")])
    message = refusal(folder)
    assert "line 14: cat0.wav is in line 2 already; give several labels" in message
    assert "line 15: cat1.wav is in line 3 already" in message


def test_line_numbers_count_lines_not_rows(folder):
    text = 'filename,label,notes\ncat0.wav,cat,"two\nlines"\nnone.wav,cat,\n'
    (folder / "metadata.csv").write_text(text)
    assert "line 4: none.wav is not in" in refusal(folder)


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("", "lacks the columns filename, label; it has none, expected are filename"),
        ("file,label", "lacks the columns filename; it has 'file', 'label', expected"),
        ("filename ,label", "it has 'filename ', 'label'"),
        ("Filename,Label", "lacks the columns filename, label; it has 'Filename'"),
        ("filename;label", "one column only, 'filename;label'; put commas between"),
        ("filename\tlabel", "put commas between the columns"),
        ("filename,label,label", "has columns twice: label"),
        ("filename,label,fold,split", "has the columns fold and split; keep one"),
        ("filename,label,group", "line 2: 2 cells, but the first line names 3 columns"),
        ("filename,label", "has no rows"),
    ],
)
def test_heads_that_do_not_fit_are_refused(folder, head, sentence):
    row = "" if sentence == "has no rows" else "cat0.wav,cat\n"
    (folder / "metadata.csv").write_text(f"{head}\n{row}")
    assert sentence in refusal(folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("filename,label\ncat0.wav,b\u00e4r\n".encode("latin-1"), "is not in UTF-8"),
        ("filename,label\ncat0.wav,cat\n".encode("utf-16"), "is not in UTF-8"),
        (b'filename,label\ncat0.wav,"cat\n', "is not a readable CSV file"),
        (b"RIFF\x00\x00\x00\x00WAVE", "lacks the columns filename, label"),
    ],
)
def test_what_is_no_table_is_refused(folder, content, sentence):
    (folder / "metadata.csv").write_bytes(content)
    assert sentence in refusal(folder)


def test_a_folder_or_a_link_for_a_sound(folder, tmp_path_factory):
    (folder / "x.wav").mkdir()
    write(folder, [("x.wav", "cat")])
    assert "x.wav is a folder, not a sound file" in refusal(folder)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    mixed_tree.write(elsewhere / "a.wav")
    (folder / "out.wav").symlink_to(elsewhere / "a.wav")
    (folder / "sub").symlink_to(elsewhere)
    (folder / "none.wav").symlink_to("nothing")
    write(folder, [("out.wav", "cat"), ("sub/a.wav", "cat"), ("none.wav", "cat")])
    message = refusal(folder)
    assert "out.wav is a symbolic link out of the folder" in message
    assert "sub/a.wav is a symbolic link out of the folder" in message
    assert "none.wav is a symbolic link to nothing" in message


def test_parts_without_training_or_two_names_for_one(folder):
    rows = [(*row, "test") for row in ROWS]
    write(folder, rows, ("filename", "label", "split"))
    assert "the parts are test; give train" in refusal(folder)
    rows = [
        (*row, word)
        for row, word in zip(ROWS, ["train", "val", "valid"] * 4, strict=True)
    ]
    write(folder, rows, ("filename", "label", "split"))
    assert "the parts are train, val, valid; give train, and one" in refusal(folder)
