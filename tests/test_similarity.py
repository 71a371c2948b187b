import numpy as np
import pytest
from scipy import linalg, stats

from audiojax import similarity
from audiojax.errors import InputError


def features(count=400, dimensions=8, seed=0):
    """Correlated features of unlike scales, with a mean."""
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, dimensions)) @ random.normal(
        size=(dimensions,) * 2
    )
    return mixed + 3 * random.normal(size=dimensions)


def related(x, noise=1.0, dimensions=6, seed=1):
    """Features of the same examples that share something with x."""
    random = np.random.default_rng(seed)
    shared = x @ random.normal(size=(x.shape[1], dimensions)) / x.shape[1] ** 0.5
    return shared + noise * random.normal(size=shared.shape)


def biased_cka(x, y):
    return similarity.cka(x, y, debiased=False)


ALL = [similarity.cka, biased_cka, similarity.svcca, similarity.cca]
every_measure = pytest.mark.parametrize("measure", ALL)


@every_measure
def test_the_same_features_are_alike_by_1(measure):
    assert measure(features(), features()) == pytest.approx(1, abs=1e-9)


@every_measure
def test_no_measure_sees_a_rotation_a_scale_or_a_shift(measure):
    x = features()
    y = related(x)
    rotation = stats.ortho_group.rvs(8, random_state=0)
    assert measure(x, 2.5 * x @ rotation + 7) == pytest.approx(1, abs=1e-9)
    expected = measure(x, y)
    assert 0.2 < expected < 0.98
    assert measure(2.5 * x @ rotation + 7, y) == pytest.approx(expected, abs=1e-9)
    assert measure(y, x) == pytest.approx(expected, abs=1e-9)


def test_cca_sees_no_affine_map_and_cka_does():
    x = features()
    y = related(x)
    scales = np.diag(np.geomspace(1, 100, 8))
    assert similarity.cca(x @ scales, y) == pytest.approx(similarity.cca(x, y))
    for measure in (similarity.cka, biased_cka):
        assert abs(measure(x @ scales, y) - measure(x, y)) > 0.05


def test_svcca_sees_no_affine_map_of_the_directions_it_keeps():
    random = np.random.default_rng(0)
    # White features hold 99 % of their variance in no fewer than all eight directions.
    x = random.normal(size=(4000, 8))
    y = related(x)
    mixing = stats.ortho_group.rvs(8, random_state=0) @ np.diag(np.geomspace(1, 2, 8))
    assert similarity.svcca(x @ mixing, y) == pytest.approx(similarity.svcca(x, y))


def test_svcca_leaves_out_directions_of_little_variance_and_cca_counts_them():
    random = np.random.default_rng(0)
    shared = random.normal(size=(5000, 4))
    x, y = (np.hstack([shared, 0.01 * random.normal(size=(5000, 4))]) for _ in range(2))
    assert similarity.svcca(x, y) == pytest.approx(1, abs=1e-3)
    assert similarity.cca(x, y) == pytest.approx(0.5, abs=0.02)


@every_measure
def test_independent_features_are_alike_by_almost_0(measure):
    found = measure(features(50_000, 8, seed=2), features(50_000, 6, seed=3))
    assert abs(found) < 0.02


@pytest.mark.parametrize("count", [30, 100])
def test_debiased_cka_is_near_0_also_with_fewer_examples_than_dimensions(count):
    random = np.random.default_rng(0)
    pairs = [random.normal(size=(2, count, 300)) for _ in range(20)]
    found = [similarity.cka(x, y) for x, y in pairs]
    assert abs(np.mean(found)) < 0.01
    x, y = pairs[0]
    x, y = x - x.mean(0), y - y.mean(0)
    paper = np.sum((x.T @ y) ** 2) / linalg.norm(x.T @ x) / linalg.norm(y.T @ y)
    assert paper > 0.7


def centered(gram):
    """HSIC's centering by its definition, H K H."""
    center = np.eye(len(gram)) - 1 / len(gram)
    return center @ gram @ center


def test_cka_is_that_of_gram_matrices():
    x = features()
    y = related(x)
    gram_x, gram_y = centered(x @ x.T), centered(y @ y.T)
    hsic = np.sum(gram_x * gram_y)
    expected = hsic / linalg.norm(gram_x) / linalg.norm(gram_y)
    assert biased_cka(x, y) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", [25, 400])
def test_debiased_cka_is_that_of_the_unbiased_hsic(count):
    """As Song et al. 2012 give it, term by term."""
    x = features(count, 30)
    y = related(x, 0.3, 50)

    def hsic(x, y):
        k, l = x @ x.T, y @ y.T  # noqa: E741
        np.fill_diagonal(k, 0)
        np.fill_diagonal(l, 0)
        n, one = len(x), np.ones(len(x))
        middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        found = np.trace(k @ l) + middle - 2 / (n - 2) * one @ k @ l @ one
        return found / (n * (n - 3))

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert similarity.cka(x, y) == pytest.approx(expected, abs=1e-4)


