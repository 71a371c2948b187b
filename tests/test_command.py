import errno
import io
import signal

import pytest

from audiojax import command
from audiojax.errors import InputError, Interrupted


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (InputError("a.wav is empty"), 1, "a.wav is empty"),
        (Interrupted(signal.SIGTERM), 143, "stopped by SIGTERM, all steps are saved"),
        (Interrupted(signal.SIGINT), 130, "in runs/x; type the same command again"),
        (KeyboardInterrupt(), 130, "type the same command again to go on"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/results.json"),
            1,
            "No space left on device: runs/x/results.json",
        ),
    ],
)
def test_ends_in_one_sentence(capsys, error, status, sentence):
    with pytest.raises(SystemExit) as caught, command.one_sentence("runs/x"):
        raise error
    assert caught.value.code == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("audiojax: ")
    assert sentence in line


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), command.one_sentence("runs/x"):
        _ = 1 / 0


def test_what_the_output_can_not_encode_is_printed_by_number(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(command.sys, "stdout", io.TextIOWrapper(written, "ascii"))
    command.print_any_text()
    print("caf\udce9 \u05e9", flush=True)
    assert written.getvalue() == b"caf\\udce9 \\u05e9\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--config=configs/demo.py"], ["--config={}/configs/demo.py"]),
        (["--config", "configs/demo.py"], ["--config", "{}/configs/demo.py"]),
        (["--config=configs/demo.py:x"], ["--config={}/configs/demo.py:x"]),
        (["--config=mine.py", "--workdir=x"], ["--config=mine.py", "--workdir=x"]),
        (["--config=configs/none.py"], ["--config=configs/none.py"]),
        (["--config"], ["--config"]),
        (["config=configs/demo.py"], ["config=configs/demo.py"]),
    ],
)
def test_ready_configs_are_found_from_any_folder(
    tmp_path, monkeypatch, repo_root, given, expected
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    found = command._with_ready_configs(given)
    assert found == [text.format(repo_root) for text in expected]
    # One of the user's own goes first.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.py").touch()
    assert command._with_ready_configs(given) == given


def test_names_of_files_must_be_more_than_ascii(capsys, monkeypatch):
    monkeypatch.setattr(command.sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(SystemExit):
        command.prepare()
    assert "set PYTHONUTF8=1" in capsys.readouterr().err
