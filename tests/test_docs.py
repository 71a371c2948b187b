"""Every command and code block of the documents, run as it stands.

Shell is run by bash in a folder that stands for the checkout, Python in a process.
Each line is what the reader sees, but what takes long has a stand-in: data sets are
small folders of noise under the names that the documents use, and `python -m` of this
project runs `tests.stand_ins`, with tiny networks and a schedule of one epoch. A block
that needs what the tests have not says so in the line before it, and is not run.
Installing and `make` are not started from within themselves: that their targets and
extras exist is checked, and `make demo` runs once. Most of it is slow: a new block is
tested in `make test-all`, unless FAST names it.
"""

import dataclasses
import functools
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib

import pytest
from flax import traverse_util

from configs import common
from tests import mixed_tree, sound_tree, stand_ins
from tests.conftest import REPO_ROOT
from tests.datasets.layouts import test_gtzan, test_urbansound8k

DOCUMENTS = [REPO_ROOT / "README.md", *sorted((REPO_ROOT / "docs").glob("*.md"))]
CONFIGS = sorted(
    {path.stem for path in (REPO_ROOT / "configs").glob("*.py")}
    - {"__init__", "common"}
)
LANGUAGES = {"", "text", "python", "dockerfile"}
FAST = {
    "README.md, Two commands, 1",
    "README.md, Train on ESC-50, 1",
}
# What compiles fast and runs slowly serves, for there is little to run.
QUICK = "--xla_backend_optimization_level=0"
# As written by `python -m audiojax.main` and others; `python -c` is left as it is.
PYTHON = """\
#!/bin/sh
if [ "$1" = -m ]; then shift; exec {python} -m tests.stand_ins "$@"; fi
exec {python} "$@"
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of a document.

    Attributes:
        id: document, heading, and its number under the heading.
        text: without indentation or fence.
        language: of its fence; "" is shell, as is what is indented.
        needs: what the line before it says that it needs.
    """

    id: str
    text: str
    language: str
    needs: str | None


PART = re.compile(
    r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$"
    r"|(?<=\n\n)(?P<indented>(?:    [^\n]*\n|\n(?=    ))+)"
    r"|^#+ (?P<heading>[^\n]+)$",
    re.MULTILINE | re.DOTALL,
)
NEEDS = re.compile(r"\(Not run by the tests: needs (.+)\.\)\n\n$")


def parse(path):
    """The blocks of a document: fenced, or indented by four after an empty line."""
    text, heading, number = path.read_text(), "", 0
    for part in PART.finditer(text):
        if part["heading"]:
            heading, number = part["heading"], 0
            continue
        number += 1
        needs = NEEDS.search(text[: part.start()])
        yield Block(
            f"{path.name}, {heading}, {number}",
            part["fenced"] or textwrap.dedent(part["indented"]),
            part["language"] or "",
            needs and needs[1],
        )


BLOCKS = [block for path in DOCUMENTS for block in parse(path)]
SHELL = [block for block in BLOCKS if block.language == ""]


def setup(text):
    """Whether all that a block does is to install or to call make."""
    lines = [line for line in text.splitlines() if line]
    return all(line.startswith(("pip install ", "make ")) for line in lines)


def parameters(blocks):
    return [
        pytest.param(
            block, id=block.id, marks=[] if block.id in FAST else pytest.mark.slow
        )
        for block in blocks
        if block.needs is None
    ]


def write_urbansound8k(folder):
    rows = test_urbansound8k.make_rows()
    for seed, row in enumerate(rows):
        place = f"fold{row['fold']}/{row['slice_file_name']}"
        mixed_tree.write(folder / "audio" / place, seed)
    test_urbansound8k.write_csv(folder, rows)


def write_own(folder):
    """Class folders, which `metadata.csv` lists too."""
    names = mixed_tree.make(folder)
    rows = ["filename,label", *(f"{name},{name.split('/')[0]}" for name in names)]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def write_esc50(folder):
    sound_tree.make_tree(folder, folds=range(1, 6))


def write_sound(path, seconds=0.7):
    mixed_tree.write(path, seconds=seconds)


