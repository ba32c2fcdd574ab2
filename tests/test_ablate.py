"""An ablation compares like with like, calls luck luck, and outlives its own death."""

import json
import math
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import QUIET
from programs import Program
from small_runs import assert_same_run, small_run_config
from thorough import some

import train
from config import Config, ModelConfig, load_config, override, save_config
from experiments import ablate
from experiments.ablating.ablation_options import AblationOptions
from experiments.ablating.ablation_report import draw_forest, write_report
from experiments.ablating.plan import Planned, num_flops, num_parameters, num_tokens, plan_one, resized, schedule
from experiments.ablating.results import BETTER, NOISE, UNTOLD, WORSE, compare, result_table, verdict
from experiments.ablating.runner import VariantOutcome
from experiments.ablating.variants import Variant, make_variants, read_values
from runs import Run
from training.step import TrainState

NOISE_FILE = Path(__file__).parent / "recorded_noise.json"  # final losses of many seeds, and how they were made
BASE = override(Config(), {"model.dim": 64, "model.num_layers": 4, "model.mlp": "glu", "model.hidden_dim": 172,
                           "model.vocab_size": 512, "model.max_seq_len": 64, "model.qk_norm": "none",
                           "train.steps": 300})


def variants(*vary: str, base: Config = BASE, **options) -> list[Variant]:
    return make_variants(AblationOptions(vary=vary, name="toy", **options), base)


def sized(variant: dict, **options) -> Planned:
    """A variant of BASE, sized as the options say."""
    options, cost = AblationOptions(name="toy", **options), {"params": num_parameters, "flops": num_flops}
    cfg = override(BASE, variant)
    return plan_one(options, Variant("it", "it", variant, cfg), cfg, BASE, cost[options.match])


# ---- which variants there are ----


def test_one_flag_at_a_time_is_varied_and_the_bases_own_value_is_the_base():
    found = variants("model.norm=rms,layer,dyt", "model.mlp=glu,mlp")
    assert [one.label for one in found] == ["base", "norm=layer", "norm=dyt", "mlp=mlp"]
    assert found[0].cfg == BASE and found[3].cfg == override(BASE, {"model.mlp": "mlp"})


def test_a_grid_is_every_combination_but_the_base():
    found = variants("model.norm=rms,layer", "model.mlp=glu,mlp", grid=True)
    assert [one.label for one in found] == ["base", "mlp=mlp", "norm=layer", "norm=layer mlp=mlp"]


def test_a_variant_may_change_several_flags():
    found = variants("model.norm=layer", also=("train.optimizer=adamw train.lr=1e-3",))
    assert found[2].flags == {"train.optimizer": "adamw", "train.lr": 1e-3}
    assert found[2].slug == "optimizer-adamw-lr-0.001"


def test_ideas_are_variants_by_their_names():
    found = variants(ideas=("bigram", "canon"))
    assert [one.label for one in found] == ["base", "memory=bigram", "canon=mixer,mlp"]
    assert len(variants(ideas=("all",))) > 20
    with pytest.raises(ValueError, match="ideas=canons is not known: use all, or some of value-residual"):
        AblationOptions(ideas=("canons",))


@pytest.mark.parametrize(("word", "values"), [
    ("model.norm=rms,none", ["rms", "none"]), ("train.weight_decay=0.1,None", [0.1, None]),
    ("model.layers=[attention,none],attention", [["attention", "none"], ["attention"]]),
    ("model.tie_embeddings=true", [True])])
def test_values_are_read_as_the_flags_have_them(word, values):
    assert read_values(word, BASE)[1] == values


def test_files_of_different_variants_have_different_names():
    found = variants("model.layers=[attention,none],[none,attention],[attention,attention,none]", "model.norm=layer")
    assert len({one.slug for one in found}) == 5
    found = variants("train.optimizer=adamw", "train.seed=100", "sample.seed=100")
    assert [one.label for one in found] == ["base", "optimizer=adamw", "train.seed=100", "sample.seed=100"]


