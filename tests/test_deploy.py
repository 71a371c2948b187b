"""What lies in docs/deploy, run as its user would."""

import contextlib
import functools
import http.server
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from audiojax import files, task
from audiojax.classifier import Classifier
from audiojax.clips import MODES, ClipPolicy
from audiojax.export import Trained, onnx_bytes
from audiojax.features import LogMel
from audiojax.inference import Member
from audiojax.predictor import Predictor
from tests.tiny import Tiny

ort = pytest.importorskip("onnxruntime", reason="needs the extra `export`")

RATE = 8000
LABELS = ("low tone", "high tone", "noise", "glass, öl")
# As on a machine that has onnxruntime and NumPy alone.
ALONE = """
import runpy, sys

class Missing:
    def find_spec(name, *_):
        if name.split(".")[0] in {"audiojax", "jax", "soundfile", "soxr", "scipy"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def classifier(mode, of):
    log_mel = LogMel(RATE, 400, (25.0,) * 3, (10.0,) * 3, 32, 32)
    policy = ClipPolicy(mode, RATE, num_windows=4)
    return Classifier(Tiny(4), log_mel, LABELS, policy, None, task.TASKS[of])


@pytest.fixture(scope="module", params=["pad", "repeat", "stretch"])
def model(request, tmp_path_factory):
    """An exported model, and what gives the probabilities of rows in JAX."""
    return of_rows(request.param, tmp_path_factory.mktemp("model") / "model.onnx")


def make_model(mode, path, of="multi_label"):
    """Exports a classifier; gives it and its variables."""
    made = classifier(mode, of)
    variables = made.init(jax.random.key(0))
    image = made.image(jnp.asarray(sound(1)[None], jnp.float32))
    head = variables["params"]["fc"]
    # As sure of itself as a trained one.
    head["kernel"] *= 3 / jnp.abs(made.logits(variables, image)).max()
    told = {
        "labels": list(LABELS),
        "task": of,
        "sample_rate": RATE,
        "samples": RATE,
        "clip_mode": mode,
        "num_windows": 4,
    }
    path.write_bytes(onnx_bytes(Trained(made, [variables], told)))
    return made, variables


def of_rows(mode, path):
    """An exported model: its file, mode, and what gives probabilities in JAX."""
    made, variables = make_model(mode, path)

    def probabilities(rows, lengths):
        length = lengths if mode == "stretch" else None
        image = made.image(jnp.asarray(rows, jnp.float32), length)
        return made.task.probabilities(np.asarray(made.logits(variables, image)))

    return path, mode, probabilities


def as_evaluated(mode, of, path):
    """The model, and the probabilities [classes] that evaluation makes of a sound."""
    made, variables = make_model(mode, path, of)
    member = Member(made, [variables], LABELS)
    opened = Predictor([member], {"made": ["by hand"]})
    return lambda samples: opened.probabilities([(samples, RATE)])[0]


@pytest.fixture(scope="module")
def script(repo_root):
    """The script as a module."""
    place = repo_root / "docs" / "deploy" / "classify.py"
    spec = importlib.util.spec_from_file_location("classify", place)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("of", task.TASKS)
@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_told_as_evaluation_does(script, tmp_path, mode, of):
    """Shorter than a row, as long, and covered by fewer and by more than 4 windows."""
    evaluated = as_evaluated(mode, of, tmp_path / "m.onnx")
    model = script.Model(str(tmp_path / "m.onnx"))
    for seconds in (0.3, 1, 1.4, 2.7, 9.2):
        samples = sound(seconds)
        whole, starts, rows = model(samples, RATE)
        np.testing.assert_allclose(whole, evaluated(samples), atol=1e-4)
        assert len(starts) == len(rows)
        if mode == "crop" and seconds > 9:
            assert np.abs(whole - rows.mean(axis=0)).max() > 1e-3


def test_mean_logits_of_what_is_sure(script):
    logits = np.array([[30.0, -40, 2], [-10, 5, 1]])
    shares = special.softmax(logits, axis=1).astype(np.float32)
    found = script.mean_of_logits(shares, "single_label")
    np.testing.assert_allclose(found, special.softmax(logits.mean(axis=0)), rtol=1e-5)
    logits = np.array([[12.0, -40, 2], [-10, -5, 1]])
    shares = special.expit(logits).astype(np.float32)
    found = script.mean_of_logits(shares, "multi_label")
    expected = special.expit(logits.mean(axis=0))
    np.testing.assert_allclose(found, expected, atol=2e-2)


def sound(seconds, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 300 * time * (1 + time / max(seconds, 1)))


def write(path, samples, rate=RATE, width=2, channels=1):
    """A WAV file; gives the samples as they are in it."""
    scale = 2 ** (8 * width - 1)
    whole = np.round(samples * (scale - 1)).astype(np.int64)
    stored = whole + 128 if width == 1 else whole
    content = stored.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(np.repeat(content, channels, axis=0).tobytes())
    return whole / scale


def classify(repo_root, *arguments, status=0):
    script = repo_root / "docs" / "deploy" / "classify.py"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def told(line):
    """Labels and probabilities of a line."""
    pairs = re.findall(r"([^:]+?) (\d\.\d{3})(?:  |$)", line.split(": ", 1)[1])
    return {name.strip(): float(value) for name, value in pairs}


def expect(line, probabilities):
    found = told(line)
    assert list(found) == [LABELS[i] for i in np.argsort(-probabilities)]
    for name, value in found.items():
        assert value == pytest.approx(probabilities[LABELS.index(name)], abs=6e-4)


def test_a_second_and_less(repo_root, model, tmp_path):
    path, mode, probabilities = model
    whole = write(tmp_path / "1.wav", sound(1))
    part = write(tmp_path / "2.wav", sound(0.6), channels=2)
    out, _ = classify(
        repo_root, path, tmp_path / "1.wav", tmp_path / "2.wav", "--top=4"
    )
    filled = np.resize(part, RATE) if mode == "repeat" else np.zeros(RATE)
    filled[: len(part)] = part
    rows, lengths = np.stack([whole, filled]), np.array([RATE, len(part)])
    lines = out.splitlines()
    assert len(lines) == 2
    for line, expected in zip(lines, probabilities(rows, lengths), strict=True):
        expect(line, expected)


@pytest.mark.parametrize("width", [1, 3, 4])
def test_a_minute_in_windows(repo_root, tmp_path, width):
    path, _, probabilities = of_rows("pad", tmp_path / "m.onnx")
    samples = write(tmp_path / "m.wav", sound(59.8), width=width)
    out, _ = classify(repo_root, path, tmp_path / "m.wav", "--top=4")
    starts = [*range(0, len(samples) - RATE, RATE // 2), len(samples) - RATE]
    rows = np.stack([samples[start : start + RATE] for start in starts])
    expected = probabilities(rows, np.full(len(rows), RATE))
    first, *lines = out.splitlines()
    expect(first, expected[0])
    assert len(lines) == len(starts) == 119
    for line, start, row in zip(lines, starts, expected, strict=True):
        assert line.startswith(f"  {start / RATE:.2f}-{start / RATE + 1:.2f} s: ")
        expect(line, row)


def test_other_rates(script):
    """A tone below half of both rates stays; one above is cut off."""
    for rate, new in ((44100, 8000), (8000, 22050), (48000, 44100)):
        tone, expected = (
            np.sin(2 * np.pi * 1000 * np.arange(count) / at) * np.hanning(count)
            for at, count in ((rate, rate * 3 // 2), (new, new * 3 // 2))
        )
        found = script.resample(tone, rate, new)
        np.testing.assert_allclose(found, expected, atol=2e-3)
    high = np.sin(2 * np.pi * 10000 * np.arange(44100) / 44100) * np.hanning(44100)
    assert np.abs(script.resample(high, 44100, 8000)).max() < 1e-3


def test_a_bad_file_does_not_stop_the_others(repo_root, tmp_path):
    path, *_ = of_rows("pad", tmp_path / "m.onnx")
    (tmp_path / "text.wav").write_text("no sound")
    write(tmp_path / "empty.wav", np.zeros(0))
    write(tmp_path / "good.wav", sound(1))
    names = [tmp_path / f"{name}.wav" for name in ("no", "text", "empty", "good")]
    out, err = classify(repo_root, path, *names, status=1)
    assert out.startswith(f"{tmp_path}/good.wav: ")
    assert err.count("can't be read: ") == len(err.splitlines()) == 3


@pytest.fixture(scope="module")
def site(repo_root, tmp_path_factory):
    """The page with all that lies beside it, served on loopback; and the model."""
    folder = tmp_path_factory.mktemp("site")
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm to fetch onnxruntime-web with")
    version = re.search(
        r"onnxruntime-web@([\d.]+)", (repo_root / "docs" / "export.md").read_text()
    )
    assert version
    kept = repo_root / ".pytest_cache" / f"ort-{version[1]}"
    names = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs")
    names += ("ort-wasm-simd-threaded.wasm",)
    if not kept.exists():
        asked = [npm, "pack", "--silent", f"onnxruntime-web@{version[1]}"]
        done = subprocess.run(asked, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm can't fetch onnxruntime-web: {done.stderr[-200:]}")
        packed = folder / done.stdout.strip()
        shutil.unpack_archive(packed, folder, "gztar", filter="data")
        with files.whole(kept) as part:
            part.mkdir()
            for name in names:
                shutil.copy(folder / "package" / "dist" / name, part / name)
    (folder / "site").mkdir()
    shutil.copytree(kept, folder / "site" / "ort")
    shutil.copy(repo_root / "docs" / "deploy" / "index.html", folder / "site")
    model = folder / "site" / "model.onnx"
    evaluated = as_evaluated("crop", "multi_label", model)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    serve = functools.partial(Handler, directory=str(folder / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", model, evaluated
        server.shutdown()


@contextlib.contextmanager
def browser():
    """A page of headless Chromium with a made microphone."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    args = [
        *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    ]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=args)
        yield chromium.new_context(permissions=["microphone"]).new_page()
        chromium.close()


