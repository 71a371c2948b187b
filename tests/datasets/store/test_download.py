import dataclasses
import functools
import hashlib
import http.server
import io
import threading
import zipfile

import pytest

from audiojax.datasets import Settings
from audiojax.datasets.layouts import esc50
from audiojax.datasets.store import download
from audiojax.errors import InputError
from tests import sound_tree


@pytest.fixture
def site(tmp_path):
    """A web server of one folder; `hits` lists what it was asked for."""
    folder, hits = tmp_path / "site", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            hits.append(args[0])

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}", hits
        server.shutdown()
        thread.join()


@pytest.fixture
def archive(site, tmp_path):
    """A zip file of a small ESC-50, published on the site."""
    folder, url, _ = site
    tree = tmp_path / "tree"
    sound_tree.make_tree(tree)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(tree.rglob("*.*")):
            file.write(path, f"ESC-50-master/{path.relative_to(tree)}")
    (folder / "a.zip").write_bytes(buffer.getvalue())
    return download.Archive(
        name="ESC-50-test",
        url=f"{url}/a.zip",
        sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        size=len(buffer.getvalue()),
    )


def test_fetched_once_checked_and_unpacked(archive, site, tmp_path):
    tree = download.fetch(archive, tmp_path)
    assert (tree / "meta" / "esc50.csv").is_file()
    assert len(list((tree / "audio").iterdir())) == 12
    assert download.fetch(archive, tmp_path) == tree
    assert len(site[2]) == 1
    assert not list(tmp_path.glob(".*.part"))
    assert not list(tree.glob("*.zip"))


def test_esc50_is_loaded_from_the_release(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(esc50, "RELEASE", archive)
    settings = Settings(data_dir=str(tmp_path / "data"), sample_rate=16000)
    assert len(esc50.read("esc50", settings).clips) == 12


def test_what_a_killed_download_left_does_no_harm(archive, tmp_path):
    left = tmp_path / ".ESC-50-test.part"
    (left / "audio").mkdir(parents=True)
    (left / "archive.zip").write_bytes(b"half")
    (left / "audio" / "left.wav").write_bytes(b"half")
    tree = download.fetch(archive, tmp_path)
    assert len(list((tree / "audio").iterdir())) == 12


def test_another_file_is_refused(archive, site, tmp_path):
    (site[0] / "a.zip").write_bytes(b"<html>Not here</html>")
    with pytest.raises(InputError, match=r"sha256 is .* was expected.* as source_dir"):
        download.fetch(archive, tmp_path)
    assert not (tmp_path / archive.name).exists()
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("url", ["/none.zip", "http://127.0.0.1:1/a.zip"])
def test_no_network_is_one_sentence(archive, site, tmp_path, url):
    wrong = dataclasses.replace(archive, url=site[1] + url if url[0] == "/" else url)
    with pytest.raises(InputError, match=r"could not be downloaded .* source_dir"):
        download.fetch(wrong, tmp_path)