@pytest.mark.parametrize(("options", "sentence"), [
    ({"vary": ("model.nrom=rms",)}, "model.nrom is not a flag: see"),
    ({"vary": ("model.norm",)}, "model.norm: expected values, as in model.norm=a,b"),
    ({"vary": ("model.norm=layr,rms",)}, "model.norm=layr: model.norm='layr' is not known: use one of rms, layer"),
    ({"vary": ("model.hidden_mult=2.0",)}, "model.hidden_mult=2: model.hidden_mult=2.0 would change nothing"),
    ({"vary": ("model.norm=rms",)}, "nothing is varied: give another value than the base's"),
    ({}, "nothing is varied"),
    ({"vary": ("model.norm=rms", "model.norm=layer")}, "vary=model.norm is given twice"),
    ({"vary": ("train.name=a",)}, "train.name cannot be varied"),
    ({"vary": ("model.dim=32",)}, "model.dim is varied, and is what match_by=width changes"),
    ({"vary": ("train.lr=1e-2",), "sweep": "train.lr=1e-3,1e-2"}, "train.lr is varied and swept"),
    ({"vary": ("train.seed=2",)}, "seed=2 and base would share the run of train.seed=2: give seeds that lie 3 apart"),
    ({"also": ("model.norm=rms,layer",)}, "also='model.norm=rms,layer' gives model.norm several values"),
])
def test_what_cannot_be_varied_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError) as caught:
        make_variants(AblationOptions(name="toy", **options), BASE)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"seeds": 0}, "seeds=0 must be 1 or more"),
    ({"match": "none", "match_by": "width"}, "match_by=width would change nothing"),
    ({"match": "params", "match_by": "steps"}, "match_by=steps changes no parameters"),
    ({"grid": True}, "grid combines"), ({"name": "a/b"}, "name='a/b' is not a folder name")])
def test_options_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        AblationOptions(**options)


# ---- like with like ----


@pytest.mark.parametrize("by", ["width", "depth", "mlp"])
@pytest.mark.parametrize("match", ["params", "flops"])
@pytest.mark.parametrize("flags", [{"model.mlp": "mlp"}, {"model.layers": ["none"]},
                                   {"model.attention.num_kv_heads": 1},
                                   {"model.pointer": False}], ids=str)
@pytest.mark.slow
def test_variants_have_as_much_as_the_base_to_one_percent(by, match, flags):
    found, cost = sized(flags, match=match, match_by=by), {"params": num_parameters, "flops": num_flops}[match]
    assert abs(cost(found.cfg) / cost(BASE) - 1) <= 0.01 and num_tokens(found.cfg) == num_tokens(BASE)
    assert found.match == pytest.approx(cost(found.cfg) / cost(BASE))
    changed = {"width": "model.dim", "depth": "model.num_layers", "mlp": "model.hidden_dim"}[by]
    assert set(found.sizing) <= {changed, "model.hidden_dim", "model.hidden_mult", "model.hidden_multiple_of"}


def test_a_variant_that_is_near_enough_keeps_its_size():
    assert sized({"model.norm": "layer"}).sizing == {} and sized({"model.qk_norm": "head"}).sizing == {}


def test_where_no_size_is_near_enough_the_nearest_is_taken():
    cfg = override(BASE, {"model.mlp": "none", "model.hidden_dim": None})
    found = resized(cfg, num_parameters(BASE), num_parameters, "width")
    ours = abs(math.log(num_parameters(override(cfg, found)) / num_parameters(BASE)))
    assert ours > math.log1p(0.01) and set(found) == {"model.dim"}
    for dim in range(64, 129, 8):
        assert ours <= abs(math.log(num_parameters(override(cfg, {"model.dim": dim})) / num_parameters(BASE)))


def test_a_varied_mlp_keeps_its_width():
    found = sized({"model.hidden_dim": 344})
    assert found.cfg.model.hidden_dim / found.cfg.model.dim == pytest.approx(344 / 64, rel=0.02)
    assert found.cfg.model.dim < 64


