"""A law is found back from its points, its intervals hold what they promise, and a study goes on where it was."""

import json
import math
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from programs import Program
from scipy import stats
from small_runs import small_run_config
from thorough import thorough

from config import load_config, override, save_config
from experiments import compare, scaling
from experiments.common.figures import num_multiplied, num_parameters
from experiments.comparing import studies
from experiments.scaling_laws.bootstrap import ranges, resampled, split
from experiments.scaling_laws.conclusions import (
    Fit,
    bend,
    conclude,
    leave_out,
    make_fit,
    points_of,
    unmeasured,
    why_not,
)
from experiments.scaling_laws.grid import Grid
from experiments.scaling_laws.law import Law, Points, fit_law, residuals, scatter
from experiments.scaling_laws.optimum import Costs, optimum
from experiments.scaling_laws.scaling_options import ScalingOptions
from experiments.scaling_laws.scaling_pictures import draw_study
from families.sizing import scaled
from model import Model
from presets import block_parameters, load_preset
from runs import Run
from training.flops import flops_per_token

TRUE = Law(E=0.304, A=0.06 * 2e5**0.45, a=0.45, B=0.08 * 2e5**0.5, b=0.5)
SIZES, TOKENS = np.geomspace(7e4, 8e5, 7), np.geomspace(5e4, 8e5, 5)


def grid_of(law: Law, *, noise: float = 0.0, shared: float = 0.0, seed: int = 0) -> Points:
    """Runs of 7 sizes and 5 numbers of tokens, whose losses have errors of a run and of a size."""
    drawn = np.random.default_rng(seed)
    sizes, tokens = (values.ravel() for values in np.meshgrid(SIZES, TOKENS, indexing="ij"))
    errors = noise * drawn.standard_normal(35) + shared * np.repeat(drawn.standard_normal(7), 5)
    return Points(sizes, tokens, law.loss(sizes, tokens) * np.exp(errors))


def table_of(points: Points, **columns) -> pd.DataFrame:
    """The points as the runs of a study."""
    return pd.DataFrame({"size": [f"{size:.0f}" for size in points.sizes], "parameters": points.sizes.astype(int),
                         "for_tokens": points.tokens.round().astype(int), "seed": 0, "tokens": points.tokens,
                         "flops": 6.0 * points.sizes * points.tokens, "bits_per_byte": points.losses} | columns)


# ---- the fit ----


@pytest.mark.parametrize("law", [
    TRUE, Law(1.69, 406.4, 0.34, 410.7, 0.28), Law(0.0, 30.0, 0.3, 90.0, 0.4), Law(2.0, 5e3, 0.9, 12.0, 0.2)])
def test_points_without_noise_give_the_law_back(law):
    found = fit_law(grid_of(law))
    np.testing.assert_allclose(found, law, rtol=1e-6, atol=1e-6)


def test_a_known_entropy_is_kept_and_the_rest_found():
    found = fit_law(grid_of(TRUE), entropy=TRUE.E)
    assert found.E == TRUE.E
    np.testing.assert_allclose(found, TRUE, rtol=1e-6)


def test_the_fit_is_the_least_squares_of_relative_residuals():
    points = grid_of(TRUE, noise=0.02)
    found = fit_law(points)

    def squares(law: Law) -> float:
        loss = law.E + law.A / points.sizes**law.a + law.B / points.tokens**law.b
        return float(np.sum(((points.losses - loss) / points.losses) ** 2))

    for place in range(5):
        for factor in (0.999, 1.001):
            moved = Law(*(value * factor if number == place else value for number, value in enumerate(found)))
            assert squares(moved) > squares(found)


def test_no_part_of_a_law_is_below_zero():
    points = grid_of(Law(0.0, 30.0, 0.3, 90.0, 0.4), noise=0.03, seed=1)
    assert min(fit_law(points)) >= 0


