import json
import re
import subprocess
import sys

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn import metrics

from audiojax import ensemble, files
from audiojax.errors import InputError
from audiojax.training import sweep
from audiojax.workdir import Entry, Run
from tests import processes, tiny

CLASSES = ["dog", "rain", "siren"]


def names(fold, split="test"):
    """Clips of a fold; validation clips are other ones."""
    count = 30 if split == "test" else 24
    return [f"{fold}-{split}-{i}.wav" for i in range(count)]


def labels(filenames):
    return np.array([int(name[:-4].split("-")[-1]) % 3 for name in filenames])


def predicted(random, filenames, skill):
    """Logits that know the label more or less well, clips in any order."""
    order = random.permutation(filenames)
    label = labels(order)
    logits = random.normal(size=(len(label), 3)) + skill * np.eye(3)[label]
    return {"logits": logits.astype(np.float32), "label": label, "filename": order}


def write_workdir(
    path,
    number,
    *,
    folds=(1, 2),
    seeds=(0, 1),
    skill=1.0,
    classes=CLASSES,
    planned=None,
    validation=True,
):
    """A workdir as a sweep leaves it, its predictions made of random numbers."""
    random = np.random.default_rng(number)
    runs = []
    for fold in folds:
        for seed in seeds:
            run = Run(fold, seed)
            runs.append(Entry(run, 10, 0, 1.5, {"accuracy": 0.5}).to_json())
            splits = {"predictions.npz": names(fold)}
            if validation:
                splits["validation.npz"] = names(fold, "validation")
            for file, filenames in splits.items():
                arrays = predicted(random, filenames, skill)
                files.write_arrays(path / run.name / file, arrays)
    config = {
        "model": {"name": f"net{number}"},
        "sweep": {"folds": list(folds), "seeds": list(planned or seeds)},
    }
    results = {
        "classes": classes,
        "task": "single_label",
        "config": config,
        "runs": runs,
    }
    files.write_json(path / "results.json", results)
    return str(path)


@pytest.fixture
def two(tmp_path):
    """Two workdirs of the same clips: three seeds, and one seed."""
    return [
        write_workdir(tmp_path / "a", 1, seeds=(0, 1, 2)),
        write_workdir(tmp_path / "b", 2, seeds=(0,), skill=2.0),
    ]


def read(workdir, fold, seed, file="predictions.npz"):
    """Logits of a run by order of file name, and the labels."""
    arrays = np.load(f"{workdir}/fold{fold}-seed{seed}/{file}")
    order = np.argsort(arrays["filename"])
    return arrays["logits"][order].astype(float), arrays["label"][order]


def change(workdir, fold=1, seed=0, file="predictions.npz", **arrays):
    """Writes some arrays of a run anew, each a function of the one that was there."""
    path = f"{workdir}/fold{fold}-seed{seed}/{file}"
    held = files.read_arrays(path)
    for name, new in arrays.items():
        held[name] = new(held[name])
    files.write_arrays(path, held)


