"""The networks against PyTorch's, by golden files of scripts/make_goldens.py."""

import functools
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from sklearn.datasets import load_sample_image

from audiojax import catalog, models, pretrained
from audiojax.errors import InputError
from audiojax.models import layers
from audiojax.models import network as network_module
from audiojax.models.densenet import DenseNet
from audiojax.models.efficientnet import LiteBlock
from audiojax.models.resnet import ResidualBlock, ResNet
from scripts import convert_weights, make_goldens
from tests.models import checkpoints
from tests.tiny import Tiny

# As published: torchvision's documentation, timm's for EfficientNet-Lite, and for
# Inception-v3 27,161,264 less the 3,326,696 of the auxiliary head.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "inception_v3": 23_834_568,
    "efficientnet_lite0": 4_652_008,
    "efficientnet_lite1": 5_416_680,
    "efficientnet_lite2": 6_092_072,
    "efficientnet_lite3": 8_197_096,
    "efficientnet_lite4": 13_006_568,
}
FAST = ("resnet18", "efficientnet_lite0")

every_network = pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in PARAMETERS
    ],
)


@functools.cache
def golden(name):
    """The network, its variables, the golden checkpoint, and what PyTorch computes."""
    network, variables, values = checkpoints.made(name, 1000)
    with np.load(make_goldens.GOLDEN / f"{name}.npz") as arrays:
        return network, variables, values, dict(arrays)


def error(found, expected):
    """The largest difference as a share of the largest value."""
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_the_published_one(name):
    params = convert_weights.empty(models.create(name, 1000))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[name]


def test_every_network_has_a_count_and_a_record():
    networks = set(models.MODELS) - {"tiny"}
    assert networks == set(PARAMETERS) == set(catalog.RECORDS)


@pytest.mark.parametrize("size", make_goldens.SIZES, ids="{0[0]}x{0[1]}".format)
@every_network
def test_stages_and_logits_are_those_of_pytorch(name, size):
    network, variables, values, expected = golden(name)
    variables = pretrained.fit("golden", values, variables)
    label = "x".join(map(str, size))

    @jax.jit
    def run(variables, image):
        return network.apply(variables, image, train=False, mutable=["stages"])

    logits, collections = run(variables, make_goldens.image(size))
    stages = collections["stages"]["outputs"]
    assert {*stages, "head"} == set(models.stage_paths(network))
    errors = {
        stage: error(make_goldens.entries(output), expected[f"{label}/{stage}"])
        for stage, output in stages.items()
    }
    errors["logits"] = error(logits, expected[f"{label}/logits"])
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize(
    "name",
    [
        x if x == "resnet18" else pytest.param(x, marks=pytest.mark.slow)
        for x in PARAMETERS
    ],
)
def test_a_training_step_is_that_of_pytorch(name):
    network, variables, values, expected = golden(name)
    values = make_goldens.without_kinks(values)
    variables = pretrained.fit("golden", values, variables)
    image = make_goldens.image(make_goldens.TRAIN_SIZE, int(expected["train/seed"]))
    labels = jnp.array(make_goldens.LABELS)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def step(params, batch_stats):
        logits, updated = network.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updated["batch_stats"]

    (loss, batch_stats), gradients = step(variables["params"], variables["batch_stats"])
    found = pretrained.to_published({"params": gradients, "batch_stats": batch_stats})
    statistics = [
        make_goldens.entries(found[name])[:4]
        for name in sorted(found)
        if name.endswith(("running_mean", "running_var"))
    ]
    assert error(loss, expected["train/loss"]) < 1e-5
    np.testing.assert_allclose(
        np.concatenate(statistics), expected["train/batch_stats"], rtol=1e-4, atol=1e-5
    )
    prefix = "train/gradient/"
    observed = [key.removeprefix(prefix) for key in expected if key.startswith(prefix)]
    assert len(observed) == 3
    errors = {
        name: error(make_goldens.entries(found[name]), expected[prefix + name])
        for name in observed
    }
    assert max(errors.values()) < 1e-4, errors


def test_logits_of_photographs_are_those_of_the_package_with_its_weights():
    network = models.create("efficientnet_lite0", 1000)
    empty = convert_weights.empty(network)
    variables = pretrained.load("efficientnet_lite0", empty)
    run = jax.jit(functools.partial(network.apply, train=False))
    with np.load(make_goldens.GOLDEN / "photographs.npz") as expected:
        for name in make_goldens.PHOTOGRAPHS:
            image = make_goldens.photograph(load_sample_image(name))
            logits = run(variables, image)
            assert error(logits, expected[name]) < 1e-4
            assert logits.argmax() == expected[name].argmax()