@pytest.mark.parametrize(("sizes", "tokens", "sentence"), [
    ([1e4, 2e4, 1e4, 2e4], [1e5, 1e5, 2e5, 3e5], "a fit needs 3 sizes or more, and 2 are there"),
    ([1e4, 2e4, 3e4, 2e4], [1e5, 1e5, 1e5, 1e5], "a fit needs 3 tokens or more, and 1 are there")])
def test_too_few_sizes_or_tokens_are_refused(sizes, tokens, sentence):
    with pytest.raises(ValueError, match=sentence.replace("3 tokens", "3 numbers of tokens")):
        fit_law(Points(np.array(sizes), np.array(tokens), np.ones(4)))


# ---- how sure it is ----


def coverage(repetitions: int, resamples: int, **errors: float) -> dict[str, float]:
    """The share of studies whose intervals hold the true E, a and b."""
    inside = {name: 0 for name in "Eab"}
    for seed in range(repetitions):
        points = grid_of(TRUE, seed=seed, **errors)
        found = ranges(resampled(points, fit_law(points), count=resamples, seed=seed))
        for name in inside:
            low, high = found[name]
            inside[name] += low <= getattr(TRUE, name) <= high
    return {name: count / repetitions for name, count in inside.items()}


@pytest.mark.slow
def test_intervals_cover_the_truth_in_a_few_studies():
    assert min(coverage(12, 80, noise=0.005).values()) >= 0.75  # 9 of 12: of 95 % that is missed once in 2,000


@thorough
@pytest.mark.parametrize("errors", [{"noise": 0.005}, {"noise": 0.005, "shared": 0.005}], ids=str)
def test_intervals_cover_the_truth_in_nine_of_ten_studies(errors):
    assert min(coverage(100, 300, **errors).values()) >= 0.9


def test_residuals_are_split_into_those_of_sizes_and_of_runs():
    sizes, values = np.array([5.0, 3.0, 5.0, 3.0, 4.0, 4.0, 9.0, 9.0]), np.array([3, 1, 5, 2, 7, 7, 0, 4.0])
    means, rest, group = split(values, sizes, fitted=3)
    np.testing.assert_allclose(means, np.array([1.5, 7, 4, 2]) * math.sqrt(4 / 1))  # of sizes 3, 4, 5, 9
    np.testing.assert_allclose(rest, np.array([-1, -0.5, 1, 0.5, 0, 0, -2, 2]) * math.sqrt(8 / 2))
    assert list(group) == [2, 0, 2, 0, 1, 1, 3, 3]


def test_the_scatter_is_that_of_a_run():
    found = [scatter(points, fit_law(points)) for points in (grid_of(TRUE, noise=0.01, seed=n) for n in range(20))]
    assert np.mean(found) == pytest.approx(0.01, rel=0.05)
    assert math.isnan(scatter(grid_of(TRUE).taken(np.arange(5)), TRUE))


# ---- conclusions ----