def change_results(workdir, edit):
    results = files.read_json(f"{workdir}/results.json")
    edit(results)
    files.write_json(f"{workdir}/results.json", results)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_workdirs_count_alike_whatever_their_seeds(two, average):
    """Every number again by arithmetic: three runs in one workdir, one in the other."""
    found = ensemble.ensemble(two, average=average)
    kind = (lambda x: x) if average == "logits" else (lambda x: special.softmax(x, 1))
    ensembles, singles = [], []
    for fold, row in zip((1, 2), found["folds"], strict=True):
        runs = [read(two[0], fold, seed) for seed in (0, 1, 2)]
        label = runs[0][1]
        a = np.mean([kind(logits) for logits, _ in runs], axis=0)
        b_logits, b_label = read(two[1], fold, 0)
        b = kind(b_logits)
        np.testing.assert_array_equal(b_label, label)
        both = (a + b) / 2
        a_single = np.mean([np.mean(z.argmax(1) == label) for z, _ in runs])
        b_single = np.mean(b.argmax(1) == label)
        assert row["fold"] == fold
        assert row["num_clips"] == 30
        assert row["workdirs"][0]["single"] == pytest.approx(a_single)
        assert row["workdirs"][0]["ensemble"] == np.mean(a.argmax(1) == label)
        assert row["workdirs"][1]["single"] == b_single
        assert row["workdirs"][1]["ensemble"] == b_single
        assert [entry["weight"] for entry in row["workdirs"]] == [0.5, 0.5]
        assert row["ensemble"] == np.mean(both.argmax(1) == label)
        probabilities = special.softmax(both, 1) if average == "logits" else both
        expected = metrics.log_loss(label, probabilities)
        assert row["loss"] == pytest.approx(expected, rel=1e-6)
        assert row["single"] == pytest.approx((a_single + b_single) / 2)
        assert row["gain"] == pytest.approx(row["ensemble"] - row["single"])
        ensembles.append(row["ensemble"])
        singles.append(row["workdirs"][0]["single"])
    summary = found["summary"]
    assert summary["ensemble"]["mean"] == pytest.approx(np.mean(ensembles))
    assert summary["ensemble"]["std"] == pytest.approx(np.std(ensembles))
    assert summary["workdirs"][0]["single"]["std"] == pytest.approx(np.std(singles))
    assert [w["model"] for w in found["workdirs"]] == ["net1", "net2"]
    runs = [entry["runs"] for entry in found["folds"][0]["workdirs"]]
    assert runs == [["fold1-seed0", "fold1-seed1", "fold1-seed2"], ["fold1-seed0"]]


def test_order_of_the_workdirs_changes_nothing(two):
    """Though the clips are aligned to another run then."""
    there, back = ensemble.ensemble(two), ensemble.ensemble(two[::-1])
    for a, b in zip(there["folds"], back["folds"], strict=True):
        assert a["ensemble"] == b["ensemble"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)


def test_mistakes_are_the_clips_that_the_average_takes_for_others(two):
    found = ensemble.ensemble(two)
    wrong = 0
    for row in found["folds"]:
        fold = row["fold"]
        first = np.mean([read(two[0], fold, seed)[0] for seed in (0, 1, 2)], axis=0)
        logits, label = read(two[1], fold, 0)
        said = (first + logits).argmax(1)
        clips = zip(sorted(names(fold)), label, said, strict=True)
        expected = [
            {"filename": name, "true": CLASSES[is_], "said": CLASSES[told]}
            for name, is_, told in clips
            if is_ != told
        ]
        assert row["mistakes"] == expected
        wrong += len(expected)
    assert wrong > 0
    expected = stats.binomtest(60 - wrong, 60).proportion_ci(0.95, method="wilson")
    assert found["interval"] == pytest.approx(list(expected))
    assert f"60 clips: {100 * expected.low:.1f} to" in ensemble.table(found)
    lines = ensemble.mistakes_table(found).splitlines()
    assert lines[0].split() == ["fold", "clip", "is", "taken", "for"]
    assert len(lines) == 1 + wrong
    assert lines[1].split() == ["1", *found["folds"][0]["mistakes"][0].values()]


def test_several_labels_have_no_mistakes_of_one(tmp_path):
    labels = np.eye(3)[[0, 1, 2, 0]] + np.eye(3)[[1, 1, 0, 0]] > 0
    path = write_workdir(tmp_path / "several", 1, folds=(1,), seeds=(0,))
    for file in ("predictions.npz", "validation.npz"):
        held = files.read_arrays(f"{path}/fold1-seed0/{file}")
        few = {name: array[:4] for name, array in held.items()}
        few["label"] = labels.astype(np.float32)
        files.write_arrays(f"{path}/fold1-seed0/{file}", few)
    change_results(path, lambda results: results.update(task="multi_label"))
    found = ensemble.ensemble([path])
    assert found["folds"][0]["mistakes"] == []
    assert found["interval"] is None
    assert "interval" not in ensemble.table(found)