@pytest.mark.parametrize("name", FAST)
def test_bfloat16_is_near_float32(name):
    network, variables, values, expected = golden(name)
    variables = pretrained.fit("golden", values, variables)
    size = make_goldens.SIZES[1]
    network = network.clone(dtype=jnp.bfloat16)

    @functools.partial(jax.jit, static_argnames="train")
    def run(variables, train):
        image = make_goldens.image(size)
        return network.apply(
            variables, image, train=train, mutable=["batch_stats", "stages"]
        )

    logits, collections = run(variables, train=False)
    stages = collections["stages"]["outputs"].values()
    assert {stage.dtype for stage in stages} == {jnp.dtype(jnp.bfloat16)}
    assert logits.dtype == jnp.float32
    assert error(logits, expected["75x101/logits"]) < 3e-2
    updated = jax.eval_shape(functools.partial(run, train=True), variables)[1]
    kinds = {leaf.dtype for leaf in jax.tree.leaves(updated["batch_stats"])}
    assert kinds == {jnp.dtype(jnp.float32)}


@pytest.fixture
def small():
    """A network of two stages, its variables and images."""
    network = Tiny(num_classes=5)
    image = jax.random.normal(jax.random.key(0), (2, 33, 40, 3))
    return network, network.init(jax.random.key(1), image, train=False), image


@pytest.mark.parametrize("stage", ["conv1", "conv2"])
def test_a_network_in_two_parts_is_the_whole(small, stage):
    network, variables, image = small
    activation = network.apply(variables, image, train=False, until=stage)
    logits = network.apply(variables, activation, train=False, after=stage)
    whole = network.apply(variables, image, train=False)
    np.testing.assert_array_equal(logits, whole)


def test_captured_stages_are_what_running_until_them_gives(small):
    network, variables, image = small
    _, collections = network.apply(variables, image, train=False, mutable=["stages"])
    assert set(collections["stages"]["outputs"]) == {"conv1", "conv2"}
    for stage, output in collections["stages"]["outputs"].items():
        until = network.apply(variables, image, train=False, until=stage)
        np.testing.assert_array_equal(output, until)


