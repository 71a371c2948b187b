"""The tutorial, run from above as its reader would."""

import json
import re

import pytest


@pytest.fixture
def path(repo_root):
    return repo_root / "docs" / "tutorial.ipynb"


def test_it_is_stored_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] for cell in code)
    assert all(cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in code:
        compile("".join(cell["source"]), path.name, "exec")


@pytest.mark.slow
def test_it_runs(path, repo_root, tmp_path, monkeypatch):
    """To its end; the new sound is told, explained, and told by the exported file."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    monkeypatch.setenv("XLA_FLAGS", "")
    cache = repo_root / ".pytest_cache" / "xla"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=900, resources=place).execute()
    outputs = [part for cell in notebook.cells for part in cell.get("outputs", [])]
    said = "".join(part.text for part in outputs if part.output_type == "stream")
    accuracy = re.search(r"^accuracy (\d\.\d+) of the clips", said, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) > 0.5  # chance is 0.25
    assert re.search(r"^whistle +0\.\d{3}$|^whistle +1\.000$", said, re.MULTILINE)
    assert "complete to 100.0%" in said
    assert re.search(r"^probabilities differ by \de-\d\d from JAX's$", said, re.M)
    shown = [kind for part in outputs for kind in part.get("data", {})]
    assert shown.count("image/png") == 1
    assert shown.count("text/html") == 4  # players
    for name in ("explained/whistle.kept.wav", "runs/tutorial/report.html"):
        assert (tmp_path / name).stat().st_size > 1000
