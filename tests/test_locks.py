import contextlib
import datetime
import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from etils import epath

from audiojax import locks
from audiojax.errors import InputError

# Takes the lock of a folder, says whether it got it, and holds it until told to end.
HOLD = """
import sys
from etils import epath
from audiojax import locks
with locks.held(epath.Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "fold1-seed0")


@contextlib.contextmanager
def other_process(folder):
    """A process that tries the lock: itself, and whether it got it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip() == "True"
        finally:
            process.kill()


def test_a_free_lock_is_taken_and_makes_the_folder(folder):
    with locks.held(folder) as ours:
        assert ours
        assert (folder / "lock").exists()


def test_the_holder_is_named(folder):
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    with locks.held(folder):
        words = locks.holder(folder).split()
    assert f"process {os.getpid()}" == " ".join(words[:2])
    assert f"on {socket.gethostname()} since" == " ".join(words[2:5])
    since = datetime.datetime.fromisoformat(words[5])
    assert before <= since <= datetime.datetime.now(datetime.UTC)


def test_a_lock_that_is_taken_is_not_given_again(folder):
    with locks.held(folder), locks.held(folder) as again:
        assert not again


def test_another_folder_has_a_lock_of_its_own(folder):
    with locks.held(folder), locks.held(folder.parent / "fold2-seed0") as ours:
        assert ours


def test_it_is_free_again_after_the_block_and_no_one_is_blamed(folder, caplog):
    with locks.held(folder):
        pass
    with locks.held(folder) as ours:
        assert ours
    assert caplog.text == ""


def test_one_that_did_not_get_it_leaves_it_to_its_holder(folder):
    with locks.held(folder):
        holder = locks.holder(folder)
        with locks.held(folder):
            pass
        assert locks.holder(folder) == holder
        with locks.held(folder) as again:
            assert not again


def test_it_is_free_again_after_an_error(folder, caplog):
    with pytest.raises(ZeroDivisionError), locks.held(folder):
        raise ZeroDivisionError
    with locks.held(folder) as ours:
        assert ours
    assert caplog.text == ""


def test_two_processes_and_one_killed(folder, caplog):
    """Each gets no for an answer while the other holds it; SIGKILL frees it at once."""
    caplog.set_level(logging.INFO)
    with other_process(folder) as (process, got_it):
        assert got_it
        with locks.held(folder) as ours:
            assert not ours
        assert f"process {process.pid} on {socket.gethostname()}" in locks.holder(
            folder
        )
        assert caplog.text == ""
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locks.held(folder) as ours:
            assert ours
            assert f"was left by process {process.pid} on" in caplog.text
            assert "taken over here" in caplog.text
            with other_process(folder) as (_, got_it_too):
                assert not got_it_too


def test_a_lock_without_words_is_someones(folder, caplog):
    folder.mkdir()
    for text in ("", "{", "[]", '{"pid": 1}'):
        (folder / "lock").write_text(text)
        assert locks.holder(folder) == "another process"
    (folder / "lock").unlink()
    assert locks.holder(folder) == "another process"


def test_a_file_in_the_place_of_the_folder_is_said(folder):
    folder.write_text("not a folder")
    with (
        pytest.raises(InputError, match=r"can't be written .*--workdir"),
        locks.held(folder),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(folder):
    folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match="Permission denied"), locks.held(folder):
        pass


def test_a_file_system_without_locks_is_said(folder, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with (
        pytest.raises(InputError, match=r"can't be locked \(Operation not supported\)"),
        locks.held(folder),
    ):
        pass


def test_buckets_have_no_locks(tmp_path, monkeypatch):
    """The folder would be made here, under the name of the bucket."""
    monkeypatch.chdir(tmp_path)
    bucket = epath.Path("gs://bucket/fold1-seed0")
    assert not locks.possible(bucket)
    assert locks.possible(epath.Path(tmp_path))
    with locks.held(bucket) as ours, locks.held(bucket) as again:
        assert ours
        assert again
    assert list(tmp_path.iterdir()) == []


def test_one_that_waits_gets_it_when_its_holder_ends(folder, caplog):
    caplog.set_level(logging.INFO)
    with other_process(folder) as (process, got_it):
        assert got_it
        assert process.stdin is not None
        threading.Timer(0.3, process.stdin.close).start()
        with locks.held(folder, wait=True) as ours:
            assert ours
    assert f"waiting for process {process.pid} on" in caplog.text