def test_a_cut_network_is_its_stages_and_a_head(small):
    network, variables, image = small
    cut = network.clone(cut="conv2")
    own = cut.init(jax.random.key(1), image, train=False)
    assert set(own["params"]) == {"conv1", "bn1", "fc"}
    assert list(models.stage_paths(cut)) == ["conv1", "head"]
    fc = own["params"]["fc"]
    activation = network.apply(variables, image, train=False, until="conv1")
    variables = {
        "params": {**variables["params"], "fc": fc},
        "batch_stats": variables["batch_stats"],
    }
    found = cut.apply(variables, image, train=False)
    expected = activation.mean((1, 2)) @ fc["kernel"] + fc["bias"][None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def flops(run, *arguments):
    """By XLA's own count, of what is not compiled."""
    cost: Any = jax.jit(run).lower(*arguments).cost_analysis()
    return cost["flops"]


@every_network
def test_a_cut_network_costs_what_its_stages_do(name):
    """Its parameters and FLOPs are the sums of a table of stages, each run alone."""
    network = models.create(name, 10)
    image = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    init = functools.partial(network.init, jax.random.key(0), train=False)
    variables = jax.eval_shape(init, image)
    stages, table, before = models.stage_names(network), {}, None
    for stage in stages:
        run = functools.partial(network.apply, train=False, after=before, until=stage)
        own, _ = models.split_params(network, variables["params"], [stage])
        count = sum(leaf.size for leaf in jax.tree.leaves(own))
        table[stage] = count, flops(run, variables, image)
        image, before = jax.eval_shape(run, variables, image), stage
        table[stage] += (image.shape,)
    image = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    whole = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    for number in {1, len(stages) // 2, len(stages) - 1}:
        cut = network.clone(cut=stages[number])
        init = functools.partial(cut.init, jax.random.key(0), train=False)
        variables = jax.eval_shape(init, image)
        found = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        rows = [table[stage] for stage in stages[:number]]
        (_, height, width, channels) = rows[-1][2]
        assert found == sum(row[0] for row in rows) + 10 * channels + 10
        assert found < whole
        head = channels * (height * width + 1) + 2 * 10 * channels + 10
        run = functools.partial(cut.apply, train=False)
        expected = sum(row[1] for row in rows) + head
        assert flops(run, variables, image) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("argument", ["after", "until"])
def test_an_unknown_stage_is_an_error_that_lists_the_stages(small, argument):
    network, variables, image = small
    with pytest.raises(InputError, match="'layer9'; its stages are: conv1, conv2"):
        network.apply(variables, image, train=False, **{argument: "layer9"})


def test_a_cut_at_an_unknown_stage_is_an_error():
    with pytest.raises(InputError, match="'layer9'; its stages are: conv1, layer1, "):
        models.stage_paths(models.create("resnet18", 10, cut="layer9"))
    with pytest.raises(InputError, match="'conv1' has none left; choose one of layer1"):
        models.stage_paths(models.create("resnet18", 10, cut="conv1"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_belongs_to_one_stage(name):
    network = models.create(name, 10)
    params = traverse_util.flatten_dict(convert_weights.empty(network)["params"])
    stages = models.stage_paths(network)
    owners = {
        path: [
            stage
            for stage, prefixes in stages.items()
            if any(f"{'.'.join(path)}.".startswith(f"{p}.") for p in prefixes)
        ]
        for path in params
    }
    assert {path for path, stages in owners.items() if len(stages) != 1} == set()
    assert {stages[0] for stages in owners.values()} == set(stages)


def test_an_unknown_network_is_an_error_that_lists_the_known():
    with pytest.raises(InputError, match=r"unknown model 'resnet19'.*resnet18, "):
        models.create("resnet19", 10)


@pytest.mark.parametrize(
    ("name", "stage", "path", "deviation"),
    [
        ("resnet18", "conv1", "conv1", (2 / (49 * 64)) ** 0.5),
        ("densenet121", "conv0", "features/conv0", (2 / (49 * 3)) ** 0.5),
        # A normal cut at two deviations keeps 0.88 of its deviation.
        ("inception_v3", "Conv2d_2a_3x3", "Conv2d_2a_3x3/conv", 0.088),
        ("efficientnet_lite0", "conv_stem", "conv_stem", (2 / (9 * 32)) ** 0.5),
        ("efficientnet_lite0", "blocks.0", "blocks/0/0/conv_dw", (2 / 9) ** 0.5),
    ],
)
def test_fresh_convolutions_have_the_published_deviation(name, stage, path, deviation):
    network = models.create(name, 10)
    init = jax.jit(functools.partial(network.init, train=False, until=stage))
    params = init(jax.random.key(0), jnp.zeros((1, 75, 75, 3)))["params"]
    kernel = np.asarray(traverse_util.flatten_dict(params, sep="/")[f"{path}/kernel"])
    assert kernel.std() == pytest.approx(deviation, rel=0.1)


def test_dropout_is_before_the_head_and_in_training_alone(small):
    network, variables, image = small
    bias = np.asarray(variables["params"]["fc"]["bias"])

    @jax.vmap
    def without_bias(key):
        logits, _ = Tiny(num_classes=5, dropout=0.5).apply(
            variables,
            image,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return logits - bias[None]

    plain, _ = network.apply(variables, image, train=True, mutable=["batch_stats"])
    found = without_bias(jax.random.split(jax.random.key(0), 300))
    assert np.ptp(found, axis=0).min() > 0
    # The expectation is that without dropout, since the head is linear.
    np.testing.assert_allclose(
        found.mean(axis=0), plain - bias[None], atol=4 * found.std() / 300**0.5
    )
    np.testing.assert_array_equal(
        Tiny(num_classes=5, dropout=0.5).apply(variables, image, train=False),
        network.apply(variables, image, train=False),
    )


@pytest.fixture
def residual():
    """A network of residual blocks, its variables and images of 16 clips."""
    network = ResNet(num_classes=5, depths=(2, 1), bottleneck=False)
    image = jax.random.normal(jax.random.key(0), (16, 16, 20, 3))
    return network, network.init(jax.random.key(1), image, train=False), image


@functools.partial(jax.jit, static_argnums=0)
def train_logits(network, variables, image):
    rngs = {"dropout": jax.random.key(2)}
    return network.apply(
        variables, image, train=True, rngs=rngs, mutable=["batch_stats"]
    )[0]


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(ResidualBlock, features=4, bottleneck=False),
        functools.partial(LiteBlock, features=4, kernel=3, expansion=6),
    ],
)
def test_a_dropped_branch_leaves_the_shortcut_alone(make):
    norm = functools.partial(layers.BatchNorm, train=False)
    block = functools.partial(make, layers.Conv, norm, stride=1)
    # High above zero, where the activation after the sum does nothing.
    image = 100 + jax.random.normal(jax.random.key(0), (16, 5, 5, 4))
    plain = block(drop=functools.partial(layers.DropPath, False, 0.75))
    variables = dict(plain.init(jax.random.key(1), image))
    variables["params"] = jax.tree.map(lambda x: 0.4 * x, variables["params"])
    branch = plain.apply(variables, image) - image
    assert 0.5 < 4 * jnp.abs(branch).max() < 90
    dropping = block(drop=functools.partial(layers.DropPath, True, 0.75))
    found = dropping.apply(variables, image, rngs={"dropout": jax.random.key(2)})
    kept = np.any(found != image, axis=(1, 2, 3))
    assert 0 < kept.sum() < 16
    expected = image + jnp.where(kept[:, None, None, None], 4 * branch, 0)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("devices", [1, 8])
def test_branches_are_dropped_for_every_row_apart(devices):
    drop = layers.DropPath(True, 0.25, "batch")
    ones = jnp.ones((devices, 512 // devices, 3, 2, 2))

    def apply(branch):
        return drop.apply({}, branch, rngs={"dropout": jax.random.key(0)})

    found = np.asarray(jax.pmap(apply, "batch")(ones)).reshape(512, -1)
    np.testing.assert_array_equal(found.min(axis=1), found.max(axis=1))
    alone = layers.DropPath(True, 0.25).apply(
        {}, ones.reshape(512, 3, 2, 2), rngs={"dropout": jax.random.key(0)}
    )
    np.testing.assert_array_equal(found, np.asarray(alone).reshape(512, -1))
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.75], rtol=1e-6)
    # Five standard deviations of a share of 512 draws.
    assert np.mean(found[:, 0] == 0) == pytest.approx(0.25, abs=5 * 0.019)


def test_the_rate_of_dropped_branches_rises_evenly_from_block_to_block():
    drops = network_module.rising_drops(layers.DropPath, 0.2, (2, 4, 3))
    assert [len(stage) for stage in drops] == [2, 4, 3]
    rates = [drop.keywords["rate"] for stage in drops for drop in stage]
    np.testing.assert_allclose(rates, np.linspace(0, 0.2, 9))


def test_stochastic_depth_is_of_training_alone_and_adds_no_variables(residual):
    network, variables, image = residual
    dropping = network.clone(drop_path=0.5)
    created = dropping.init(jax.random.key(1), image, train=False)
    jax.tree.map(np.testing.assert_array_equal, created, variables)
    np.testing.assert_array_equal(
        dropping.apply(variables, image, train=False),
        network.apply(variables, image, train=False),
    )
    plain = train_logits(network, variables, image)
    assert error(train_logits(dropping, variables, image), plain) > 1e-2


def test_stochastic_depth_knows_nothing_of_devices(residual):
    network, variables, image = residual
    dropping = network.clone(drop_path=0.5, axis_name="batch")
    shares = image.reshape(8, 2, *image.shape[1:])
    apply = functools.partial(train_logits, dropping)
    found = jax.pmap(apply, "batch", in_axes=(None, 0))(variables, shares)
    alone = train_logits(network.clone(drop_path=0.5), variables, image)
    assert error(found.reshape(16, 5), alone) < 1e-4


@functools.cache
def compiled_gradients(network):
    """The compiled gradient of a sum of the logits' sines, and what it gives."""
    image = jax.random.normal(jax.random.key(0), (4, 24, 32, 3))
    variables = network.init(jax.random.key(1), image, train=False)

    @functools.partial(jax.grad, has_aux=True)
    def gradients(params, batch_stats, image, key):
        logits, updated = network.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "stages"],
        )
        return jnp.sin(logits).sum(), (logits, updated)

    arguments = *variables.values(), image, jax.random.key(2)
    # The CPU's compiler would merge the two computations of a stage; those of
    # accelerators keep them apart.
    options: Any = {"xla_disable_hlo_passes": "cse_barrier_expander"}
    compiled = jax.jit(gradients).lower(*arguments).compile(compiler_options=options)
    return compiled, compiled(*arguments), variables


DROPPING = {"num_classes": 5, "dropout": 0.5}
SMALL = {
    "resnet": ResNet(**DROPPING, depths=(2, 2), bottleneck=False, drop_path=0.5),
    # Stages that share the first part of their paths.
    "densenet": DenseNet(**DROPPING, depths=(2, 2), growth=4),
}


@pytest.mark.parametrize("name", SMALL)
def test_stages_that_are_computed_again_give_the_same(name):
    """Parameters, draws, gradients, statistics, which move once, and stages."""
    _, expected, variables = compiled_gradients(SMALL[name])
    _, found, created = compiled_gradients(SMALL[name].clone(remat=True))
    jax.tree.map(np.testing.assert_array_equal, created, variables)
    stages = found[1][1]["stages"]["outputs"]
    assert {*stages, "head"} == set(models.stage_paths(SMALL[name]))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5),
        *map(jax.tree.leaves, (found, expected)),
    )


