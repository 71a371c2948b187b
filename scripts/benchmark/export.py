"""Size and speed of exported models."""

import argparse
from functools import partial

import jax

from audiojax import models, task, to_onnx
from audiojax.classifier import Classifier
from audiojax.clips import ClipPolicy
from audiojax.export import made_sounds, read_onnx
from audiojax.features import PRESETS
from audiojax.files import size_text
from audiojax.to_stablehlo import mean_logits
from scripts.benchmark.common import environment, take_turns


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the subject's command line options."""
    parser.add_argument("--models", default="efficientnet_lite0,resnet50,densenet201")
    parser.add_argument("--preset", choices=PRESETS, default="esc50")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--seconds", type=int, default=5, help="length of a clip")
    parser.add_argument("--repeats", type=int, default=7)


def run(args: argparse.Namespace) -> None:
    """Clips per second from waveform to class: onnxruntime and JAX, and file sizes."""
    log_mel = PRESETS[args.preset]
    policy = ClipPolicy("pad", args.seconds * log_mel.sample_rate)
    classes = tuple(map(str, range(50)))
    print(environment("jax", "onnxruntime"))
    print(f"clips of {args.seconds} s, {log_mel.sample_rate} Hz, float32")
    print("\n| | file | batch | onnxruntime, clips/s | JAX, clips/s | times JAX's |")
    print("|---|---|---|---|---|---|")
    for name in args.models.split(","):
        network = models.create(name, len(classes))
        kind = task.TASKS["single_label"]
        classifier = Classifier(network, log_mel, classes, policy, None, kind)
        members = [classifier.init(jax.random.key(0))]
        content = to_onnx.model(classifier, members, {}).SerializeToString()
        session = read_onnx(content)
        compiled = jax.jit(partial(mean_logits, classifier))

        def ours(audio, compiled=compiled, members=members):
            return compiled(members, audio).block_until_ready()

        for batch in map(int, args.batches.split(",")):
            inputs = made_sounds(classifier, batch)
            audio = jax.device_put(inputs["audio"])
            contenders = {
                "onnxruntime": partial(session, inputs),
                "jax": partial(ours, audio),
            }
            seconds = take_turns(contenders, args.repeats)
            onnxruntime, in_jax = (batch / seconds[kind] for kind in contenders)
            print(
                f"| {name} | {size_text(len(content))} | {batch} | {onnxruntime:.1f} "
                f"| {in_jax:.1f} | {onnxruntime / in_jax:.2f} |",
                flush=True,
            )
