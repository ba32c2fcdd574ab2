"""How long a configuration's steps and evaluations take, in a process of its own: so many make up a trial's time."""

import json
import os
import sys
import time
from pathlib import Path

from config import from_dict, replace
from data import Batches
from footprint.process import choose_allocator
from model import Model
from text.corpora import load_corpus
from text.shards import prepare
from tools import pick_device, seed_everything
from train import choose_tokenizer, fit_vocabulary, settle_precision
from training.evaluation import evaluate
from training.schedules import Schedule
from training.step import Learner

WARM_UP_STEPS = 2
LEAST_SECONDS = 1.0  # of measured steps
EVALUATION_TOKENS = 4096


def main() -> None:
    """`timing.py CONFIG ALLOCATOR RESULT`: write what `measure` finds."""
    config, allocator, result = sys.argv[1:]
    choose_allocator(allocator)
    found = measure(json.loads(Path(config).read_text(encoding="utf-8")))
    unfinished = Path(f"{result}.tmp")
    unfinished.write_text(json.dumps(found), encoding="utf-8")
    os.replace(unfinished, result)


def measure(config: dict) -> dict[str, float]:
    """Seconds of all that comes before the first step, of a step, of an evaluated token; tokens to be evaluated."""
    began = time.perf_counter()
    cfg = from_dict(config)
    corpus = load_corpus(cfg.data)
    tokenizer, device = choose_tokenizer(cfg.tokenizer, cfg.data, corpus), pick_device(cfg.train.device)
    cfg = settle_precision(fit_vocabulary(cfg, tokenizer), device)
    cfg = replace(cfg, train=replace(cfg.train, ramp_tokens=None))
    parts, val_part = prepare(corpus, tokenizer, cfg.data.cache_path, workers=cfg.data.workers)
    seed_everything(cfg.train.seed)
    model = Model(cfg.model, checkpoint_activations=cfg.train.checkpoint_activations,
                  loss_chunk=cfg.train.loss_chunk).to(device)
    learner = Learner(model, cfg.train)
    batches = Batches(parts, batch_size=cfg.train.batch_size, seq_len=cfg.model.max_seq_len, seed=cfg.train.seed,
                      packing=cfg.data.packing)
    passes = Schedule(cfg, rows_per_epoch=batches.rows_per_epoch).passes
    steps, start_seconds = 0, time.perf_counter() - began
    while steps <= WARM_UP_STEPS or time.perf_counter() - began < LEAST_SECONDS:
        if steps == WARM_UP_STEPS:
            began = time.perf_counter()
        taken = [batches[number].to(device) for number in passes(steps)]
        learner.step(taken, number=steps + 1, lr=1e-6, noise=[])
        steps += 1
    step_seconds = (time.perf_counter() - began) / (steps - WARM_UP_STEPS)
    learner.optimizer.eval()
    began = time.perf_counter()
    tokens = min(EVALUATION_TOKENS, val_part.num_tokens)
    with learner.precision:
        evaluate(model, val_part, tokenizer, cfg.train.batch_size, packing=cfg.data.packing, max_tokens=tokens)
    return {"start_seconds": start_seconds, "step_seconds": step_seconds,
            "token_seconds": (time.perf_counter() - began) / tokens, "val_tokens": val_part.num_tokens}