@pytest.fixture(scope="module")
def noisy():
    """A study with errors of 0.3 %, and what is concluded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.scaling_laws.conclusions.resampled",
                      lambda *args, **options: resampled(*args, **options, count=60))
        table = table_of(grid_of(TRUE, noise=0.003))
        return table, conclude(table, TRUE.E)


def test_a_known_entropy_narrows_the_exponents(noisy):
    _, found = noisy
    for name in "ab":
        free, known = (np.ptp(fit.ranges[name]) for fit in (found.free, found.known))
        assert known < free
    assert found.known.ranges["E"] == (TRUE.E, TRUE.E)


def test_the_largest_run_is_predicted_without_it(noisy):
    table, found = noisy
    assert found.left_out.measured == table.bits_per_byte.iloc[-1]
    without = fit_law(grid_of(TRUE, noise=0.003).taken(np.arange(34)))
    assert found.left_out.predicted == pytest.approx(without.loss(SIZES[-1], TOKENS[-1]))
    assert found.left_out.low < found.left_out.predicted < found.left_out.high
    assert found.left_out.error == found.left_out.predicted / found.left_out.measured - 1
    assert leave_out(table[table.for_tokens < 2e5]) is None  # two numbers of tokens remain


def test_the_best_size_is_that_of_the_closed_form_if_flops_are_6_n_d():
    costs, budget = Costs(SIZES, 6 * SIZES), 6 * 2e5 * 2e5
    power = (TRUE.a * TRUE.A / (TRUE.b * TRUE.B)) ** (1 / (TRUE.a + TRUE.b))  # Hoffmann et al. 2022, equation 4
    best = power * (budget / 6) ** (TRUE.b / (TRUE.a + TRUE.b))
    found = optimum(TRUE, costs, budget)
    assert found.is_inside and found.size == pytest.approx(best, rel=0.005)
    assert found.tokens == pytest.approx(budget / 6 / found.size) and found.loss == pytest.approx(
        TRUE.loss(best, budget / 6 / best))
    assert not optimum(TRUE, costs, 1e3 * budget).is_inside


def test_exponents_that_the_runs_do_not_tell_are_named(noisy):
    table, found = noisy
    points = points_of(table)
    assert unmeasured(found.free, points) == []
    short = found.free.law._replace(B=found.free.law.B / 1000, E=0.0)
    (said, end) = unmeasured(type(found.free)(short, {}, 0.003, []), points)
    assert said.startswith("The part of the loss that is due to tokens at 800,000") and "b is not measured" in said
    assert end.startswith("E is 0")


def test_a_law_that_does_not_describe_the_runs_is_said_to(noisy):
    table, found = noisy
    assert bend(table, found.free) is None
    mixed = 0.02 * np.log(table.parameters / 2e5) * np.log(table.tokens / 2e5)  # more tokens help the smallest less
    table = table.assign(bits_per_byte=table.bits_per_byte * np.exp(mixed))
    fit = make_fit(points_of(table))
    said, off = bend(table, fit), residuals(points_of(table), fit.law)
    assert said.startswith("The law does not describe these runs")
    where = [f"{size} on the {tokens}" for size in ("smallest", "largest") for tokens in ("fewest tokens", "most")]
    assert ", ".join(f"{off[n]:+.1%} for the {words}" for n, words in zip((0, 4, 30, 34), where, strict=True)) in said


def test_chance_is_seldom_taken_for_a_pattern():
    said = []
    for seed in range(60):
        points = grid_of(TRUE, noise=0.005, shared=0.005 * (seed % 2), seed=seed)
        law = fit_law(points)
        said.append(bend(table_of(points), Fit(law, {}, scatter(points, law), [])))
    assert len(said) - said.count(None) <= 3


def test_the_picture_has_the_runs_the_law_and_the_entropy(noisy):
    table, found = noisy
    left, right = draw_study(table, found, 0.304, "toy").axes
    assert "entropy of the text, 0.304" in left.get_legend_handles_labels()[1]
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [list(mine.bits_per_byte) for _, mine in
                                                         table.groupby("parameters")]
    assert any("best size" in name for name in right.get_legend_handles_labels()[1])


# ---- the grid ----


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base on a text of 2 kB, and its file."""
    folder = tmp_path_factory.mktemp("scaling")
    cfg = small_run_config(folder, {
        "train.name": None, "train.lr": 0.02, "train.eval_every": 1000, "train.sample_every": 1000,
        "train.checkpoint_every": 10, "train.log_every": 1, "model.hidden_dim": None, "sample.num_samples": 1})
    save_config(cfg, folder / "base.json")
    return folder / "base.json"


TINY = ("--sizes", "model.dim=8", "model.dim=16", "--tokens", "640", "1280", "--name", "toy")


def gridded(base: Path, *words: str) -> Grid:
    command, plain = scaling.parse(["--config", str(base), *TINY, *words])
    return Grid(command, command.config, plain)


def test_each_run_has_a_schedule_that_ends_with_its_tokens(base):
    runs = gridded(base, "--seeds", "2").runs()
    assert [(run.size.label, run.tokens, run.seed) for run in runs] == [
        (size, tokens, seed) for seed in (0, 1) for size, tokens in (
            ("dim=16", 1280), ("dim=16", 640), ("dim=8", 1280), ("dim=8", 640))]
    assert {run.tokens: run.cfg.train.steps for run in runs} == {640: 10, 1280: 20}
    assert runs[0].name == "toy-dim-16-1280-seed-0" and runs[0].cfg.train.seed == 0


