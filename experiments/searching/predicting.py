"""The process that predicts how much memory a configuration needs, whether it fits, and what would make it fit.

    experiments.searching.predicting:main FUNCTION QUESTIONS ANSWERS    JSON lines in two named pipes
    {"id": 3, "config": {...}, "limit_bytes": 2e9, "shrink": true}
    -> {"id": 3, "low_bytes", "high_bytes", "allocator", "shrunk", "steps", "parameters", "seconds",
        "baseline_bytes"}
    -> {"id": 3, "invalid": "a sentence"}       if the flags contradict each other

low and high are totals of the training process with its baseline, or on a GPU of what it takes there; the allocator is
null if neither fits. FUNCTION is memory.predict, or a test's substitute. A text is read and encoded when it is first
asked about, so no trial has to.
"""

import importlib
import json
import os
import sys
import time
from typing import Any

import torch

from config import Config, from_dict, override
from memory_prediction.baseline import baseline_bytes
from memory_prediction.process import choose_allocator, file_bytes
from memory_prediction.suggestions import Room
from model import Model
from tools import pick_device
from training.setup import Settler


def main() -> None:
    function, questions, answers = sys.argv[1:]
    module, _, name = function.partition(":")
    predictor = Predictor(getattr(importlib.import_module(module), name))
    with open(questions, encoding="utf-8") as lines, open(answers, "w", buffering=1, encoding="utf-8") as said:
        for line in lines:
            request = json.loads(line)
            began = time.perf_counter()
            try:
                found = predictor.answer(**{name: value for name, value in request.items() if name != "id"})
            except (ValueError, OSError) as error:
                found = {"invalid": str(error)}
            print(json.dumps({"id": request["id"], "seconds": time.perf_counter() - began} | found), file=said)


def unread_bytes() -> int:
    """Pages of libraries that the process of which this is a fork has read and this one has not: a trial may."""
    return max(0, (file_bytes(os.getppid()) or 0) - (file_bytes() or 0))


class Predictor:
    """Answers requests; a text is encoded once."""

    def __init__(self, predict):
        self._predict, self._settled = predict, Settler()
        choose_allocator("tight")
        idle = baseline_bytes()
        self._baseline = idle and idle + unread_bytes()

    def answer(self, config: dict[str, Any], limit_bytes: int = 0, shrink: bool = False) -> dict[str, Any]:
        """The answer to a request. Raises ValueError if the flags contradict each other."""
        cfg, shrunk = self._settled(from_dict(config)), {}
        device = pick_device(cfg.train.device).type
        baseline = 0 if device == "cuda" else self._baseline  # what the process holds is not on the GPU
        room = Room(limit_bytes, baseline)
        predicted = self._predict(cfg, device=device)
        while shrink and room.allocator_for(predicted) is None and (smaller := smaller_step(cfg)):
            shrunk |= smaller
            cfg = override(cfg, smaller)
            predicted = self._predict(cfg, device=device)
        with torch.device("meta"):
            parameters = Model(cfg.model).num_parameters()
        return {"low_bytes": baseline + predicted.low_bytes, "high_bytes": baseline + predicted.high_bytes,
                "allocator": room.allocator_for(predicted), "shrunk": shrunk, "steps": cfg.train.steps,
                "parameters": parameters, "baseline_bytes": baseline}


def smaller_step(cfg: Config) -> dict[str, Any]:
    """The next change that saves memory for the same mathematics; {} = there is none."""
    if cfg.train.batch_size % 2 == 0:
        return {"train.batch_size": cfg.train.batch_size // 2, "train.accumulation": cfg.train.accumulation * 2}
    return {} if cfg.train.checkpoint_activations else {"train.checkpoint_activations": True}
