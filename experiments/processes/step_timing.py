"""How long a step of a configuration takes, measured in a process of its own."""

import json
import sys
import time
from pathlib import Path

from config import Config, load_config, replace
from corpora.corpus import load_corpus
from corpora.shards import prepare
from data import Batches
from memory_prediction.process import choose_allocator
from model import Model
from optimizing.schedules import Schedule
from run_store.atomic_files import write_text
from tools import pick_device, seed_everything
from train import choose_tokenizer, fit_vocabulary, settle_precision
from training.step import Learner

WARM_UP_STEPS = 2
LEAST_SECONDS = 1.0  # of measured steps


def main() -> None:
    """Write {"step_seconds": ...}: `step_timing:main CONFIG ALLOCATOR RESULT`."""
    config, allocator, result = sys.argv[1:]
    choose_allocator(allocator)
    write_text(Path(result), json.dumps({"step_seconds": step_seconds(load_config(Path(config)))}))


def step_seconds(cfg: Config) -> float:
    """Seconds of a training step at the full batch, without the first steps."""
    corpus = load_corpus(cfg.data)
    tokenizer, device = choose_tokenizer(cfg.tokenizer, cfg.data, corpus), pick_device(cfg.train.device)
    cfg = settle_precision(fit_vocabulary(cfg, tokenizer), device)
    cfg = replace(cfg, train=replace(cfg.train, ramp_tokens=None))
    parts, _ = prepare(corpus, tokenizer, cfg.data.cache_path, workers=cfg.data.workers)
    seed_everything(cfg.train.seed)
    model = Model(cfg.model, checkpoint_activations=cfg.train.checkpoint_activations,
                  loss_chunk=cfg.train.loss_chunk).to(device)
    learner = Learner(model, cfg.train)
    batches = Batches(parts, batch_size=cfg.train.batch_size, seq_len=cfg.model.max_seq_len, seed=cfg.train.seed,
                      packing=cfg.data.packing)
    passes = Schedule(cfg, rows_per_epoch=batches.rows_per_epoch).passes
    steps, began = 0, 0.0
    while steps <= WARM_UP_STEPS or time.perf_counter() - began < LEAST_SECONDS:
        if steps == WARM_UP_STEPS:
            began = time.perf_counter()
        taken = [batches[number].to(device) for number in passes(steps)]
        learner.step(taken, number=steps + 1, lr=1e-6, noise=[])  # waits for its loss, on a GPU too
        steps += 1
    return (time.perf_counter() - began) / (steps - WARM_UP_STEPS)
