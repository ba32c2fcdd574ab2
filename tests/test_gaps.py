"""The gap between two lines: how sure it is, and how many tokens it is worth."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from config import Config
from experiments.common.intervals import holm, welch
from experiments.comparing.gaps import bootstrap, gaps, tokens_saved
from experiments.comparing.lines import Line
from experiments.comparing.measures import HeldOut, Measures
from experiments.comparing.sources import CurveSource
from tokenizer import ByteTokenizer, CharTokenizer

TEXT = HeldOut(tuple("x" * (100 + number) for number in range(40)), "made")
DATA = {"fingerprint": "f", "val_tokens_per_byte": 1.0, "floor_bits_per_byte": None, "train_bytes": 9,
        "train_tokens": 3}
TOKENS = np.arange(1, 11) * 1000.0


def log(name: str, losses, tokens=TOKENS) -> CurveSource:
    table = pd.DataFrame({"step": np.arange(len(losses)) + 1, "tokens": tokens[: len(losses)], "val_loss": losses})
    return CurveSource(name, table, None, Path(name))


def line(name: str, *curves) -> Line:
    members = tuple(log(f"{name}-{seed}", curve) for seed, curve in enumerate(curves))
    return Line(name, members, members[0].table, None, None)


def falling(end: float) -> np.ndarray:
    """A straight line from end + 9 to end."""
    return np.linspace(end + 9, end, 10)


def measures(nats) -> Measures:
    return Measures(1, 10, {1: 0.5, 5: 0.6}, tuple(nats))


# ---- over seeds ----


def test_several_seeds_are_told_apart_by_welchs_test_corrected_for_the_number_of_lines():
    ends = {"base": [2.0, 2.1, 2.05], "better": [1.5, 1.52, 1.6], "same": [2.02, 2.11, 2.0]}
    found = gaps([line(name, *map(falling, values)) for name, values in ends.items()], {}, None)
    expected = [welch(ends[name], ends["base"]) for name in ("better", "same")]
    corrected = holm([difference.p for difference in expected])
    assert corrected[0] != expected[0].p
    for gap, difference, p in zip(found, expected, corrected, strict=True):
        assert gap.difference[:3] == pytest.approx(difference[:3])
        assert gap.difference.p == pytest.approx(p)
    assert [gap.is_sure for gap in found] == [True, False]
    low, high = -expected[0].high, -expected[0].low
    assert str(found[0]).startswith(
        f"better is better than base by {-expected[0].mean:.4f} nats per token (95 % interval {low:.4f} to {high:.4f}, "
        f"Welch's test over 3 and 3 seeds, p = {corrected[0]:.2g} corrected for 2 comparisons); better saves ")
    assert str(found[1]).startswith("same lies below base by ") and str(found[1]).endswith(": inside the noise.")


def test_seeds_of_the_same_configuration_are_rarely_called_different():
    random = np.random.default_rng(0)
    pairs = [[line(name, *map(falling, random.normal(2, 0.05, 3))) for name in ("a", "b")] for _ in range(100)]
    sure = sum(gaps(pair, {}, None)[0].is_sure for pair in pairs)
    assert sure <= 0.05 * 100 + 3 * math.sqrt(100 * 0.05 * 0.95)


# ---- over one text ----


def test_with_one_seed_each_the_same_text_tells_and_what_it_cannot_tell_is_said():
    random = np.random.default_rng(0)
    base, better = line("base", falling(2.0)), line("better", falling(1.8))
    nats = random.uniform(50, 150, 40)
    measured = {base.members[0]: measures(nats), better.members[0]: measures(nats - random.uniform(1, 2, 40))}
    (gap,) = gaps([base, better], measured, TEXT)
    assert gap.is_sure and math.isnan(gap.difference.p) and gap.column == "bits_per_byte"
    bits = {source: sum(one.block_nats) / math.log(2) / TEXT.num_bytes for source, one in measured.items()}
    assert gap.difference.mean == pytest.approx(bits[better.members[0]] - bits[base.members[0]])
    assert gap.difference.low < gap.difference.mean < gap.difference.high < 0
    assert "over 40 stretches of the same text; how much another seed would change is not known" in str(gap)


def test_a_gap_that_other_stretches_of_text_could_turn_is_noise():
    random = np.random.default_rng(0)
    base, other = line("base", falling(2.0)), line("other", falling(2.0))
    nats = random.uniform(50, 150, 40)
    measured = {base.members[0]: measures(nats), other.members[0]: measures(nats + random.normal(0, 5, 40))}
    assert str(gaps([base, other], measured, TEXT)[0]).endswith(": inside the noise.")


def test_with_one_seed_and_no_text_nothing_is_called_sure():
    (gap,) = gaps([line("base", falling(2.0)), line("b", falling(1.0))], {}, None)
    assert gap.is_sure is None and "one seed says nothing of another" in str(gap)


def test_the_bootstrap_is_paired_and_as_wide_as_theory_has_it():
    random = np.random.default_rng(0)
    nats, gain = random.uniform(50, 150, 400), random.normal(3, 2, 400)
    text = HeldOut(("x" * 100,) * 400, "made")
    low, high = bootstrap([nats - gain], [nats], text)
    middle, error = gain.mean() / math.log(2) / 100, gain.std() / math.sqrt(400) / math.log(2) / 100
    assert (low, high) == pytest.approx((-middle - 1.96 * error, -middle + 1.96 * error), abs=0.15 * error)
    assert bootstrap([nats - gain], [nats], text) == (low, high)  # the same every time
    halves = bootstrap([nats - gain, nats], [nats, nats], text)
    assert np.mean(halves) == pytest.approx(np.mean([low, high]) / 2, rel=0.02)


# ---- in tokens ----


def test_tokens_saved_are_counted_to_where_the_better_curve_crosses_the_others_end():
    saved = tokens_saved(line("a", falling(1.5)), line("b", falling(2.0)), "val_loss")
    assert (saved.amount, saved.of) == (pytest.approx(500), 10_000)  # it falls by 1 in 1,000 tokens
    assert math.isnan(saved.low)


def test_a_curve_that_rises_again_counts_from_when_it_was_there_first():
    dip = [9.0, 1.0, 5.0, 4.0, 3.0, 1.9]
    assert tokens_saved(line("a", dip), line("b", falling(2.0)), "val_loss").amount == pytest.approx(10_000 - 1875)


def test_tokens_saved_have_an_interval_over_the_seeds_of_both_sides():
    better, other = [1.4, 1.5, 1.7], [2.0, 2.2]
    saved = tokens_saved(line("a", *map(falling, better)), line("b", *map(falling, other)), "val_loss")
    expected = welch([-1000 * end for end in better], [-1000 * end for end in other])
    assert (saved.amount, saved.low, saved.high) == pytest.approx(expected[:3])


def test_more_training_for_a_better_end_can_cost_tokens():
    slow = log("slow", falling(1.0), 10 * TOKENS)
    saved = tokens_saved(Line("slow", (slow,), slow.table, None, None), line("b", falling(2.0)), "val_loss")
    assert saved.amount == pytest.approx(10_000 - 90_000)


def test_no_tokens_are_saved_where_a_seed_never_gets_there_or_a_log_does_not_count_them():
    assert tokens_saved(line("a", falling(1.0), falling(2.2)), line("b", falling(2.0)), "val_loss") is None
    bare = log("bare", falling(1.0))
    bare.table.drop(columns="tokens", inplace=True)
    assert tokens_saved(Line("bare", (bare,), bare.table, None, None), line("b", falling(2.0)), "val_loss") is None


def test_the_last_evaluation_counts_on_the_same_tokens_as_those_before():
    run = log("a", [5.0, 4.0, 2.5])
    run.table["bits_per_byte"] = run.table["val_loss"] * 0.5
    progress = SimpleNamespace(val_loss=3.0)  # on the tokens of the others; of the whole text it is 2.5
    checkpoint = SimpleNamespace(step=3, progress=progress)
    folder = SimpleNamespace(checkpoints=lambda: [checkpoint], data=DATA, tokenizer=ByteTokenizer, config=Config())
    ours = CurveSource("a", run.table, folder, Path("a"))
    saved = tokens_saved(Line("a", (ours,), ours.table, None, None), line("b", [6.0, 5.5, 3.5]), "val_loss")
    assert saved.amount == pytest.approx(3000 - 2500)


def test_between_tokenizers_bytes_of_text_are_saved():
    lines = []
    for name, tokenizer, end, bytes_per_token in (("a", ByteTokenizer(), 1.5, 1), ("b", CharTokenizer("abc"), 2.0, 3)):
        data = DATA | {"train_bytes": 3 * bytes_per_token}
        run = SimpleNamespace(checkpoints=list, data=data, config=Config(),
                              tokenizer=lambda tokenizer=tokenizer: tokenizer)
        table = log(name, falling(end)).table.rename(columns={"val_loss": "bits_per_byte"})
        lines.append(Line(name, (CurveSource(name, table, run, Path(name)),), table, None, None))
    saved = tokens_saved(*lines, "bits_per_byte")
    assert (saved.amount, saved.of, saved.unit) == (pytest.approx(30_000 - 9_500), 30_000, "bytes of text")
