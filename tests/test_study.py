import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from audiojax import files, models, study
from audiojax.errors import InputError
from audiojax.study import Study
from audiojax.training import results
from audiojax.workdir import Workdir
from configs import study_esc10
from tests import studies, trained

NETWORK = models.create("resnet18", 10)
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")


def of_kind(found, kind):
    return {point.stage: point.model for point in found if point.kind == kind}


def test_every_stage_is_frozen_drawn_anew_and_cut_before():
    first, second, *others = study.points(Study(), NETWORK)
    assert (first.name, first.model) == ("pretrained", {})
    assert (second.name, second.model) == ("random", {"pretrained": None})
    assert of_kind(others, "freeze") == {name: {"freeze": name} for name in STAGES}
    anew = {name: {"reinitialize": name} for name in STAGES}
    assert of_kind(others, "fusion") == anew
    # Before the first one there is nothing.
    assert of_kind(others, "cutoff") == {name: {"cut": name} for name in STAGES[1:]}
    assert others[0].name == "freeze=conv1"


def test_the_stages_that_are_named_in_the_network_s_order():
    found = study.points(Study(stages=("layer3", "layer1")), NETWORK)
    for kind in study.FIELDS:
        assert list(of_kind(found, kind)) == ["layer1", "layer3"]


def test_the_repetition_keeps_batch_norm_and_updates_its_statistics():
    found = study.points(Study(choices="repetition", stages=("layer2",)), NETWORK)
    freeze, fusion, cutoff = (point.model for point in found[2:])
    assert freeze == {"freeze": "layer2", "update_batch_norm": True}
    assert fusion == {
        "reinitialize": "layer2",
        "keep_batch_norm": True,
        "he_fan_out": True,
    }
    assert cutoff == {"cut": "layer2"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"stages": ("layer9",)}, "'layer9', which the network lacks; choose some of"),
        ({"stages": ("head",)}, "choose some of conv1, layer1, layer2, layer3, layer4"),
        ({"stages": ("layer1", "layer1")}, "names 'layer1', twice"),
        ({"choices": "theirs"}, "choices is 'theirs'; choose one of ours, repetition"),
        ({"clips": -1}, "clips is -1; give a number of clips, or 0"),
    ],
)
def test_what_can_t_be_studied_is_told(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        study.points(Study(**settings), NETWORK)


def test_layers_stand_before_their_stage():
    asked = Study(layers=("layer1.1.conv2", "layer9.0", "layer1.0.conv1"))
    found = study.layers(asked, NETWORK)
    inside = ("layer1.1.conv2", "layer1.0.conv1")
    assert found == ("conv1", *inside, *STAGES[1:], "layer9.0")


def test_scores_are_those_of_the_predictions(tmp_path):
    config = trained.make_config()
    config.sweep.folds, config.sweep.seeds = (1, 2), (0, 1)
    made = trained.train(tmp_path, config)
    found = study.scores(made.workdir)
    assert found is not None
    expected = []
    for run in found["runs"]:
        folder = tmp_path / f"fold{run['fold']}-seed{run['seed']}"
        with np.load(folder / "predictions.npz") as arrays:
            right = arrays["logits"].argmax(1) == arrays["label"]
        expected.append(right.mean())
        assert run["score"] == pytest.approx(right.mean())
    assert found["count"] == 4
    assert found["mean"] == pytest.approx(np.mean(expected))
    assert found["std"] == pytest.approx(np.std(expected))
    clips = len(made.recordings)
    wilson = stats.binomtest(round(np.mean(expected) * clips), clips)
    interval = wilson.proportion_ci(0.95, "wilson")
    assert found["interval"] == pytest.approx([interval.low, interval.high], abs=0.01)
    # Two convolutions, two normalizations, and the head of three classes.
    assert found["parameters"] == 27 * 8 + 72 * 16 + 2 * 8 + 2 * 16 + 16 * 3 + 3
    # At least a product and a sum for each tap, of 4 x 4 and 2 x 2 pixels.
    assert found["flops"] > 2 * (27 * 8 * 16 + 72 * 16 * 4) * 0.8
    assert study.scores(made.workdir) == found
    assert Workdir(made.workdir).model == "tiny"


def test_differences_are_those_of_pairs():
    ours = {"runs": [{"fold": f, "seed": 0, "score": s} for f, s in ((1, 0.5), (2, 1))]}
    theirs = {"runs": [{"fold": 2, "seed": 0, "score": 0.25}]}
    assert study.beside(ours, theirs) == {"mean": 0.75, "std": 0.0, "count": 1}
    assert study.beside(ours, {"runs": []}) is None


def test_the_table_and_the_csv_hold_every_score():
    found = studies.made()
    lines = study.table(found).splitlines()
    assert len(lines) == 1 + len(studies.SCORES)
    (frozen,) = [
        line for line in lines if line.strip().startswith("frozen up to conv2")
    ]
    assert frozen.split()[-7:] == ["2", "60.00", "0.00", "10.0", "to", "95.0", "-25.00"]
    (cut,) = [line for line in lines if "cut before conv2" in line]
    assert "no run yet" in cut
    rows = list(csv.reader(io.StringIO(study.as_csv(found))))
    assert rows[0] == ["kind", "stage", "fold", "seed", "accuracy"]
    expected = [
        [kind, stage or "", str(fold), "0", str(score)]
        for (kind, stage), scores in studies.SCORES.items()
        for fold, score in enumerate(scores or (), 1)
    ]
    assert rows[1:] == expected


def test_a_damaged_study_is_told(tmp_path):
    files.write_sealed(tmp_path / study.TRANSFER, studies.made())
    assert study.read(tmp_path)["model"] == "tiny"
    path = tmp_path / study.TRANSFER
    path.write_text(path.read_text().replace("0.85", "0.95"))
    with pytest.raises(InputError, match="type the study's command again"):
        study.read(tmp_path)
    json.loads(path.read_text())


def test_the_documents_tell_of_the_study_that_lies_beside_them(repo_root):
    found = study.read(repo_root / "docs" / "study_esc10")
    assert study.table(found) in (repo_root / "docs" / "transfer.md").read_text()
    config = study_esc10.get_config()
    assert found["study"] == results.plain(config.study)
    del config["study"]
    config.data.source_dir = found["config"]["data"]["source_dir"]
    config.sweep.folds = found["config"]["sweep"]["folds"]
    assert found["config"] == results.plain(config)