def test_steps_make_up_for_dearer_tokens():
    found = sized({"model.layers": ["none"]}, match="flops", match_by="steps")
    assert found.cfg.model == override(BASE, {"model.layers": ["none"]}).model and found.cfg.train.steps > 300
    assert num_flops(found.cfg) * num_tokens(found.cfg) == pytest.approx(num_flops(BASE) * num_tokens(BASE), rel=0.01)
    shares = [cfg.train.final_eval_share * num_tokens(cfg) for cfg in (found.cfg, BASE)]
    assert shares[0] == pytest.approx(shares[1])  # the last evaluation is of as many tokens


@pytest.mark.parametrize("flags", [{"train.batch_size": 3}, {"model.max_seq_len": 48},
                                   {"train.accumulation": 4, "train.ramp_tokens": 50_000}], ids=str)
def test_another_batch_is_trained_on_as_many_tokens(flags):
    found = sized(flags)
    assert found.tokens == pytest.approx(num_tokens(BASE), rel=0.01) and found.cfg.train.steps != 300


def test_as_many_steps_as_were_asked_for_where_steps_are_varied():
    assert sized({"train.steps": 100}).cfg.train.steps == 100


def test_steps_come_nearest_to_the_tokens():
    cfg = override(BASE, {"train.accumulation": 4, "train.ramp_tokens": 50_000})
    assert schedule(cfg).steps_for(num_tokens(cfg)) == 300 and schedule(cfg).steps_for(1) == 1


def test_a_seed_gives_all_variants_the_same_data_in_the_same_order(models, tmp_path, monkeypatch):
    seen, step = {}, TrainState.step

    def recorded(self, batches, **rest):
        seen.setdefault(name, []).append(np.concatenate([batch.x.numpy() for batch in batches]))
        return step(self, batches, **rest)

    monkeypatch.setattr(TrainState, "step", recorded)
    base = small_run_config(tmp_path, {"train.steps": 4, "sample.max_new_tokens": 2})
    for name, flags in {"base": {}, "wide": {"model.dim": 24, "model.norm": "layer", "model.mlp": "glu"},
                        "other": {"train.seed": 1}}.items():
        train.train(override(base, flags | {"train.name": name}), console=QUIET)
    np.testing.assert_array_equal(seen["base"], seen["wide"])
    assert not np.array_equal(seen["base"], seen["other"])


# ---- luck is called luck ----


NOISY = [[2.00, 2.01, 1.99], [2.005, 2.015, 1.99], [1.80, 1.81, 1.79], [2.3, 2.31, 2.29]]


def test_differences_are_told_from_the_noise():
    found = result_table([outcome(name, values) for name, values in zip(["base", *"abc"], NOISY, strict=True)])
    assert list(found.variant) == ["b", "base", "a", "c"]
    assert list(found.verdict) == [BETTER, "the base", NOISE, WORSE]


@pytest.mark.parametrize(("base", "others", "said"), [
    ("next_token", "block_diffusion", [BETTER, NOISE, UNTOLD]),
    ("block_diffusion", "next_token", [UNTOLD, NOISE, WORSE]),
    ("block_diffusion", "masked_diffusion", [BETTER, NOISE, WORSE])])
def test_an_upper_bound_above_a_loss_tells_nothing_and_one_below_it_does(base, others, said):
    objectives = [base, others, others, others]
    found = result_table([outcome(name, values, objective=objective)
                          for name, values, objective in zip(["base", *"abc"], NOISY, objectives, strict=True)])
    assert list(found.set_index("variant").verdict[["b", "a", "c"]]) == said


def test_p_values_are_corrected_for_the_number_of_variants():
    alone, four = compare(NOISY[:2]), compare([NOISY[0], *[NOISY[1]] * 4])
    assert alone[1]["p_holm"] == alone[1]["p"] == four[1]["p"]
    assert four[1]["p_holm"] == pytest.approx(min(1, 4 * alone[1]["p"]))
    assert four[1]["wide_high"] - four[1]["wide_low"] > alone[1]["wide_high"] - alone[1]["wide_low"]