def test_runs_of_all_lengths_are_evaluated_on_as_much_text(base):
    runs = gridded(base, "--train.final-eval-share", "0.5").runs()
    assert {run.cfg.train.final_eval_share * run.cfg.train.steps * 64 for run in runs} == {640}


def test_a_rate_follows_from_the_width_by_a_stated_power(base):
    assert gridded(base).rates() == {"dim=8": 0.0283, "dim=16": 0.02}  # Muon: the root; the base's width is 16
    assert gridded(base, "--train.optimizer", "adamw").rates() == {"dim=8": 0.04, "dim=16": 0.02}
    assert gridded(base, "--rate-power", "0").rates() == {"dim=8": 0.02, "dim=16": 0.02}
    assert gridded(base, "--rates", "0.3", "0.1").rates() == {"dim=8": 0.3, "dim=16": 0.1}
    assert gridded(base).rates(0.1) == {"dim=8": 0.1, "dim=16": 0.0707}  # swept with the smallest
    assert {run.cfg.train.lr for run in gridded(base).runs() if run.size.label == "dim=8"} == {0.0283}


def test_each_number_of_tokens_has_its_batch(base):
    runs = gridded(base, "--batches", "1", "4").runs()
    found = {(run.tokens, run.cfg.train.batch_size, run.cfg.train.steps) for run in runs}
    assert found == {(640, 1, 40), (1280, 4, 20)}


def test_a_sweep_is_of_the_smallest_size_on_the_middle_number_of_tokens(base):
    planned = gridded(base, "--sweep", "0.01", "0.04").sweep()
    assert {rate: (run.size.label, run.tokens, run.cfg.train.lr) for rate, run in planned.items()} == {
        rate: ("dim=8", 1280, rate) for rate in (0.01, 0.04)}


def test_sizes_count_matrices_and_the_head_once():
    cfg = override(load_preset("default").model, {"dim": 16, "num_layers": 2, "vocab_size": 50, "pointer": False})
    model = Model(cfg)
    vectors = sum(p.numel() for p in model.parameters() if p.dim() < 2)
    assert num_multiplied(cfg) == num_parameters(cfg) - vectors - 50 * 16
    assert num_multiplied(override(cfg, {"tie_embeddings": True})) == num_multiplied(cfg)
    experts = override(cfg, {"mlp": "moe", "moe.num_experts": 4, "moe.top_k": 1})
    assert num_multiplied(experts) < num_parameters(experts) / 2


def test_all_scales_have_the_context_of_the_base():
    base = load_preset("gemma3")
    found = [scaled(base, target, block_parameters, context=base.model.max_seq_len) for target in (1e5, 1e6)]
    assert {cfg.model.max_seq_len for cfg in found} == {base.model.max_seq_len}
    assert scaled(base, 1e6, block_parameters).model.max_seq_len == 256


@pytest.mark.parametrize(("words", "sentence"), [
    (["--tokens", "many"], "tokens=many is not a number of tokens: use e.g. 50k"),
    (["--tokens", "1k", "1000"], "tokens=1k 1000 has a number twice"), (["--seeds", "0"], "seeds=0 must be above 0"),
    (["--sizes", "model.dim=9"], "head"), (["--sizes", "model.dm=9"], "model.dm"),
    (["--sizes", "model.dim=8", "model.dim=8 model.num_layers=2"], "are one size"),
    (["--rates", "0.1"], "rates=0.1 are 1, and the sizes are 2: give one for each"),
    (["--rates", "0.1", "0.2", "--rate-power", "1"], "rate_power would change nothing beside rates"),
    (["--sweep", "0.1", "--train.lr", "0.3"], "train.lr=0.3 would change nothing: --sweep says"),
    (["--batches", "1"], "batches=1 are 1, and the numbers of tokens are 2: give one for each"),
    (["--batches", "4", "0"], "batches=0 is no number of rows"),
    (["--batches", "4", "8", "--train.batch-size", "3"], "train.batch_size=3 would change nothing: --batches says"),
    (["--train.steps", "9"], "train.steps=9 would change nothing: --tokens says"),
    (["--train.time-limit", "9s"], "train.time_limit=9s could end runs"),
    (["--entropy", "known"], "entropy=known: the entropy of "), (["--name", "a/b"], "name='a/b' is not a folder name"),
    (["--sizes", "", "--scales", "1"], "sizes='' has no flags"),
])
def test_a_mistake_is_one_sentence_and_nothing_is_trained(words, sentence, base, models, tmp_path, monkeypatch, call):
    monkeypatch.setattr("experiments.scaling_laws.scaling_options.RESULTS", tmp_path / "results")
    status, said, errors = call(scaling.main, "--config", base, *TINY, *words)
    assert (status, errors.count("\n")) == (2, 1) and sentence in errors and not models.exists()


