"""The benchmark tokens-to-loss: what its table says of a recipe, and when it fails."""

import io

import pytest
from rich.console import Console
from small_runs import write_text_file

from config import Config, override
from experiments.benchmarks import tokens_to_loss
from experiments.benchmarks.benchmark_options import TokensToLoss
from model import Model
from presets import load_preset, tiny

VOCABULARY = 65  # characters of tinyshakespeare


def made(preset: str) -> Model:
    return Model(override(load_preset(preset).model, {"vocab_size": VOCABULARY}))


def test_tables_are_what_a_token_reads_a_row_of():
    tied, plain = made("nanogpt-char"), made("char")
    norms = 4 * (2 * 128 + 2 * 32) + 128
    assert tokens_to_loss.count(plain) == (4 * 12 * 128**2 + norms + VOCABULARY * 128, VOCABULARY * 128)
    positions = 64 * 128  # a table, unlike the shared matrix, by which the head multiplies
    assert tokens_to_loss.count(tied) == (4 * (12 * 128**2 + 2 * 128) + 128 + VOCABULARY * 128, positions)


def test_the_recipe_for_few_tokens_multiplies_by_at_most_a_twentieth_more_weights():
    (soon, tables), (plain, same) = (tokens_to_loss.count(made(preset)) for preset in ("char-soon", "char"))
    assert plain < soon <= 1.05 * plain and tables == same


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Recipes at a tiny size, whose text is cached in the test's folder; the flags of a benchmark of two."""
    changes = {"model.vocab_size": None, "data.cache_dir": str(tmp_path / "cache")}

    def load(preset: str) -> Config:
        return override(tiny(load_preset(preset)), changes)

    monkeypatch.setattr(tokens_to_loss, "load_preset", load)
    return {"data": str(write_text_file(tmp_path / "text.txt")), "presets": ("char", "char-soon"), "seeds": 2,
            "evaluations": 2, "device": "cpu", "budget": 4 * tokens_of_a_step(load("char"))}


def tokens_of_a_step(cfg: Config) -> int:
    return cfg.train.batch_size * cfg.row_len


def rows(flags: dict) -> tuple[bool, list[list[str]]]:
    """Whether the benchmark passes, and the cells of its table."""
    console = Console(file=io.StringIO(), width=120)
    reached = tokens_to_loss.run(TokensToLoss(**flags), console)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("│")]
    return reached, [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_a_row_says_when_a_seed_reached_the_target(small):
    reached, table = rows(small | {"target": 100.0})
    assert reached and [(row[0], row[3]) for row in table] == [
        ("char", "0"), ("char", "1"), ("char-soon", "0"), ("char-soon", "1")]
    assert all(2 * int(row[4].replace(",", "")) == int(row[6].replace(",", "")) == small["budget"] for row in table)
    assert len({row[5] for row in table}) == 4  # each has a loss of its own


def test_it_fails_if_a_recipe_does_not_reach_the_target(small):
    reached, table = rows(small | {"target": 0.01, "presets": ("char",), "seeds": 1})
    assert not reached and table[0][4] == "not reached"
