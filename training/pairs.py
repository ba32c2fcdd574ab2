"""Targets that a model writes after the sources of validation pairs, compared with the right ones."""

import json

import numpy as np

from config import SampleConfig
from corpora.shards import JoinedTokenFile, TokenFile
from model import Model
from objective import Objective, as_objective
from run_store.atomic_files import write_text
from runs import Run
from tokenizer import Tokenizer

SHOWN, MAX_SHOWN = 3, 80  # wrong targets that are printed, and characters of each text


def validation_pairs(part: TokenFile | JoinedTokenFile, count: int) -> list[tuple[list[int], list[int]]]:
    """The ids of up to `count` pairs, spread evenly: `[bos] source [eos]` and `target [eos]`."""
    count = min(count, part.num_documents)
    numbers = np.arange(count) * part.num_documents // count
    ends = np.append(part.document_starts, part.num_tokens)[numbers + 1]
    places = zip(part.document_starts[numbers], part.target_starts[numbers], ends, strict=True)
    return [(part.tokens[start:target].tolist(), part.tokens[target:end].tolist()) for start, target, end in places]


def write_targets(
    model: Objective | Model, tokenizer: Tokenizer, pairs: list[tuple[list[int], list[int]]], cfg: SampleConfig,
) -> list[dict[str, str | bool]]:
    """Write a target after each source, and compare: the text and its end have to be right."""
    written = as_objective(model).generate([source for source, _ in pairs], cfg, eos_id=tokenizer.eos_id,
                                           num_ids=tokenizer.vocab_size)
    lines = []
    for (source, target), new in zip(pairs, written, strict=True):
        right, text = tokenizer.decode(target), tokenizer.decode(new)
        lines.append({"exact": text == right and new[-1:] == [tokenizer.eos_id], "source": tokenizer.decode(source),
                      "target": right, "text": text})
    return lines


def grade_pairs(
    run: Run, model: Objective | Model, tokenizer: Tokenizer, part: TokenFile | JoinedTokenFile,
) -> tuple[str, list[str]]:
    """Write the targets of validation pairs greedily; say how many are exactly right. Also gives the pairs as texts.

    pairs.json gets every source, its target, the text that was written and whether it is exactly the target.
    """
    pairs = validation_pairs(part, run.config.train.graded_stories)
    longest = max(len(target) for _, target in pairs)
    own = run.config.sample
    cfg = SampleConfig(max_new_tokens=min(run.config.row_len, 2 * longest), temperature=0.0, denoise=own.denoise,
                       vectors=own.vectors)
    lines = write_targets(model, tokenizer, pairs, cfg)
    write_text(run.path / "pairs.json", json.dumps(lines, indent=1) + "\n")
    wrong = [line for line in lines if not line["exact"]]
    summary = f"{len(lines) - len(wrong)} of {len(lines)} targets are exactly right"
    if wrong:
        shown = (f"  {line['text'][:MAX_SHOWN]!r}, not {line['target'][:MAX_SHOWN]!r}" for line in wrong[:SHOWN])
        summary = "\n".join([f"{summary}; of the others, for example:", *shown])
    return summary, [line["source"] + line["text"] for line in lines]
