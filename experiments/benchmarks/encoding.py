"""The benchmark encode: how fast a text is encoded compared with the bare library, and in how much memory."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np
import psutil
import sentencepiece
from rich.console import Console
from rich.table import Table

import tales
from config import DataConfig
from corpora.corpus import load_corpus
from corpora.encoder import grouped
from corpora.shards import prepare
from experiments.benchmarks.benchmark_options import Encode
from experiments.benchmarks.measuring import start
from tokenizer import load_tokenizer

SEPARATOR = "\n\n"
MEMORY_LIMIT = 500  # MB, over all processes
BEST = {"tokens": max, "seconds": min, "cpu": min, "peak": max}  # of several repetitions
POLL_SECONDS = 0.05


def run(options: Encode, console: Console) -> bool:
    """Print two rows for each number of workers; whether the memory stays within the limit."""
    table = Table("", "at once", "tokens/s", "ours / library", "tokens/CPU s", "ours / library", "peak MB")
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        number = write_stories(text, options.megabytes * 10**6)
        console.print(f"{number:,} stories, {text.stat().st_size / 1e6:.0f} MB")
        for workers in dict.fromkeys(options.workers):
            runs = [[measure(way, text, options.tokenizer, workers) for way in ("bare", "ours")]
                    for _ in range(options.repetitions)]
            bare, ours = (best(side) for side in zip(*runs, strict=True))
            peaks.append(ours["peak"])
            table.add_row("library", str(workers), *cells(bare, {}))
            table.add_row("ours", str(workers), *cells(ours, bare))
    console.print(table)
    return max(peaks) < MEMORY_LIMIT


def cells(result: dict[str, float], library: dict[str, float]) -> list[str]:
    """A row: tokens per unit of each time, compared with the library's unless that is empty; memory."""
    speeds = [(f"{result['tokens'] / result[unit]:,.0f}", f"{library[unit] / result[unit]:.2f}" if library else "")
              for unit in ("seconds", "cpu")]
    return [*chain.from_iterable(speeds), f"{result['peak']:.0f}"]


def best(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: choose(run[name] for run in runs) for name, choose in BEST.items()}


def write_stories(path: Path, num_bytes: int) -> int:
    """Fill a file with stories up to this size, and return their number."""
    with path.open("w", encoding="utf-8") as file:
        for number, story in enumerate(tales.stories(0), 1):
            file.write(story.text + SEPARATOR)
            if file.tell() >= num_bytes:
                return number


def measure(way: str, text: Path, tokenizer: str, workers: int) -> dict[str, float]:
    """Run one way in a process of its own, and record the largest memory of it and its own processes."""
    process, peak = start("encoding", way, str(text), tokenizer, str(workers)), 0
    while process.poll() is None:
        peak = max(peak, held_bytes(process.pid))
        time.sleep(POLL_SECONDS)
    said, _ = process.communicate()
    if process.returncode:
        raise ValueError(f"tokenizer={tokenizer}: encoding failed, see above")
    return json.loads(said) | {"peak": peak / 1e6}


def held_bytes(pid: int) -> int:
    """The memory of a process and of those that it started, with a share of what they have in common."""
    held = 0
    with suppress(psutil.NoSuchProcess):
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                held += process.memory_full_info().pss
    return held


# ---- in the process of its own ----


def clocks() -> np.ndarray:
    """Seconds and CPU seconds until now, those of ended child processes included."""
    return np.array([time.perf_counter(), time.process_time() + sum(os.times()[2:4])])


def encode_ours(text: str, tokenizer: str, workers: int) -> dict[str, float]:
    """Tokens, seconds and CPU seconds from the path of a text to its encoded files."""
    with tempfile.TemporaryDirectory() as cache:
        began = clocks()
        corpus = load_corpus(DataConfig(name=text, separator=SEPARATOR, cache_dir=cache))
        [(train, _)], val = prepare(corpus, load_tokenizer(tokenizer), Path(cache), workers=workers)
        seconds, cpu = (clocks() - began).tolist()
        num_tokens = train.num_tokens + val.num_tokens - 2 * (train.num_documents + val.num_documents)
    return {"tokens": num_tokens, "seconds": seconds, "cpu": cpu}


def encode_bare(text: str, tokenizer: str, workers: int) -> dict[str, float]:
    """Tokens, seconds and CPU seconds inside the library alone, on a group of documents for each thread."""
    library = sentencepiece.SentencePieceProcessor(model_proto=load_tokenizer(tokenizer).model)
    num_tokens, spent = 0, np.zeros(2)
    with tempfile.TemporaryDirectory() as cache:
        corpus = load_corpus(DataConfig(name=text, separator=SEPARATOR, cache_dir=cache))
        groups = grouped(corpus.chunks())
        while texts := [chunk.text for chunk in chain.from_iterable(islice(groups, workers))]:
            began = clocks()
            ids = library.encode(texts, num_threads=workers)
            spent += clocks() - began
            num_tokens += sum(map(len, ids))
    return {"tokens": num_tokens} | dict(zip(("seconds", "cpu"), spent.tolist(), strict=True))


if __name__ == "__main__":
    way, text, tokenizer, workers = sys.argv[1:]
    print(json.dumps({"ours": encode_ours, "bare": encode_bare}[way](text, tokenizer, int(workers))))