def test_a_variant_that_failed_is_a_row_with_its_reason_and_is_not_tested():
    reason = "1 of 3 runs failed: step 7: the loss is nan"
    found = result_table([outcome("base", NOISY[0]), outcome("a", NOISY[2]), outcome("b", [1.0, 1.0], failure=reason)])
    row = found.iloc[-1]
    assert (row.variant, row.verdict, row.runs) == ("b", reason, 0) and math.isnan(row.bits_per_byte)
    assert found.iloc[0].p_holm == found.iloc[0].p


def test_one_seed_is_no_test():
    found = result_table([outcome("base", [2.0]), outcome("a", [1.0])])
    assert found.verdict[0] == "one run: no test" and found.difference[0] == -1.0


@pytest.mark.parametrize(("seeds", "num_variants"), some([(3, 4), (3, 1), (5, 4)], 3))
@pytest.mark.slow
def test_an_ablation_of_nothing_calls_a_winner_in_one_of_twenty_at_most(seeds, num_variants):
    assert share_called(seeds, num_variants, gain=0.0) <= 1 / 20


@pytest.mark.slow
def test_a_gain_of_eight_times_the_noise_is_called():
    assert share_called(3, 4, gain=8.0, repetitions=100) > 0.9


def share_called(seeds: int, num_variants: int, *, gain: float, repetitions: int = 300) -> float:
    """Of ablations made of recorded runs that differ in nothing but the seed, in how many a variant is called better
    or worse; the first one is made better by `gain` times the runs' standard deviation."""
    recorded = np.array(json.loads(NOISE_FILE.read_text())["bits_per_byte"])
    random, called = np.random.default_rng(0), 0
    for _ in range(repetitions):
        drawn = random.permutation(recorded)[: seeds * (num_variants + 1)].reshape(-1, seeds)
        drawn[1] -= gain * recorded.std()
        rows = compare([list(values) for values in drawn])
        called += any(verdict({"variant": "a"} | row) in (BETTER, WORSE) for row in rows[1:])
    return called / repetitions


def outcome(
    label: str, values: list[float], failure: str | None = None, objective: str = "next_token", **rest,
) -> VariantOutcome:
    """What would become of a variant whose runs end so."""
    cfg = override(BASE, {"train.objective": objective})
    planned = Planned(Variant(label, label, {}, cfg), {}, cfg, 1000, 5000, 1.0)
    return VariantOutcome(planned, tuple(range(len(values))), (), tuple(values), failure, **{"swept": {}} | rest)


# ---- the report ----


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.ablating.ablation_options.RESULTS", tmp_path / "results")
    (tmp_path / "results" / "toy").mkdir(parents=True)
    return tmp_path / "results" / "toy"


def test_a_report_says_what_is_better_what_is_noise_and_what_failed(results):
    found = [outcome(name, values) for name, values in zip(["base", *"abc"], NOISY, strict=True)]
    found.append(outcome("d", [], failure="3 of 3 runs failed: step 7: the loss is nan"))
    options = AblationOptions(name="toy", vary=("model.norm=layer",))
    report = write_report(options, found, ["--vary", "model.norm=layer"])
    page = (results / "report.md").read_text()
    assert "b is better than the base: -0.2000 bits per byte" in page and "c is worse than the base: +0.3000" in page
    assert "Inside the noise, and so neither better nor worse as far as these runs can tell: a (+0.0033" in page
    assert "d: 3 of 3 runs failed: step 7: the loss is nan." in page and "corrected by Holm for 3 variants" in page
    table = pd.read_csv(results / "table.csv")
    assert list(table.variant) == ["b", "base", "a", "c", "d"] and (results / "forest.png").exists()
    assert str(report).endswith("report.md")