def test_stages_that_are_computed_again_take_less_memory_and_more_products():
    plain, _, _ = compiled_gradients(SMALL["resnet"])
    remat, _, _ = compiled_gradients(SMALL["resnet"].clone(remat=True))
    sizes: Any = [compiled.memory_analysis() for compiled in (plain, remat)]
    assert sizes[1].temp_size_in_bytes < 0.8 * sizes[0].temp_size_in_bytes
    costs: Any = [compiled.cost_analysis() for compiled in (plain, remat)]
    work = [cost["flops"] for cost in costs]
    assert 1.1 < work[1] / work[0] < 1.5


def test_transform_input_needs_colors():
    network = models.create("inception_v3", 10, transform_input=True)
    image = jnp.zeros((1, 75, 75, 1))
    with pytest.raises(InputError, match="3 channels, found 1"):
        jax.eval_shape(
            functools.partial(network.init, train=False), jax.random.key(0), image
        )


def batch_norm(image, **fields) -> tuple[jax.Array, Any]:
    """Output and updated statistics of a fresh BatchNorm in training."""
    norm = layers.BatchNorm(train=True, **fields)
    variables = {
        "params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)},
        "batch_stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)},
    }
    output, updated = norm.apply(variables, image, mutable=["batch_stats"])
    return output, dict(updated["batch_stats"])


