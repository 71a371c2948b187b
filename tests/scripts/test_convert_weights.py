"""Published checkpoints of every kind, to weights files.

Reading `.pth` files needs torch, which the project does not install; those tests run
where it is.
"""

import functools
import hashlib
import importlib.util
import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from audiojax import catalog, models, pretrained
from audiojax.errors import InputError
from scripts import convert_weights, make_goldens

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason="torchvision is not installed",
)


@functools.cache
def published(name, classes=1000):
    """The golden checkpoint of a network, with timm's counts of batches."""
    variables = convert_weights.empty(models.create(name, classes))
    arrays = pretrained.to_published(variables)
    arrays = make_goldens.checkpoint({name: a.shape for name, a in arrays.items()})
    for name in [name for name in arrays if name.endswith("running_mean")]:
        arrays[name.replace("running_mean", "num_batches_tracked")] = np.array(7)
    return arrays


@pytest.fixture
def checkpoint(tmp_path):
    """ResNet-18's as a safetensors file, in a folder of its own."""
    (tmp_path / "downloads").mkdir()
    path = tmp_path / "downloads" / "model.safetensors"
    pretrained.write(path, published("resnet18"))
    return path


def logits(name, weights):
    network = models.create(name, 1000, **catalog.RECORDS[name].options)
    variables = pretrained.load(weights, convert_weights.empty(network))
    image = make_goldens.image(make_goldens.SIZES[1])
    return jax.jit(functools.partial(network.apply, train=False))(variables, image)


def assert_golden(name, found):
    with np.load(make_goldens.GOLDEN / f"{name}.npz") as golden:
        expected = golden["75x101/logits"]
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_file_with_timms_names_gives_torchvisions_logits(checkpoint, tmp_path):
    path = convert_weights.convert("resnet18", checkpoint, tmp_path / "weights")
    assert path == tmp_path / "weights" / "resnet18.safetensors"
    assert_golden("resnet18", logits("resnet18", path))
    ours = pretrained.read(path)
    assert ours.keys() == {n for n in published("resnet18") if "num_batches" not in n}


def test_the_manifest_gets_a_line_and_keeps_the_others(checkpoint, tmp_path):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"other": {"sha256": "0"}}))
    convert_weights.convert("resnet18", checkpoint, tmp_path, "a friend", "today")
    lines = json.loads(manifest.read_text())
    assert lines["other"] == {"sha256": "0"}
    line = catalog.locate(tmp_path / "resnet18.safetensors")[1]
    assert (line.source, line.revision) == ("a friend", "today")
    assert line.license == "BSD-3-Clause"
    assert line.mean == catalog.RECORDS["resnet18"].mean
    assert lines["resnet18"]["sha256"] == line.sha256
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_converted_file_converts_to_itself(checkpoint, tmp_path):
    once = convert_weights.convert("resnet18", checkpoint, tmp_path / "once")
    twice = convert_weights.convert("resnet18", once, tmp_path / "twice")
    assert once.read_bytes() == twice.read_bytes()


def test_another_number_of_classes_is_kept(tmp_path):
    path = tmp_path / "fine_tuned.safetensors"
    pretrained.write(path, published("resnet18", classes=50))
    path = convert_weights.convert("resnet18", path, tmp_path / "weights")
    assert pretrained.read(path)["fc.bias"].shape == (50,)


def test_what_is_not_the_network_is_refused_and_nothing_written(checkpoint, tmp_path):
    output = tmp_path / "weights"
    with pytest.raises(InputError, match=r"model.safetensors: \d+ parameters missing"):
        convert_weights.convert("resnet34", checkpoint, output)
    assert not output.exists()


def test_the_names_of_a_parallel_model_are_freed_of_their_prefix():
    assert convert_weights.rename({"module.fc.bias": 1}, []) == {"fc.bias": 1}


def test_the_old_names_of_densenet_are_translated():
    block = "features.denseblock1.denselayer2"
    old = {f"{block}.norm.1.running_var": 1, f"{block}.conv.2.weight": 2}
    new = {f"{block}.norm1.running_var": 1, f"{block}.conv2.weight": 2}
    assert convert_weights.rename(old, []) == new
    assert convert_weights.rename(new, []) == new


def test_the_names_of_the_lite_package_are_translated():
    old = {
        "_conv_stem.weight": 0,
        "_blocks.0._depthwise_conv.weight": 1,
        "_blocks.0._bn2.bias": 2,
        "_blocks.1._expand_conv.weight": 3,
        "_blocks.1._bn2.bias": 4,
        "_blocks.2._expand_conv.weight": 5,
        "_bn1.running_mean": 6,
        "_fc.weight": 7,
        "_blocks.3._bn1.bias": 8,
    }
    blocks = ["blocks.0.0.bn1.bias", "blocks.1.0.bn1.bias", "blocks.1.1.bn1.bias"]
    assert convert_weights.rename(old, blocks) == {
        "conv_stem.weight": 0,
        "blocks.0.0.conv_dw.weight": 1,
        "blocks.0.0.bn2.bias": 2,
        "blocks.1.0.conv_pw.weight": 3,
        "blocks.1.0.bn3.bias": 4,
        "blocks.1.1.conv_pw.weight": 5,
        "bn2.running_mean": 6,
        "classifier.weight": 7,
        "blocks.?.3.bn1.bias": 8,
    }