def test_a_report_of_some_of_the_runs_says_so(results):
    write_report(AblationOptions(name="toy"), [
        outcome("base", NOISY[0]), outcome("a", NOISY[1][:2], missing=1), outcome("b", [], missing=3)], [])
    page = (results / "report.md").read_text()
    assert "- Unfinished: 4 runs are still to be trained." in page and "- b: not trained yet." in page
    assert "tell: a (" in page


def test_a_report_names_what_does_not_match(results):
    far = outcome("a", NOISY[1])
    far = VariantOutcome(**vars(far) | {"planned": Planned(far.planned.variant, {}, BASE, 1100, 5000, 1.1)})
    write_report(AblationOptions(name="toy"), [outcome("base", NOISY[0]), far], [])
    assert "within 1%, but for: a (+10.0%, the nearest there is)" in (results / "report.md").read_text()


def test_a_report_of_a_sweep_shows_all_values_and_warns_at_the_ends(results):
    swept = {"0.001": 2.5, "0.003": 2.1, "0.01": math.nan}
    write_report(AblationOptions(name="toy", sweep="train.lr=1e-3,3e-3,1e-2"), [
        outcome("base", NOISY[0], swept=swept, chosen=0.003),
        outcome("a", NOISY[1], swept={"0.001": 2.2, "0.003": 2.3, "0.01": 2.4}, chosen=0.001)], [])
    page = (results / "report.md").read_text()
    assert "| base | 2.5000 | **2.1000** | failed |" in page and "| a | **2.2000** | 2.3000 | 2.4000 |" in page
    assert "At the end of the range, so that a value beyond it may be better still: a." in page


def test_the_picture_has_a_row_and_its_seeds_for_each_variant_that_trained():
    found = [outcome(name, values) for name, values in zip(["base", *"abc"], NOISY, strict=True)]
    table = result_table([*found, outcome("d", [], failure="it failed")])
    (axes,) = draw_forest(table, {one.planned.variant.label: one.values for one in found}, "toy").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["b", "base", "a", "c"]
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0], np.array(NOISY[2]) - 2.0)


def test_a_bound_is_called_one_and_the_loss_of_a_part_is_not_compared(results):
    found = [outcome("base", NOISY[0]), outcome("bound", [x + 1 for x in NOISY[1]], objective="masked_diffusion"),
             outcome("part", [x - 1 for x in NOISY[2]], objective="prefix")]
    said = write_report(AblationOptions(name="toy"), found, [])
    assert "bound is not told from the base, as an upper bound lies above a loss: +1.0" in said
    assert "Its loss is an upper bound." in said
    assert "part: not compared: the loss is not of the same text." in said and "part is better" not in said
    table = result_table(found).set_index("variant")
    assert math.isnan(table.difference["part"]) and table.bits_per_byte["part"] < table.bits_per_byte["base"]
    assert table.loss.to_dict() == {"base": "", "bound": "an upper bound", "part": "of the part after a prefix"}
    (axes,) = draw_forest(result_table(found), {one.planned.variant.label: one.values for one in found}, "toy").axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["base", "bound"]


# ---- the command ----


@pytest.mark.parametrize(("words", "sentence"), [
    (["llama5", "--vary", "model.norm=layer"], "preset='llama5' is not known: use one of default"),
    (["--vary", "model.norm=layr"], "model.norm=layr: model.norm='layr' is not known"),
    (["--vary", "model.norm=layer", "--match-by", "steps"], "match_by=steps changes no parameters"),
    (["--vary", "model.norm=layer", "--nonsense", "3"], "--nonsense is not a flag"),
    (["--vary", "model.norm=layer", "--sweep", "train.seed=1,2"], "sweep=train.seed=1,2: train.seed cannot be swept"),
    (["--vary", "model.norm=layer", "--sweep", "train.grad_clip=1,None"], "sweep=train.grad_clip=1,None has None"),
    (["--vary", "model.norm=layer", "--sweep", "train.lr=1e-3"], "sweep=train.lr=1e-3 has one value"),
    (["--vary", "model.norm=layer", "--train.time-limit", "5m"], "train.time_limit=5m could end runs"),
])
def test_a_mistake_is_one_sentence_and_nothing_is_trained(words, sentence, models, tmp_path, monkeypatch, call):
    monkeypatch.setattr("experiments.ablating.ablation_options.RESULTS", tmp_path / "results")
    status, said, errors = call(ablate.main, *words)
    assert (status, errors.count("\n")) == (2, 1) and errors.startswith(f"error: {sentence}") and not models.exists()