def test_a_table_without_mistakes_says_so():
    assert ensemble.mistakes_table({"folds": [{"mistakes": []}]}) == "no mistakes"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A workdir that a real sweep has left."""
    config = tiny.get_config()
    config.data.data_dir = str(tmp_path_factory.mktemp("data"))
    config.sweep.folds, config.sweep.seeds = (1,), (0, 1)
    workdir = tmp_path_factory.mktemp("swept")
    return workdir, sweep.train(config.lock(), workdir)


def test_one_workdir_gives_the_sweeps_own_ensemble(swept):
    workdir, results = swept
    found = ensemble.ensemble([str(workdir)])
    assert found["classes"] == results["classes"]
    for ours, theirs in zip(found["folds"], results["folds"], strict=True):
        assert ours["ensemble"] == theirs["ensemble"]
        assert ours["single"] == pytest.approx(theirs["single"])
    assert found["workdirs"] == [{"workdir": str(workdir), "model": "tiny"}]


def best_weight(a, b, label, average):
    """The weight of `a` with the least of scikit-learn's losses, by bisection."""

    def loss(weight):
        if average == "logits":
            p = special.softmax(weight * a + (1 - weight) * b, axis=1)
        else:
            p = weight * special.softmax(a, 1) + (1 - weight) * special.softmax(b, 1)
        return metrics.log_loss(label, p)

    return optimize.fminbound(loss, 0, 1, xtol=1e-5)


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("skills", [(1.0, 2.0), (1.5, 1.5), (-2.0, 3.0)])
def test_weights_are_the_best_on_the_validation_clips(tmp_path, average, skills):
    """Also where the best is to leave one out."""
    paths = [
        write_workdir(tmp_path / "a", 3, seeds=(0, 1), skill=skills[0]),
        write_workdir(tmp_path / "b", 4, seeds=(0,), skill=skills[1]),
    ]
    found = ensemble.ensemble(paths, average=average, weights="validation")
    for fold, row in zip((1, 2), found["folds"], strict=True):
        runs = [read(paths[0], fold, seed, "validation.npz") for seed in (0, 1)]
        b, label = read(paths[1], fold, 0, "validation.npz")
        a = np.mean([logits for logits, _ in runs], axis=0)
        if average == "probabilities":
            a = np.log(np.mean([special.softmax(z, 1) for z, _ in runs], axis=0))
        expected = best_weight(a, b, label, average)
        weights = [entry["weight"] for entry in row["workdirs"]]
        assert weights[0] == pytest.approx(expected, abs=1e-4)
        assert sum(weights) == pytest.approx(1, abs=1e-12)
        assert min(weights) >= 0
        if skills[0] < 0:
            assert weights[0] == pytest.approx(0, abs=1e-9)
        test, test_label = read(paths[1], fold, 0)
        if skills[0] < 0:
            assert row["ensemble"] == np.mean(test.argmax(1) == test_label)


def test_weights_of_a_fold_see_only_its_validation_clips(two):
    """Whatever test clips and the other fold's validation clips become."""
    before = ensemble.ensemble(two, weights="validation")["folds"][0]
    change(two[0], fold=2, file="validation.npz", logits=np.negative)
    for fold in (1, 2):
        change(two[0], fold=fold, logits=np.negative)
    after = ensemble.ensemble(two, weights="validation")["folds"][0]
    assert after["loss"] != before["loss"]
    assert [entry["weight"] for entry in after["workdirs"]] == [
        entry["weight"] for entry in before["workdirs"]
    ]


def refused(paths, **options):
    with pytest.raises(InputError) as caught:
        ensemble.ensemble(paths, **options)
    return str(caught.value)


def test_other_classes_are_named(tmp_path, two):
    other = ["dog", "wind", "siren"]
    third = write_workdir(tmp_path / "c", 3, classes=other)
    assert f"{third}: other classes than {two[0]}; it lacks rain and adds wind" in (
        refused([*two, third])
    )


def test_another_order_of_classes_is_named(tmp_path, two):
    third = write_workdir(tmp_path / "c", 3, classes=["dog", "siren", "rain"])
    message = refused([*two, third])
    assert f"{third}: the same classes as {two[0]} in another order" in message
    assert "1 is siren, there rain, 2 is rain, there siren" in message