def test_a_scale_that_no_model_has_is_refused(base):
    options = ScalingOptions(name="toy", scales=("100",))
    cfg = load_config(base)
    with pytest.raises(ValueError, match="scales=100: no such model has 100 parameters"):
        Grid(options, cfg, cfg)


# ---- training ----


def command(tmp_path: Path, base: Path, *words: str) -> Program:
    def program() -> None:
        sys.argv = ["scaling.py", "--config", str(base), *TINY, *words]
        scaling.main()

    return Program(program, {"SHAPESHIFTER_MODELS": str(tmp_path / "models"), "OMP_NUM_THREADS": "1",
                             "SHAPESHIFTER_RESULTS": str(tmp_path / "results")})


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_and_an_idea_is_judged_over_two(base, tmp_path, monkeypatch, call):
    words, models = ("--tokens", "640", "6400"), tmp_path / "models"
    log = models / "toy-dim-16-6400-seed-0" / "log.csv"
    process = command(tmp_path, base, *words, "--sweep", "0.02", "0.04")
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 12):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -9 and not (log.parent / "loss.png").exists()

    said, errors = (process := command(tmp_path, base, *words, "--sweep", "0.02", "0.04")).communicate()
    folder = tmp_path / "results" / "toy"
    assert (process.returncode, errors) == (0, "") and "No law is fitted: that needs 3 sizes" in said
    assert "going on after step" in (folder / "logs" / "toy-dim-16-6400-seed-0.txt").read_text()
    assert {path.name for path in folder.iterdir()} == {"report.md", "points.csv", "scaling.png", "fit.json", "logs"}
    points = pd.read_csv(folder / "points.csv")
    assert sorted(points.run) == sorted(path.name for path in models.iterdir() if "-lr-" not in path.name)
    monkeypatch.setattr("runs.MODELS", models)
    for row in points.itertuples():
        run = Run(row.run)
        last = run.log().iloc[-1]
        assert (row.tokens, row.flops, row.bits_per_byte) == (last.tokens, last.flops, last.bits_per_byte)
        assert row.flops == pytest.approx(flops_per_token(run.config) * row.tokens)
    assert "the best of a sweep" in (folder / "report.md").read_text()

    _, errors = (process := command(tmp_path, base, *words, "--name", "idea", "--model.norm", "layer")).communicate()
    assert (process.returncode, errors) == (0, "")
    monkeypatch.setattr(studies, "RESULTS", tmp_path / "results")
    status, said, errors = call(compare.main, "toy", "idea", "--png", tmp_path / "gains.png", "--csv",
                                tmp_path / "gains.csv", "--json", tmp_path / "gains.json")
    assert (status, errors) == (0, "") and re.search(r"idea is better than toy at \d of 2 sizes", said)
    assert len(pd.read_csv(tmp_path / "gains.csv")) == 4 and (tmp_path / "gains.png").exists()
    assert json.loads((tmp_path / "gains.json").read_text())["base"] == "toy"


# ---- the report ----