def test_cka_is_what_the_papers_code_prints():
    """Demo.ipynb of google-research/representation_similarity, its own example."""
    random = np.random.RandomState(1337)
    x = random.randn(100, 10)
    y = random.randn(100, 10) + x
    assert biased_cka(x, y) == pytest.approx(0.55761, abs=5e-6)
    assert similarity.cka(x, y) == pytest.approx(0.51346, abs=5e-6)


def test_canonical_correlations_are_cosines_between_the_spans():
    x = features()
    y = related(x)
    angles = linalg.subspace_angles(x - x.mean(axis=0), y - y.mean(axis=0))
    moments = similarity.Moments()
    moments.add(x, y)
    expected = np.sort(np.cos(angles))[::-1]
    np.testing.assert_allclose(moments.correlations(), expected, atol=1e-8)
    assert similarity.cca(x, y) == pytest.approx(expected.mean(), abs=1e-8)


def test_svcca_is_cca_of_the_main_directions():
    random = np.random.default_rng(0)
    x = features(2000, 20) @ np.diag(np.geomspace(1, 1e-3, 20))
    y = related(x, 0.05, 12)

    def main(x):
        left, values, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        share = np.cumsum(values**2) / np.sum(values**2)
        return left[:, : np.searchsorted(share, 0.99) + 1]

    main_x, main_y = main(x), main(y)
    assert main_x.shape[1] < 15
    expected = np.linalg.svd(main_x.T @ main_y, compute_uv=False).mean()
    assert similarity.svcca(x, y) == pytest.approx(expected, abs=1e-4)
    order = random.permutation(2000)
    assert similarity.svcca(x[order], y[order]) == pytest.approx(expected, abs=1e-4)


def test_channels_that_are_always_0_change_nothing():
    x = features()
    y = related(x)
    dead = np.hstack([x, np.zeros((400, 5))])
    for measure in ALL:
        assert measure(dead, y) == pytest.approx(measure(x, y))


def test_examples_that_come_in_parts_are_those_that_come_at_once():
    # The mean is a million times the spread.
    x = features() + 1e6
    y = related(features())
    moments = similarity.Moments()
    for start, stop in ((0, 1), (1, 150), (150, 400)):
        moments.add(x[start:stop], y[start:stop])
    expected = np.cos(linalg.subspace_angles(x - x.mean(0), y - y.mean(0)))
    np.testing.assert_allclose(
        np.sort(moments.correlations()), np.sort(expected), atol=1e-6
    )
    assert moments.count == 400


@pytest.mark.parametrize("measure", [similarity.cca, similarity.svcca, biased_cka])
def test_too_few_examples_are_refused_with_what_to_do(measure):
    least = 5 * 8
    assert measure(features(least), features(least, seed=1)) <= 1
    message = (
        "39 examples are too few for 8 dimensions, expected at least 40: give more"
    )
    with pytest.raises(InputError, match=message):
        measure(features(39), features(39, 3, seed=1))


def test_no_examples_are_too_few():
    with pytest.raises(InputError, match="0 examples are too few"):
        similarity.Moments().correlations()


def test_cka_of_noise_alone_is_refused():
    random = np.random.default_rng(2)
    x = np.repeat(random.normal(size=(2, 5)), 2, axis=0)
    x[1:3] = x[2:0:-1]
    with pytest.raises(InputError, match="3 examples; expected at least 4"):
        similarity.cka(x[:3], x[:3])
    # Four corners of a square are as far from each other as chance puts them.
    corners = np.eye(4)
    with pytest.raises(InputError, match="4 examples are too few to tell features of"):
        similarity.cka(corners, corners)


@every_measure
def test_features_that_cannot_be_compared_are_refused(measure):
    x = features()
    with pytest.raises(InputError, match="give features of the same clips to both"):
        measure(x, x[:-1])
    with pytest.raises(InputError, match=r"shapes \(400,\)"):
        measure(x[:, 0], x)
    with pytest.raises(InputError, match="the same for all examples"):
        measure(x, np.full((400, 8), 0.1))
    bad = x.copy()
    bad[3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        measure(bad, x)


def test_the_change_of_weights_is_a_share_of_their_norm():
    before = {"conv": {"kernel": np.array([[3.0, 0.0]])}, "bias": np.array([4.0])}
    after = {"conv": {"kernel": np.array([[3.0, 2.0]])}, "bias": np.array([2.5])}
    assert similarity.relative_change(before, after) == pytest.approx(2.5 / 5)
    assert similarity.relative_change(before, before) == 0
    random = np.random.default_rng(0).normal(size=(2, 10_000))
    assert similarity.relative_change(*random) == pytest.approx(2**0.5, rel=0.02)
    with pytest.raises(InputError, match="all weights before are 0"):
        similarity.relative_change(np.zeros(3), np.ones(3))