def test_without_its_base_an_ablation_has_failed(results, monkeypatch, call):
    found = [outcome("base", [], failure="3 of 3 runs failed: step 7: the loss is nan"), outcome("a", NOISY[1])]
    monkeypatch.setattr("experiments.ablating.runner.ablate", lambda *_: (found, None))
    status, said, errors = call(ablate.main, "--vary", "model.norm=layer", "--name", "toy")
    assert (status, errors) == (1, "") and "a: the base failed." in said
    assert "The base: 3 of 3 runs failed: step 7: the loss is nan." in said and not (results / "forest.png").exists()


def test_an_ablation_is_called_after_what_it_varies():
    assert ablate.parse(["gpt2", "--vary", "model.norm=rms", "model.mlp=glu"]).name == "gpt2-norm-mlp"
    assert ablate.parse(["--vary", "model.norm=layer", "--model.dim", "64"]).config.model.dim == 64
    assert isinstance(ablate.parse(["llama3"]).config.model, ModelConfig)


# ---- the whole of it ----


def start(folder: Path, *words: str) -> Program:
    """`python experiments/ablate.py` on a tiny base, with the runs and the results in a folder."""
    cfg = small_run_config(folder, {
        "train.name": None, "train.steps": 60, "train.eval_every": 100, "train.log_every": 1,
        "train.checkpoint_every": 10, "train.sample_every": 100, "sample.num_samples": 1, "sample.max_new_tokens": 2})
    save_config(cfg, folder / "tiny.json")

    def program() -> None:
        sys.argv = ["ablate.py", "--config", str(folder / "tiny.json"), *words]
        ablate.main()

    return Program(program, {"SHAPESHIFTER_MODELS": str(folder / "models"), "OMP_NUM_THREADS": "1",
                             "SHAPESHIFTER_RESULTS": str(folder / "results")})


def finish(process: Program) -> tuple[int, str, str]:
    said, errors = process.communicate(timeout=300)
    return process.returncode, said, errors


def final(folder: Path, run: str) -> float:
    """A run's bits per byte in the end."""
    return Run(folder / "models" / run).log().bits_per_byte.iloc[-1]


def wait_for(sign) -> None:
    until = time.monotonic() + 100
    while not sign():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


def children_of(pid: int) -> list[int]:
    """Processes below a process that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found += [int(path.parent.name), *children_of(int(path.parent.name))]
    return found


@pytest.mark.slow
def test_killed_and_interrupted_halfway_an_ablation_goes_on_to_what_it_would_have_been(tmp_path):
    words = ("--vary", "model.norm=layer", "--seeds", "2", "--name", "toy", "--jobs", "2", "--train.steps", "200")
    halfway, saved = tmp_path / "models" / "toy-base-seed-1", set()
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(tmp_path, *words)
        wait_for(lambda: set(halfway.glob("checkpoints/step_*")) - saved)  # noqa: B023, waits at once
        below = children_of(process.pid)
        process.send_signal(number)
        status, _, errors = finish(process)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))  # noqa: B023
        saved = set(halfway.glob("checkpoints/step_*"))
        assert not Run(halfway).is_finished
    assert (status, errors) == (130, "stopped by SIGINT; the same command goes on\n")
    assert Run(halfway).checkpoints()
    report = (tmp_path / "results" / "toy" / "report.md").read_text()
    assert " runs are still to be trained." in report
    done = {path.parent: path.stat().st_mtime for path in (tmp_path / "models").glob("*/loss.png")}
    status, said, errors = finish(start(tmp_path, *words))
    assert (status, errors) == (0, "") and len(list((tmp_path / "models").glob("*/loss.png"))) == 4
    assert "Unfinished" not in (tmp_path / "results" / "toy" / "report.md").read_text()
    assert all((folder / "loss.png").stat().st_mtime == when for folder, when in done.items())
    assert_as_trained_at_once(tmp_path, halfway)
    table = pd.read_csv(tmp_path / "results" / "toy" / "table.csv").set_index("variant")
    finals = [final(tmp_path, f"toy-base-seed-{seed}") for seed in (0, 1)]
    assert table.bits_per_byte["base"] == pytest.approx(np.mean(finals)) and table.runs["norm=layer"] == 2


def assert_as_trained_at_once(folder: Path, interrupted: Path) -> None:
    """The run is, bit for bit, the one that was never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runs.MODELS", folder / "others")
        cfg = load_config(interrupted / "config.json")
        assert_same_run(Run(interrupted), train.train(cfg, console=QUIET))