def written(base: Path, tmp_path: Path, monkeypatch, *, without: int | None = None) -> tuple[str, Path]:
    """The report on 12 runs of a true law without noise, one of which may be missing."""
    from experiments.scaling_laws import scaling_report, studying

    monkeypatch.setattr("experiments.scaling_laws.scaling_options.RESULTS", tmp_path)
    options, plain = scaling.parse(["--config", str(base), "--sizes", "model.dim=8", "model.dim=16", "model.dim=24",
                                    "model.dim=32", "--tokens", "640", "1280", "1920", "--name", "toy"])
    grid = Grid(options, options.config, plain)
    planned = grid.runs()
    law = Law(0.3, 2.0, 0.3, 9.0, 0.5)
    rows = [{"size": run.size.label, "parameters": run.size.parameters, "for_tokens": run.tokens, "seed": run.seed,
             "tokens": run.tokens, "flops": run.size.flops * run.tokens, "run": run.name,
             "bits_per_byte": law.loss(run.size.parameters, run.tokens)} for run in planned]
    missing = [] if without is None else [planned[without]]
    kept = [row for row in rows if row["run"] not in [run.name for run in missing]]
    data = {"name": "text", "fingerprint": "f", "val_bytes": 1, "train_tokens": 400, "floor_bits_per_byte": 0.3}
    found = studying.Study(grid.sizes, grid.rates(), 0.5, {}, pd.DataFrame(kept), missing, {}, data, 0.3)
    return scaling_report.write_report(options, found, ["--name", "toy"]), tmp_path / "toy"


def test_the_report_has_the_law_in_words_figures_and_full_precision(base, tmp_path, monkeypatch):
    said, folder = written(base, tmp_path, monkeypatch)
    fit, report = json.loads((folder / "fit.json").read_text()), (folder / "report.md").read_text()
    for name, value in zip(Law._fields, Law(0.3, 2.0, 0.3, 9.0, 0.5), strict=True):
        assert fit["free"][name]["value"] == pytest.approx(value, rel=1e-6)
    assert fit["text"]["floor_bits_per_byte"] == 0.3 and fit["known"] is None and fit["missing"] == []
    assert "with E = 0.3000" in said and "a = 0.300" in said and "Unfinished" not in said
    assert "an error of +0.00%" in said or "an error of -0.00%" in said
    assert "The longest runs read the text 4.8 times, and D counts every time: beyond 4 times" in said
    for heading in ("## The law", "## The losses", "## The learning rates", "## The best size for a budget"):
        assert heading in report
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(folder / "points.csv")) == 12


def test_a_fit_without_a_run_says_which_is_missing(base, tmp_path, monkeypatch):
    said, folder = written(base, tmp_path, monkeypatch, without=5)
    assert said.startswith("Unfinished: 1 run is still to be trained: toy-dim-")
    name = json.loads((folder / "fit.json").read_text())["missing"][0]
    assert f"{name}." in said and "with E = 0.3000" in said


def test_too_few_runs_are_told_from_enough():
    table = table_of(grid_of(TRUE))
    assert why_not(table) is None
    assert "there are 2, 5 and 10" in why_not(table[table.parameters <= sorted(set(table.parameters))[1]])


# ---- two studies ----


def saved_study(folder: Path, table: pd.DataFrame, floor: float | None = 0.304, fingerprint: str = "f") -> Path:
    folder.mkdir(parents=True)
    table.to_csv(folder / "points.csv", index=False)
    text = {"name": "tales", "fingerprint": fingerprint, "val_bytes": 9, "floor_bits_per_byte": floor}
    (folder / "fit.json").write_text(json.dumps({"text": text}))
    return folder


def two_studies(tmp_path: Path, gain, noise: float = 0.002) -> studies.Gains:
    """An idea whose gain, a share of the loss above the entropy, is a function of the size."""
    table, drawn = table_of(grid_of(TRUE)), np.random.default_rng(0)
    above = (table.bits_per_byte - TRUE.E) * (1 - gain(table.parameters) + noise * drawn.standard_normal(len(table)))
    return studies.compare_studies(saved_study(tmp_path / "base", table), saved_study(
        tmp_path / "idea", table.assign(bits_per_byte=TRUE.E + above)))