@pytest.mark.slow
def test_the_page(site, tmp_path):
    address, model, evaluated = site
    samples = write(tmp_path / "sound.wav", sound(1.7))
    said, asked = [], []
    with browser() as page:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        status = page.locator("#status")
        page.locator("#status", has_text="Ready: 4 classes.").wait_for(timeout=90000)
        page.set_input_files("#file", tmp_path / "sound.wav")
        page.locator("#status", has_text="Done.").wait_for(timeout=90000)
        rows = page.locator("table").first.locator("tr").all_inner_texts()
        parts = page.locator("table").nth(1).locator("tr").all_inner_texts()
        (tmp_path / "text.wav").write_text("no sound")
        page.set_input_files("#file", tmp_path / "text.wav")
        page.locator("#status", has_text="did not work").wait_for(timeout=30000)
        page.locator("#record", has_text="Record 1.0 seconds").click()
        page.locator("#status", has_text="Done.").wait_for(timeout=90000)
        assert status.inner_text() == "Done."
    starts = [0, RATE // 2, len(samples) - RATE]
    windows = np.stack([samples[start : start + RATE] for start in starts])
    windows = windows.astype(np.float32)
    whole = evaluated(samples)
    assert len(rows) == 4
    for row, i in zip(rows, np.argsort(-whole), strict=True):
        name, *_, value = row.split("\t")
        assert name == LABELS[i]
        assert float(value) == pytest.approx(whole[i], abs=6e-4)
    expected = ort.InferenceSession(model).run(None, {"audio": windows})[0]
    assert [row.split(" s: ")[0] for row in parts] == ["0.0", "0.5", "0.7"]
    for row, of_row in zip(parts, expected, strict=True):
        assert float(row.split("\t")[-1]) == pytest.approx(of_row.max(), abs=6e-4)
    assert said == []
    # Data and blobs are of the page itself.
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)


def test_the_page_names_no_other_address(repo_root):
    text = (repo_root / "docs" / "deploy" / "index.html").read_text()
    assert "//" not in re.sub(r"^\s*//.*$|/\*\*", "", text, flags=re.MULTILINE)