@pytest.mark.slow
def test_each_variant_is_judged_at_its_own_best_rate_on_seeds_that_did_not_choose_it(tmp_path):
    words = ("--vary", "train.optimizer=adamw", "--seeds", "1", "--sweep", "train.lr=1e-5,1e-2", "--name", "toy")
    status, said, errors = finish(start(tmp_path, *words, "--jobs", "2"))
    assert (status, errors) == (0, "")
    table = pd.read_csv(tmp_path / "results" / "toy" / "table.csv")
    assert list(table.chosen) == [0.01, 0.01] and list(table.runs) == [1, 1]
    trained = {path.name for path in (tmp_path / "models").iterdir()}
    first = {f"toy-{name}-lr-{rate}-seed-0" for name in ("base", "optimizer-adamw") for rate in ("1e-05", "0.01")}
    later = {f"toy-{name}-lr-0.01-seed-1" for name in ("base", "optimizer-adamw")}
    assert first | later == trained
    assert table.set_index("variant").bits_per_byte["base"] == final(tmp_path, "toy-base-lr-0.01-seed-1")


@pytest.mark.slow
def test_what_diverges_is_told_and_not_tried_again_and_runs_of_another_base_are_not_taken_for_ours(tmp_path):
    words = ("--also", "train.optimizer=sgd train.lr=1e30", "--seeds", "1", "--name", "toy")
    status, said, errors = finish(start(tmp_path, *words))
    page = (tmp_path / "results" / "toy" / "report.md").read_text()
    assert (status, errors) == (0, "") and "optimizer=sgd lr=1e+30: 1 of 1 runs failed: step " in page
    assert len(json.loads((tmp_path / "results" / "toy" / "diverged.json").read_text())) == 1
    status, said, errors = finish(start(tmp_path, *words))
    assert (status, errors) == (0, "") and " of 2  toy" not in said  # nothing was trained
    assert (tmp_path / "results" / "toy" / "report.md").read_text() == page
    status, _, errors = finish(start(tmp_path, *words, "--train.lr", "0.02"))
    assert status == 2 and errors == (
        "error: toy-base-seed-0 is there, and was trained with train.lr=0.01, not 0.02: choose another --name, or "
        "delete it\n")


@pytest.mark.thorough
def test_seconds_are_matched_by_measured_steps(tmp_path):
    words = ("--vary", "model.num_layers=32", "--seeds", "1", "--match", "seconds", "--name", "toy")
    status, said, errors = finish(start(tmp_path, *words))
    assert (status, errors) == (0, "")
    steps = Run(tmp_path / "models" / "toy-num_layers-32-seed-0").config.train.steps
    assert 1 <= steps < 60  # which the base takes, sixteen times as shallow
    assert len(json.loads((tmp_path / "results" / "toy" / "timing.json").read_text())) == 2