def test_without_torch_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "resnet18.pth"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="needs torch: pip install"):
        convert_weights.read_checkpoint(path)


def test_an_old_torch_is_refused(tmp_path, monkeypatch):
    class Old:
        __version__ = "2.9.1+cpu"

    monkeypatch.setitem(sys.modules, "torch", Old)
    path = tmp_path / "resnet18.pth"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"torch>=2\.10"):
        convert_weights.read_checkpoint(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=resnet19", "--checkpoint=none.safetensors"], "No such file"),
        (["--model=resnet18", "--checkpoint=none.pth"], "found no file"),
    ],
)
def test_the_command_ends_with_one_sentence_and_status_1(repo_root, arguments, message):
    command = [sys.executable, "-m", "scripts.convert_weights", *arguments]
    result = subprocess.run(command, cwd=repo_root, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: none.")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("digits", [8, 64])
def test_the_sum_in_a_files_name_is_checked(tmp_path, monkeypatch, digits):
    class Torch:
        __version__ = "2.13.0"

        @staticmethod
        def load(*_args, **_options):
            return {}

        is_tensor = staticmethod(callable)

    monkeypatch.setitem(sys.modules, "torch", Torch)
    content = b"tensors"
    sha256 = hashlib.sha256(content).hexdigest()
    good = tmp_path / f"resnet18-{sha256[:digits]}.pth"
    good.write_bytes(content)
    assert convert_weights.read_checkpoint(good) == {}
    good.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"its name says {sha256[:digits]}…"):
        convert_weights.read_checkpoint(good)


def state_dict(name):
    import torch  # pyright: ignore[reportMissingImports]

    return {
        name: torch.from_numpy(np.array(array))
        for name, array in published(name).items()
    }


@needs_torch
@pytest.mark.parametrize("zipped", [True, False], ids=["new", "old"])
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {f"module.{name}": array for name, array in state.items()},
        lambda state: {"state_dict": state, "epoch": 9},
    ],
    ids=["plain", "parallel", "wrapped"],
)
def test_a_pth_file_gives_the_arrays_of_its_tensors(tmp_path, zipped, wrap):
    import torch  # pyright: ignore[reportMissingImports]

    path = tmp_path / "checkpoint.pth"
    state = wrap(state_dict("resnet18"))
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path = convert_weights.convert("resnet18", path, tmp_path)
    found = pretrained.read(path)
    assert len(found) == 102
    for name, array in found.items():
        np.testing.assert_array_equal(array, published("resnet18")[name])


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "inception_v3"])
def test_a_state_dict_of_torchvision_gives_its_logits(tmp_path, name):
    import torch  # pyright: ignore[reportMissingImports]

    network = make_goldens.torchvision_network(name, aux_logits=True)
    network.load_state_dict(state_dict(name), strict=name != "inception_v3")
    path = tmp_path / "checkpoint.pth"
    torch.save(network.state_dict(), path)
    converted = convert_weights.convert(name, path, tmp_path)
    found = logits(name, converted)
    image = make_goldens.image(make_goldens.SIZES[1]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(image)).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_what_we_save_loads_strictly_into_torchvision(tmp_path, name):
    from safetensors.torch import load_file

    network = make_goldens.torchvision_network(name)
    variables = convert_weights.empty(models.create(name, 1000))
    variables = pretrained.fit("x", published(name), variables)
    pretrained.save(tmp_path / "ours.safetensors", variables)
    network.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    for key, tensor in network.state_dict().items():
        if "num_batches" not in key:
            np.testing.assert_array_equal(tensor.numpy(), published(name)[key])


@needs_torch
def test_a_file_that_holds_code_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(subprocess.run))
    with pytest.raises(InputError, match="holds code") as caught:
        convert_weights.read_checkpoint(path)
    assert "weights_only" not in str(caught.value)


@needs_torch
@pytest.mark.parametrize("state", [[1, 2], {"a": 1}], ids=["list", "numbers"])
def test_a_file_of_anything_but_tensors_is_refused(tmp_path, state):
    import torch  # pyright: ignore[reportMissingImports]

    path = tmp_path / "numbers.pth"
    torch.save(state, path)
    with pytest.raises(InputError, match="expected a dictionary of tensors"):
        convert_weights.read_checkpoint(path)


@needs_torch
def test_half_precision_is_refused(tmp_path):
    import torch  # pyright: ignore[reportMissingImports]

    path = tmp_path / "half.pth"
    torch.save({"a": torch.zeros(3, dtype=torch.bfloat16)}, path)
    with pytest.raises(InputError, match="holds bfloat16 values"):
        convert_weights.read_checkpoint(path)
