"""Where weights come from: manifests, the table, the hub."""

import dataclasses
import hashlib
import json
import sys
import types
from pathlib import Path

import pytest
import safetensors.numpy

from audiojax import catalog, pretrained
from audiojax.errors import InputError
from tests.test_pretrained import assert_equal, variables_of


@pytest.fixture
def arrays():
    """A published checkpoint of the tiny network."""
    return pretrained.to_published(variables_of(seed=1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that is searched for weights, and the only one."""
    monkeypatch.setattr(catalog, "weights_dirs", lambda: [tmp_path])
    return tmp_path


def test_weights_lie_in_the_repository_or_in_the_installed_package(
    tmp_path, monkeypatch, repo_root
):
    monkeypatch.delenv("AUDIOJAX_WEIGHTS", raising=False)
    assert catalog.weights_dirs() == [repo_root / "weights"]
    package = tmp_path / "audiojax"
    monkeypatch.setattr(catalog, "__file__", str(package / "catalog.py"))
    (package / "weights").mkdir(parents=True)
    assert catalog.weights_dirs() == [package / "weights"]
    monkeypatch.setenv("AUDIOJAX_WEIGHTS", "mine")
    assert catalog.weights_dirs() == [Path("mine"), package / "weights"]


def record(path, **changes):
    """A manifest's line for a file."""
    line = {
        "source": "a test",
        "revision": "1",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "license": "CC0-1.0",
        "mean": [0.1, 0.2, 0.3],
        "std": [1, 2, 3],
        "options": {"transform_input": True},
    }
    return line | changes


def test_a_file_is_found_by_name_with_its_line_of_the_manifest(folder, arrays):
    path = folder / "mine.safetensors"
    pretrained.write(path, arrays)
    (folder / "manifest.json").write_text(json.dumps({"mine": record(path)}))
    assert_equal(
        pretrained.load("mine", variables_of()),
        pretrained.fit("x", arrays, variables_of()),
    )
    found = catalog.locate("mine")[1]
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (1, 2, 3))
    assert found.options == {"transform_input": True}


def test_the_british_spelling_of_older_manifests_is_read(folder, arrays):
    path = folder / "mine.safetensors"
    pretrained.write(path, arrays)
    line = record(path)
    line["licence"] = line.pop("license")
    (folder / "manifest.json").write_text(json.dumps({"mine": line}))
    assert catalog.locate("mine")[1].license == "CC0-1.0"
    pretrained.load("mine", variables_of())


def test_a_wrong_sum_is_an_error_at_every_load(folder, arrays):
    path = folder / "mine.safetensors"
    pretrained.write(path, arrays)
    (folder / "manifest.json").write_text(json.dumps({"mine": record(path)}))
    pretrained.load("mine", variables_of())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for weights in ("mine", path):
        with pytest.raises(InputError, match=r"sha256 is .*, expected .*get it again"):
            pretrained.load(weights, variables_of())


def test_the_sum_of_the_table_holds_for_a_file_put_there_by_hand(folder, arrays):
    pretrained.write(folder / "resnet50.safetensors", arrays)
    with pytest.raises(InputError, match="expected 5d061a3c593d"):
        pretrained.load("resnet50", variables_of())


def test_a_file_of_ones_own_has_the_record_of_its_network(tmp_path, arrays):
    path = tmp_path / "inception_v3.safetensors"
    found = catalog.locate(path)[1]
    assert found.options == {"transform_input": True}
    assert found.sha256 is None


def test_an_unknown_name_is_an_error_that_lists_the_known(folder):
    with pytest.raises(InputError, match=r"'resnet19'.* resnet18, .*_lite4"):
        pretrained.load("resnet19", variables_of())


def test_without_the_hubs_client_one_sentence_says_what_to_do(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError) as caught:
        pretrained.load("resnet18", variables_of())
    assert str(caught.value) == (
        "no weights of resnet18 here: install huggingface_hub, or put the file "
        "model.safetensors of timm/resnet18.tv_in1k on the Hugging Face hub at "
        f"{folder / 'resnet18.safetensors'}"
    )


def hub(monkeypatch, download):
    client = types.ModuleType("huggingface_hub")
    client.__dict__["hf_hub_download"] = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)


def test_without_a_network_one_sentence_says_what_to_do(folder, monkeypatch):
    def download(*_args, **_options):
        raise ConnectionError("Name or service not known\n and a long story")

    hub(monkeypatch, download)
    with pytest.raises(InputError, match=r"failed \(Name or service not known\): try"):
        pretrained.load("resnet18", variables_of())


def test_a_download_is_pinned_and_checked(folder, arrays, monkeypatch, tmp_path):
    path = tmp_path / "cache"
    pretrained.write(path, arrays)
    asked = []

    def download(*args, **options):
        asked.append((args, options))
        return str(path)

    hub(monkeypatch, download)
    with pytest.raises(InputError, match="expected 694f673df652"):
        pretrained.load("resnet18", variables_of())
    file = ("timm/resnet18.tv_in1k", "model.safetensors")
    revision = "bbd144b3e5565108aad885f145491d11bc6ce807"
    assert asked == [(file, {"revision": revision})]
    known = dataclasses.replace(
        catalog.RECORDS["resnet18"],
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    monkeypatch.setitem(catalog.RECORDS, "resnet18", known)
    assert_equal(
        pretrained.load("resnet18", variables_of()),
        pretrained.fit("x", arrays, variables_of()),
    )


def test_where_no_sum_is_known_the_log_gives_the_files_own(tmp_path, arrays, caplog):
    path = tmp_path / "resnet101.safetensors"
    pretrained.write(path, arrays)
    pretrained.load(path, variables_of())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"no sum is on record to check; it is {sha256}" in caplog.text


def test_the_environment_names_a_folder_to_search_first(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOJAX_WEIGHTS", str(tmp_path))
    assert catalog.weights_dirs()[0] == tmp_path


def test_the_embedded_weights_are_those_of_their_manifest(repo_root):
    manifest = json.loads((repo_root / "weights" / "manifest.json").read_text())
    assert "efficientnet_lite0" in manifest
    for name, line in manifest.items():
        content = (repo_root / "weights" / f"{name}.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["sha256"]
        assert safetensors.numpy.load(content)["classifier.weight"].shape[0] == 1000
