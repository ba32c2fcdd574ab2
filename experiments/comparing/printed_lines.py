"""Numbers in what programs print while they train: nanoGPT's output and the like."""

import math
import re
from collections.abc import Iterator
from typing import TextIO

import pandas as pd

from run_store.long_tables import require_few

MAX_LINE = 2**20  # characters
MAX_NAME = 100  # characters of a printed name
PIECE_CELLS = 2**18
NUMBER = r"[-+]?(?>\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)"  # atomic: a long one is read once
PRINTED_STEP = re.compile(r"\b(?:step|iter(?:ation)?)[\s:=]*(\d+)(?:/\d+)?[\s:|,]+(.*)", re.IGNORECASE)
PRINTED_VALUE = re.compile(rf"[\s:=]({NUMBER})(?![\d.])", re.IGNORECASE)
NAME = re.compile(r"[^\W\d][\w/. ]*+$")
BARE_LINE = re.compile(rf"(\d+) (\w+ {NUMBER})", re.IGNORECASE)  # "250 val 3.2811"


def printed_pieces(text: TextIO) -> Iterator[pd.DataFrame]:
    """The numbers in lines such as "step 250: train loss 2.01, val loss 2.13", some lines at a time."""
    rows, names = [], {"step": None}
    for line in filter(None, map(str.strip, short_lines(text))):
        said = PRINTED_STEP.search(line) or BARE_LINE.fullmatch(line)
        if said and (values := dict(printed_values(said[2]))):
            rows.append({"step": float(said[1])} | values)
            names |= values
            require_few(names)
        if len(rows) * len(names) > PIECE_CELLS:
            yield pd.DataFrame(rows, columns=[*names])
            rows.clear()
    if rows:
        yield pd.DataFrame(rows, columns=[*names])


def short_lines(text: TextIO) -> Iterator[str]:
    """The lines of a text up to MAX_LINE characters; no log has longer ones."""
    begins = True
    while line := text.readline(MAX_LINE):
        ends = line.endswith("\n") or len(line) < MAX_LINE
        if begins and ends:
            yield line
        begins = ends


def printed_values(line: str) -> Iterator[tuple[str, float]]:
    """The names and numbers in a line; a name is what stands before a number, back to a comma or the like."""
    end = 0
    for found in PRINTED_VALUE.finditer(line):
        before = line[max(end, found.start() - MAX_NAME):found.start()].rstrip(" \t:=")
        end = found.end()
        if name := NAME.search(before):
            yield name[0], float(found[1]) if math.isfinite(float(found[1])) else math.nan
