"""The benchmark of mixers by the length of a text: every word of the menu has a row in each table of its page."""

import re
from typing import get_args

import pytest
import torch
from rich.console import Console

import config
from configuration.acting import WHOLE_TEXT
from configuration.recurrent import RECURRENT
from experiments.benchmarks import length
from experiments.benchmarks.benchmark_options import Length


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The page of all mixers on very short texts."""
    path = tmp_path_factory.mktemp("docs") / "length.md"
    options = Length(lengths=(4, 12), cached=(5, 9), tokens=24, dim=24, rounds=1, page=str(path))
    threads = torch.get_num_threads()
    assert length.run(options, Console(quiet=True)) and torch.get_num_threads() == threads
    return path.read_text()


def test_every_mixer_has_a_row_in_each_table_and_the_base_is_one(text):
    words = set(get_args(config.Mixer)) - {"none"}
    tables = text.split("\n## ")[1:]
    rows = [{*re.findall(r"^\| `(.+)` ", table, re.M)} for table in tables]
    assert rows == [words | {length.TORCH}] * 5 + [words]
    assert "| `attention` | 1.00 | 1.00 |" in tables[1] and "| `torch's attention` | 1.00 | 1.00 |" in tables[2]
    assert "benchmark.py length --lengths 4 12 --cached 5 9 --tokens 24 --dim 24 --rounds 1" in text


def test_states_take_the_same_after_more_tokens_and_keys_take_more(text):
    sizes = {word: (float(few), float(many)) for word, few, many in re.findall(
        r"^\| `(\w+)` .* \| ([\d.,]+) \| ([\d.,]+) \|$", text.split("\n## ")[-1], re.M)}
    growing = {"cema", *WHOLE_TEXT}  # up to its chunk
    assert all((few < many) == (word in growing) for word, (few, many) in sizes.items() if word in RECURRENT)
    assert sizes["attention"] == (1.0, 1.8)  # keys and values of 24 numbers, and a position, of 5 and of 9 tokens


def test_what_is_kept_for_the_backward_pass_is_what_is_alive_after_the_forward_pass():
    part, x = length.Part("attention", 24, 8), torch.randn(2, 8, 24, requires_grad=True)
    part.call = lambda mixer, x, *others: (x.exp().exp() + 1, None)
    assert part.kept(x) == 3 * x.nbytes  # both exponentials, and the result


def test_the_yardstick_is_causal_attention():
    part, x = length.TorchAttention(24), torch.randn(2, 8, 24)
    q, k, v = part.mixer[0](x).unflatten(2, (3, 4, 6)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT * 6 ** -0.5).masked_fill(torch.ones(8, 8).triu(1).bool(), -torch.inf).softmax(-1)
    torch.testing.assert_close(part(x), part.mixer[1]((weights @ v).transpose(1, 2).flatten(2)))


def test_a_word_that_is_no_mixer_is_refused():
    assert length.chosen(["gla", "attention"]) == ["attention", "gla"]
    with pytest.raises(ValueError, match="mixers=none is not a mixer: use some of "):
        length.chosen(["none"])