def test_folds_that_some_lack_are_named_and_can_be_left_out(tmp_path):
    paths = [
        write_workdir(tmp_path / "a", 1, folds=(1, 2, 3)),
        write_workdir(tmp_path / "b", 2, folds=(2, 3, 4)),
    ]
    message = refused(paths)
    assert f"fold 1: only {paths[0]} has" in message
    assert f"fold 4: only {paths[1]} has" in message
    assert "choose with --folds=2,3" in message
    found = ensemble.ensemble(paths, folds=[2, 3])
    assert [row["fold"] for row in found["folds"]] == [2, 3]
    assert "fold 7: no workdir has" in refused(paths, folds=[2, 7])


def test_clips_that_differ_are_named(two):
    change(two[1], filename=lambda n: np.where(n == "1-test-4.wav", "new.wav", n))
    message = refused(two)
    assert f"{two[1]}/fold1-seed0/predictions.npz: other clips than" in message
    assert f"than {two[0]}/fold1-seed0/predictions.npz" in message
    assert "lacks 1-test-4.wav and adds new.wav" in message


def test_only_the_first_ten_clips_are_named(two):
    change(
        two[1],
        filename=lambda n: n[:18],
        label=lambda label: label[:18],
        logits=lambda logits: logits[:18],
    )
    message = refused(two)
    assert ", and 2 more" in message
    assert message.count("1-test-") == 10


def test_labels_that_differ_are_named(two):
    first = files.read_arrays(f"{two[1]}/fold2-seed0/predictions.npz")
    name, was = first["filename"][0], first["label"][0]
    change(two[1], fold=2, label=lambda y: np.where(np.arange(30) == 0, was + 1, y))
    message = refused(two)
    assert f"{two[1]}/fold2-seed0/predictions.npz: other labels" in message
    assert f"{name} is {was + 1}, there {was}" in message


def test_unfinished_runs_are_named(tmp_path, two):
    third = write_workdir(tmp_path / "c", 3, planned=(0, 1, 5))
    message = refused([*two, third])
    assert f"{third}: not finished: fold 1 seed 5, fold 2 seed 5" in message
    assert "fold 1" not in refused([*two, third], folds=[2])


def test_a_workdir_without_a_finished_run_is_named(tmp_path, two):
    third = write_workdir(tmp_path / "c", 3)
    change_results(third, lambda results: results.update(runs=[]))
    assert f"{third}: not finished: fold 1 seed 0" in refused([*two, third])


@pytest.mark.parametrize("again", ["{}", "{}/", "{}/../a"])
def test_the_same_workdir_twice_is_named(two, again):
    message = refused([*two, again.format(two[0])])
    assert "the same workdir twice" in message
    assert two[0] in message


def test_everything_wrong_is_told_at_once(tmp_path, two):
    change(two[1], logits=lambda logits: logits * np.nan)
    change(two[0], fold=2, filename=lambda names: np.full_like(names, names[0]))
    (tmp_path / "a" / "fold1-seed2" / "predictions.npz").write_bytes(b"half")
    (tmp_path / "empty").mkdir()
    message = refused([*two, str(tmp_path / "empty"), str(tmp_path / "a/results.json")])
    lines = message.splitlines()
    assert len(lines) == 6
    for path, what in [
        (f"{two[1]}/fold1-seed0/predictions.npz", "not finite"),
        (f"{two[0]}/fold2-seed0/predictions.npz", "there twice"),
        (f"{two[0]}/fold1-seed2/predictions.npz", "damaged"),
        (f"{tmp_path}/empty", "no results.json"),
        (f"{tmp_path}/a/results.json", "no results.json"),
    ]:
        assert any(path in line and what in line for line in lines), message


@pytest.mark.parametrize("content", ["{", "[]", '{"runs": []}', "\xff"])
def test_results_of_something_else_are_named(tmp_path, two, content):
    (tmp_path / "b" / "results.json").write_text(content, encoding="latin-1")
    told = rf"{two[1]}/results.json( is damaged|: not what a sweep writes)"
    assert re.search(told, refused(two))