def test_a_gain_is_found_at_each_size_and_its_trend_in_doublings(tmp_path):
    found = two_studies(tmp_path, lambda size: 0.03 + 0.01 * np.log2(size / 7e4), noise=0.0)
    for (_, one), size in zip(found.sizes.items(), sorted(set(found.pairs.parameters)), strict=True):
        assert one.mean == pytest.approx(0.03 + 0.01 * np.log2(size / 7e4)) and one.count == 5
    parameters, tokens = found.trends
    assert parameters.slope.mean == pytest.approx(0.01) and tokens.slope.mean == pytest.approx(0, abs=1e-9)
    assert found.p == pytest.approx(stats.binomtest(35, 35).pvalue) == pytest.approx(2 * 0.5**35)


@pytest.mark.parametrize(("slope", "words"), [
    (0.01, "The gain grows: +1.0"), (-0.01, "The gain fades: -"),
    (0.0, "Whether the gain grows or fades with the parameters cannot be told from noise")])
def test_the_verdict_on_a_gain_follows_from_its_trend(tmp_path, slope, words):
    said = studies.sentences(two_studies(tmp_path, lambda size: 0.05 + slope * np.log2(size / 2e5)))
    assert said[0].startswith("idea is better than base at 7 of 7 sizes, at 7 of them") and said[1].startswith(words)


def test_a_trend_is_that_of_least_squares(tmp_path):
    found = two_studies(tmp_path, lambda size: 0.05 + 0.01 * np.log2(size / 2e5), noise=0.02)
    pairs = found.pairs
    other = stats.linregress(np.log2(pairs.parameters), pairs.gain)  # the grid is crossed: tokens do not act
    assert found.trends[0].slope.mean == pytest.approx(other.slope, rel=1e-6)
    assert found.trends[0].slope.high - found.trends[0].slope.mean == pytest.approx(
        stats.t.ppf(0.975, 32) * other.stderr, rel=0.1)


def test_runs_without_a_partner_are_counted(tmp_path):
    table = table_of(grid_of(TRUE))
    found = studies.compare_studies(saved_study(tmp_path / "base", table, None),
                                    saved_study(tmp_path / "idea", table.iloc[:10], None))
    assert (len(found.pairs), found.left_out) == (10, 25)
    assert "25 runs have no partner of their size, tokens and seed" in " ".join(studies.sentences(found))
    assert "whose entropy is not known" in studies.sentences(found)[0]


@pytest.mark.parametrize(("words", "sentence"), [
    (["base", "other"], "other has learned from or was measured on another text than base"),
    (["base", "far"], "base and far have no size, number of tokens and seed in common"),
    (["base", "base", "base"], "3 scaling studies are named: give two"),
    (["base", "nothing"], "nothing is not a scaling study, as the others are"),
    (["base", "broken"], "is not a whole scaling study"),
    (["base", "same", "--stories", "9"], "stories=9 would change nothing: of scaling studies there are --png"),
])
def test_what_cannot_be_compared_is_refused_in_a_sentence(words, sentence, tmp_path, models, monkeypatch, call):
    monkeypatch.setattr(studies, "RESULTS", tmp_path)
    table = table_of(grid_of(TRUE))
    saved_study(tmp_path / "base", table)
    saved_study(tmp_path / "same", table)
    saved_study(tmp_path / "other", table, fingerprint="g")
    saved_study(tmp_path / "far", table.assign(seed=7))
    (saved_study(tmp_path / "broken", table) / "fit.json").write_text("{}")
    status, said, errors = call(compare.main, *words)
    assert (status, said, errors.count("\n")) == (2, "", 1) and sentence in errors


def test_residuals_are_of_the_logarithm():
    points = Points(np.array([1e5]), np.array([1e5]), np.array([0.7]))
    assert residuals(points, TRUE)[0] == pytest.approx(math.log(0.7 / TRUE.loss(1e5, 1e5)))