def test_batch_norm_moves_towards_the_unbiased_variance():
    image = np.random.default_rng(0).normal(5, 2, (2, 2, 3, 3)).astype(np.float32)
    output, statistics = batch_norm(jnp.asarray(image), momentum=0.75)
    values = image.reshape(-1, 3).astype(np.float64)
    expected = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
    np.testing.assert_allclose(output.reshape(-1, 3), expected, atol=1e-5)
    np.testing.assert_allclose(statistics["mean"], values.mean(0) / 4, rtol=1e-6)
    variance = 0.75 + values.var(0, ddof=1) / 4
    np.testing.assert_allclose(statistics["var"], variance, rtol=1e-6)


def test_batch_norm_keeps_its_digits_where_the_mean_is_large():
    image = np.random.default_rng(0).normal(1000, 1, (4, 8, 8, 3)).astype(np.float32)
    output, _ = batch_norm(jnp.asarray(image))
    values = image.astype(np.float64)
    deviation = values.std((0, 1, 2))
    expected = (values - values.mean((0, 1, 2))) / deviation
    np.testing.assert_allclose(output, expected, atol=1e-3)


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
    devices = 8
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(devices * 2, 3, 3, 3)), jnp.float32)
    one_output, one = batch_norm(image)
    spread = jax.pmap(
        functools.partial(batch_norm, axis_name="batch"), axis_name="batch"
    )
    output, many = spread(image.reshape(devices, 2, 3, 3, 3))
    np.testing.assert_allclose(output.reshape(image.shape), one_output, atol=1e-5)
    for name, expected in one.items():
        for found in many[name]:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_importing_the_networks_loads_neither_tensorflow_nor_torch():
    code = (
        "import sys, audiojax.models, audiojax.pretrained;"
        "print(sorted({'tensorflow', 'torch', 'huggingface_hub'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
