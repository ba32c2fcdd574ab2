"""The benchmark vectors: targets written from noise by a run of diffuseq, in more and fewer steps."""

from itertools import product

from rich.console import Console

import tales
from config import SampleConfig, replace
from experiments.benchmarks.benchmark_options import Vectors
from experiments.benchmarks.measuring import clock_of
from inference import load_objective
from runs import Run
from tools import pick_device
from training.pairs import validation_pairs, write_targets
from training.setup import prepare_run


def run(options: Vectors, console: Console) -> bool:
    """Print a row for each number of steps and of candidates. Raises ValueError for a run of another kind."""
    trained, device = Run(options.run), pick_device(options.device)
    cfg = trained.config
    if cfg.train.objective != "diffuseq" or not cfg.data.is_pairs:
        raise ValueError(f"run={options.run} has learned train.objective={cfg.train.objective} on data.name="
                         f"{' '.join(cfg.data.name)}: use a run of diffuseq on pairs")
    setup, objective = prepare_run(cfg, device, run=trained), load_objective(trained, device=device)
    pairs, clock = validation_pairs(setup.val_part, options.texts), clock_of(device.type)
    stories = (cfg.data.val_name or cfg.data.name) == ("tales-opening",)
    console.print("steps  candidates  exact  whole stories  s a text", highlight=False)
    for steps, candidates in product(options.steps, options.candidates):
        vectors = replace(cfg.sample.vectors, steps=steps, candidates=candidates)
        began = clock()
        lines = write_targets(objective, setup.tokenizer, pairs,
                              SampleConfig(max_new_tokens=cfg.row_len, temperature=0.0, vectors=vectors))
        seconds = (clock() - began) / len(lines)
        exact = sum(line["exact"] for line in lines)
        whole = sum(tales.grade(line["source"] + line["text"]).passed for line in lines) if stories else "-"
        console.print(steps, candidates, f"{exact} of {len(lines)}", whole, f"{seconds:.3f}", sep="  ", highlight=False)
    return True