DATA = {
    "a.wav": write_sound,
    "long.wav": functools.partial(write_sound, seconds=7.0),
    "recordings": mixed_tree.make,
    "ESC-50-master": write_esc50,
    "ESC10_DIR": write_esc50,
    "../shared/esc10": write_esc50,
    "UrbanSound8K": write_urbansound8k,
    "GTZAN": test_gtzan.make_tree,
    "DIR": write_own,
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "weights"
    stand_ins.write_weights(folder)
    return folder


@pytest.fixture
def checkout(tmp_path):
    """A folder with what the repository holds, and nothing that runs have left."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for path in REPO_ROOT.iterdir():
        if not path.name.startswith(".") and path.name != "runs":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory, weights):
    """What the demo leaves, with the small stand-ins."""
    folder = tmp_path_factory.mktemp("demo")
    options = ["--config=configs/demo.py", f"--workdir={folder}/runs"]
    subprocess.run(
        [sys.executable, "-m", "tests.stand_ins", "audiojax.main", *options],
        cwd=REPO_ROOT,
        env=os.environ
        | {
            "XLA_FLAGS": QUICK,
            "AUDIOJAX_WEIGHTS": str(weights),
            "AUDIOJAX_DATA_DIR": str(folder / "prepared"),
            "JAX_COMPILATION_CACHE_DIR": str(REPO_ROOT / ".pytest_cache" / "xla"),
        },
        capture_output=True,
        check=True,
    )
    return folder / "runs"


@pytest.fixture
def run(request, checkout, weights):
    """Runs shell in the checkout to its end; gives what it printed."""
    programs = checkout.parent / "bin"
    programs.mkdir()
    (programs / "python").write_text(PYTHON.format(python=shlex.quote(sys.executable)))
    (programs / "python").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "XLA_FLAGS": QUICK,
        "AUDIOJAX_WEIGHTS": str(weights),
        "AUDIOJAX_DATA_DIR": str(checkout.parent / "prepared"),
        "JAX_COMPILATION_CACHE_DIR": str(REPO_ROOT / ".pytest_cache" / "xla"),
    }

    def run(text, source=None):
        """Runs shell, with what its source names there; itself, if none is given."""
        source = text if source is None else source
        for name, write in DATA.items():
            if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", source):
                write(checkout / name)
        # Of a block that trains it itself, that is a part.
        if "runs/demo" in source and "audiojax.main" not in source:
            made = request.getfixturevalue("demo")
            shutil.copytree(made, checkout / "runs" / "demo")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    return run


def test_every_line_of_code_is_in_a_block():
    for path in DOCUMENTS:
        text = path.read_text()
        blocks = [block for block in BLOCKS if block.id.startswith(path.name)]
        fences = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        outside = text
        for fence in fences:
            outside = outside.replace(fence, "")
        indented = re.findall(r"^    .*\S", outside, re.MULTILINE)
        lines = [line for block in blocks for line in block.text.splitlines() if line]
        fenced = [line for fence in fences for line in fence.splitlines() if line]
        assert len(lines) == len(indented) + len(fenced)
    assert {block.language for block in BLOCKS} == LANGUAGES
    assert {block.id for block in BLOCKS} >= FAST
    # What no test runs is text, or has its need said.
    assert all(b.needs for b in BLOCKS if b.language not in {"", "python", "text"})


def test_a_need_stands_right_before_its_block():
    said = sum(path.read_text().count("(Not run by the tests") for path in DOCUMENTS)
    assert said == sum(block.needs is not None for block in BLOCKS) > 0


def trainings(text):
    """How many times a block calls the training command, its loops counted out."""
    innermost = re.compile(
        r"\bfor \w+ in ([^;]*); do\n((?:(?!\bfor \w+ in ).)*?)\n *done\b", re.DOTALL
    )
    text, loops = text.replace("\\\n", " "), 1
    while loops:
        text, loops = innermost.subn(lambda f: f[2] * len(f[1].split()), text)
    return text.count("-m audiojax.main ")


@pytest.mark.parametrize("block", parameters(b for b in SHELL if not setup(b.text)))
def test_commands_run(run, block):
    out = run(block.text)
    assert out.count("/results.json\n") == trainings(block.text)
    assert out.strip()


@pytest.mark.parametrize("block", parameters(b for b in SHELL if setup(b.text)))
def test_what_is_installed_or_made_exists(block):
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=REPO_ROOT, check=True)
        else:
            assert re.fullmatch(r"pip install -e \.(\[[\w,]+\])?", " ".join(words))


@pytest.mark.parametrize(
    "block", parameters(b for b in BLOCKS if b.language == "python")
)
def test_python_runs(run, checkout, block):
    (checkout / "example.py").write_text(block.text)
    out = run("python -m example", source=block.text)
    assert re.search(r"'mean': [01]\.\d|^\(1, \d+\)$", out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_the_command_of_a_config_runs(run, name):
    text = importlib.import_module(f"configs.{name}").__doc__ or ""
    command = re.search(r"^python -m (.*\\\n)*.*$", text, re.MULTILINE)
    assert command
    results = "transfer" if name.startswith("study_") else "results"
    given = re.search(r"--workdir (\S+)", command[0])
    workdir = given[1] if given else f"runs/{name}"
    assert f"{workdir}/{results}.json" in run(command[0])


@pytest.mark.slow
def test_make_demo(checkout):
    """The whole of it, networks and schedule as they are."""
    made = REPO_ROOT / ".venv"
    target = f"{made}/{sys.version_info[0]}.{sys.version_info[1]}/ready"
    (checkout / ".venv").symlink_to(made)
    ready = os.path.relpath(target, REPO_ROOT)
    environment = os.environ | {"XLA_FLAGS": "", "PYTHON": sys.executable}
    make = ["make", f"PYTHON={sys.executable}"]
    if subprocess.run([*make, "-q", ready], cwd=checkout).returncode:
        pytest.skip("needs the environment that `make test-all` makes first")
    done = subprocess.run(
        [*make, "demo"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    mean = re.search(r"^ *mean .*?(\d+\.\d+)", done.stdout, re.MULTILINE)
    assert mean
    assert float(mean[1]) > 60  # chance is 10
    names = ("results.json", "confusion.png", "report.html", "fold1-seed0/checkpoints")
    for name in names:
        assert (checkout / "runs" / "demo" / name).exists()


@pytest.mark.parametrize("block", [pytest.param(b, id=b.id) for b in SHELL if b.needs])
def test_what_is_not_run_is_shell_at_least(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_names_are_those_of_the_project(path):
    """Also in prose, and where a block needs what is not here."""
    text = path.read_text()
    config = common.get_config().to_dict() | {"study": common.study().to_dict()}
    fields = {".".join(field) for field in traverse_util.flatten_dict(config)}
    named = set(re.findall(r"\bconfig\.([a-z_]+(?:\.[a-z_]+)*)", text))
    assert named - fields - {"json", "py"} == set()  # config.json, config.py
    for name in re.findall(r"\b(?:configs|audiojax|scripts|tests)/[\w/]+\.\w+", text):
        assert (REPO_ROOT / name).exists(), name
    for module in re.findall(r"python -m ((?:audiojax|scripts|tests)[\w.]*)", text):
        place = REPO_ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists()
    with (REPO_ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for names in re.findall(r"(?:\.|audiojax)\[([\w,]+)\]", text):
        assert set(names.split(",")) <= extras.keys()


def test_the_layout_names_what_there_is():
    (layout,) = (b.text for b in BLOCKS if b.id == "README.md, Layout, 1")
    folder = ""
    for line in layout.splitlines():
        if not line.startswith(" "):
            folder = line.split()[0]
        names = re.findall(r"(\w+\.py|(?<![\w/])\w+/)", line)
        for name in names:
            places = (REPO_ROOT / name, REPO_ROOT / folder / name)
            inside = (REPO_ROOT / "audiojax").rglob(name.rstrip("/"))
            assert any(place.exists() for place in places) or any(inside), name
