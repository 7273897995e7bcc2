"""Shell entry: ``python -m trainers.shapes prompts | pretrain WHAT | evaluate FOLDER``."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

WHAT = ("vae", "clip", "flow", "diffusion")


def build_parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.shapes", description="The embedded world of shapes."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    prompts = commands.add_parser("prompts", help="write the training and held-out prompt files")
    prompts.add_argument("--out", type=Path, default=Path("assets/prompts"))

    pretrain = commands.add_parser("pretrain", help="train one of the tiny models from scratch, or resume")
    pretrain.add_argument("what", choices=WHAT)
    pretrain.add_argument("--out", type=Path, required=True, help="run folder; the result is its model/")
    pretrain.add_argument("--steps", type=int, help="optimizer steps at most")
    pretrain.add_argument("--seconds", type=float, help="training time at most; the learning rate follows")
    pretrain.add_argument("--threads", type=int, help="torch threads")
    pretrain.add_argument("--device", default="cpu")
    pretrain.add_argument("--batch", type=int)
    pretrain.add_argument("--lr", type=float)
    pretrain.add_argument("--seed", type=int, default=0)
    pretrain.add_argument("--every", type=float, help="seconds between snapshots and checkpoints")
    pretrain.add_argument("--pool", type=int, help="pictures encoded once (flow, diffusion)")
    pretrain.add_argument("--vae", type=Path, help="autoencoder folder (flow, diffusion)")
    pretrain.add_argument("--start", type=Path, help="finished model to go on from (clip, flow, diffusion)")
    pretrain.add_argument("--check", type=int, help="held-out prompts on which a snapshot is judged")

    evaluate = commands.add_parser("evaluate", help="accuracy of a pipeline folder, overall and per category")
    evaluate.add_argument("folder", type=Path)
    evaluate.add_argument("--prompts", type=Path, default=Path("assets/prompts/shapes-heldout.txt"))
    evaluate.add_argument("--guidance", type=float, nargs="*", help="guidance scales to try")
    evaluate.add_argument("--steps", type=int, nargs="*", help="step counts to try")
    evaluate.add_argument("--seeds", type=int, default=2, help="pictures per prompt")
    evaluate.add_argument("--category", nargs="*", help="only these categories")
    evaluate.add_argument("--threads", type=int)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one command."""
    options = build_parser().parse_args(arguments)
    {"prompts": _prompts, "pretrain": _pretrain, "evaluate": _evaluate}[options.command](options)


def _prompts(options: argparse.Namespace) -> None:
    from trainers.shapes.prompts import write_prompts

    for path in write_prompts(options.out):
        print(path)


def _pretrain(options: argparse.Namespace) -> None:
    import torch

    from trainers.shapes.training import Settings

    module = importlib.import_module(f"trainers.shapes.pretrain_{options.what}")
    given = {key: value for key, value in vars(options).items() if value is not None}
    settings = Settings(
        **{**module.DEFAULTS, **{k: v for k, v in given.items() if k not in ("command", "what")}}
    )
    torch.set_num_threads(settings.threads)
    module.pretrain(settings)


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from trainers.prompts import load_prompts
    from trainers.shapes.evaluate import accuracy, load_call
    from trainers.shapes.grammar import parse

    if options.threads:
        torch.set_num_threads(options.threads)
    prompts = load_prompts(str(options.prompts))
    if options.category:
        prompts = [prompt for prompt in prompts if parse(prompt).category in options.category]
    call = load_call(options.folder)["call"]
    for guidance in options.guidance or [call["guidance_scale"]]:
        for steps in options.steps or [call["num_inference_steps"]]:
            override = {"guidance_scale": guidance, "num_inference_steps": steps}
            numbers = accuracy(options.folder, prompts, options.seeds, **override).numbers
            rounded = {key: round(value, 3) for key, value in numbers.items()}
            print(json.dumps({"guidance": guidance, "steps": steps, **rounded}), flush=True)


if __name__ == "__main__":
    main()