def test_missing_predictions_are_named(tmp_path, two):
    (tmp_path / "a" / "fold2-seed1" / "predictions.npz").unlink()
    assert f"{two[0]}: no predictions.npz in fold2-seed1;" in refused(two)


def test_arrays_of_the_wrong_shape_are_named(two):
    change(two[1], logits=lambda logits: logits[:, :2])
    assert "logits (30, 2) and 30 labels where (30, 3)" in refused(two)


def test_weights_need_validation_clips(tmp_path, two):
    third = write_workdir(tmp_path / "c", 3, validation=False)
    message = refused([*two, third], weights="validation")
    assert f"{third}: no validation.npz in fold1-seed0, fold1-seed1, fold2" in message
    assert "config.sweep.validation" in message
    assert two[0] not in message
    ensemble.ensemble([*two, third])  # equal weights need none


def test_validation_clips_must_be_the_same(two):
    change(
        two[1],
        file="validation.npz",
        filename=lambda n: np.where(n == "1-validation-3.wav", "1-train-3.wav", n),
    )
    message = refused(two, weights="validation")
    assert "validation.npz: other clips than" in message
    assert "adds 1-train-3.wav" in message


def test_test_clips_among_the_validation_clips_are_refused(two):
    for path, seeds in zip(two, [(0, 1, 2), (0,)], strict=True):
        for seed in seeds:
            change(
                path,
                seed=seed,
                file="validation.npz",
                filename=lambda n: np.where(
                    n == "1-validation-3.wav", "1-test-3.wav", n
                ),
            )
    message = refused(two, weights="validation")
    assert "fold 1: clips both in" in message
    assert "1-test-3.wav" in message
    ensemble.ensemble(two)


def test_table_holds_workdirs_folds_mean_and_deviation(two):
    found = ensemble.ensemble(two, weights="validation")
    lines = ensemble.table(found).splitlines()
    assert lines[0] == f"1  {two[0]}  (net1)"
    assert len({len(line) for line in lines[2:-1]}) == 1
    fold, a, b = found["folds"][1], *found["folds"][1]["workdirs"]
    assert lines[4].split() == [
        "2",
        f"{100 * a['single']:.2f}%",
        f"{100 * a['ensemble']:.2f}%",
        f"{a['weight']:.3f}",
        f"{100 * b['single']:.2f}%",
        f"{100 * b['ensemble']:.2f}%",
        f"{b['weight']:.3f}",
        f"{100 * fold['single']:.2f}%",
        f"{100 * fold['ensemble']:.2f}%",
        f"{100 * fold['gain']:+.2f}",
    ]
    assert lines[5].split()[0] == "mean"
    assert lines[6].split()[0] == "std"


def run(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "audiojax.ensemble", *arguments],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_command_prints_and_writes_the_scores(tmp_path, two):
    out = tmp_path / "out" / "scores.json"
    status, printed, _ = run(
        *two, "--average=probabilities", "--folds=2", "--mistakes", f"--out={out}"
    )
    assert status == 0
    expected = ensemble.ensemble(two, average="probabilities", folds=[2])
    assert json.loads(out.read_text()) == expected
    tables = f"{ensemble.table(expected)}\n{ensemble.mistakes_table(expected)}\n"
    assert printed == f"{tables}scores  {out}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no workdir given"),
        (["no/such"], "no/such: no results.json"),
        (["no/such", "--folds=one"], "--folds is one; give numbers"),
    ],
)
def test_bad_input_ends_in_a_sentence(arguments, sentence):
    status, printed, err = run(*arguments)
    assert (status, printed) == (1, "")
    assert err.startswith("audiojax: ")
    assert sentence in err
    assert "Traceback" not in err


def test_it_loads_no_heavy_library():
    heavy = ("tensorflow", "torch", "clu", "librosa", "orbax")
    assert processes.loaded(["audiojax.ensemble"], heavy) == []
