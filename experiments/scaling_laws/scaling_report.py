"""The report on a scaling study.

    experiments/results/<name>/
        report.md     findings, the law, the best sizes     points.csv   every run in full precision
        scaling.png   the losses and the law                fit.json     the law in full precision
        logs/         the output of each process
"""

import json
import shlex
from collections.abc import Sequence
from typing import Any

from experiments.common.reports import bullets, csv_text, fenced, markdown_table, plain, write_picture
from experiments.scaling_laws.conclusions import Conclusions, Fit, bend, conclude, points_of, unmeasured, why_not
from experiments.scaling_laws.law import Law
from experiments.scaling_laws.scaling_options import ScalingOptions
from experiments.scaling_laws.scaling_pictures import draw_study
from experiments.scaling_laws.studying import Study
from run_store.atomic_files import write_text
from run_store.listing import shown

POINTS, FIT = "points.csv", "fit.json"
MAX_PASSES = 4  # over a text, beyond which another pass is worth less than new text. arXiv:2305.16264
MOST_NAMED = 5  # runs
READING = ("N: parameters in matrices and the head, without the embedding (if it is not the head) and vectors; of "
           "experts those that a token uses. D: training tokens without padding. FLOPs are counted, not 6 N D. The "
           "loss is in bits per byte of the same held-out text for all. The fit has the least squares of relative "
           "residuals; intervals are of 95 %, by a bootstrap of residuals in which the runs of a size share an error.")


def write_report(options: ScalingOptions, study: Study, command: Sequence[str]) -> str:
    """Write the results of a study into its folder, over older ones, and return what to print."""
    entropy, reason = study.entropy, why_not(study.points)
    found = None if reason else conclude(study.points, entropy if options.entropy == "known" else None)
    said = [*unfinished(study), *([f"{reason[0].upper()}{reason[1:]}."] if reason else findings(found, entropy, study)),
            *remarks(options, study, found)]
    options.folder.mkdir(parents=True, exist_ok=True)
    write_text(options.folder / POINTS, csv_text(study.points, index=False))
    write_text(options.folder / FIT, json.dumps(as_json(study, found), indent=1) + "\n")
    title = f"{options.name}: {len(study.points)} runs, {study.points['size'].nunique()} sizes"
    write_picture(options.folder / "scaling.png", draw_study(study.points, found, entropy, title), dpi=90)
    page = [f"# {options.name}", fenced(f"python experiments/scaling.py {shlex.join(command)}"),
            bullets(map(plain, said)), "![losses and the law](scaling.png)", *sections(options, study, found)]
    write_text(options.folder / "report.md", "\n\n".join(page) + "\n")
    return "\n".join([*said, f"the report: {shown(options.folder / 'report.md')}"])


# ---- findings ----


def unfinished(study: Study) -> list[str]:
    """Which runs are missing, and which have failed."""
    said = []
    if names := [run.name for run in study.missing]:
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        said.append(f"Unfinished: {len(names)} {'run is' if len(names) == 1 else 'runs are'} still to be trained: "
                    f"{', '.join(names[:MOST_NAMED])}{more}.")
    return said + [f"Without {name}, which has failed: {reason}." for name, reason in study.failures.items()]


def findings(found: Conclusions, entropy: float | None, study: Study) -> list[str]:
    """The law, whether it holds, what is left in the end, how well it predicts, and how to spend a budget."""
    law, sure = found.free.law, found.free.ranges
    said = [f"bits per byte = E + A / N^a + B / D^b with E = {law.E:.4f} ({spell(sure['E'])}), "
            f"a = {law.a:.3f} ({spell(sure['a'], 3)}), b = {law.b:.3f} ({spell(sure['b'], 3)}); a run lies within "
            f"{found.free.scatter:.2%} of it (one standard deviation)."]
    said += filter(None, [bend(study.points, found.free)])
    if entropy is not None and law.E > 0:
        low, high = sure["E"]
        said.append(f"The entropy of the text, {entropy:.4f}, lies {'inside' if low <= entropy <= high else 'outside'} "
                    f"the interval of E, which reaches {low / entropy - 1:+.1%} to {high / entropy - 1:+.1%} of it.")
    if found.known:
        law, sure = found.known.law, found.known.ranges
        said.append(f"With E at the entropy: a = {law.a:.3f} ({spell(sure['a'], 3)}), b = {law.b:.3f} "
                    f"({spell(sure['b'], 3)}).")
    if one := found.left_out:
        inside = "inside" if one.low <= one.measured <= one.high else "outside"
        said.append(f"The law of all other runs predicts {one.predicted:.4f} ({one.low:.4f} to {one.high:.4f}) for the "
                    f"largest one, {one.size:,.0f} parameters and {one.tokens:,.0f} tokens; it has {one.measured:.4f}, "
                    f"{inside} the interval: an error of {one.error:+.2%}.")
    power, *ends = found.growth
    return [*said, f"With ten times the FLOPs the best size grows by a factor of {10**power:.2g} "
                   f"({10**ends[0]:.2g} to {10**ends[1]:.2g}), and the tokens with the rest."]


def remarks(options: ScalingOptions, study: Study, found: Conclusions | None) -> list[str]:
    """What the runs do not tell, and what may have spoiled them."""
    said = unmeasured(found.free, points_of(study.points)) if found else []
    if text := study.data["train_tokens"]:
        passes = study.points.tokens.max() / text
        if passes > 1:
            less = f": beyond {MAX_PASSES} times that is worth less than new text" if passes > MAX_PASSES else ""
            said.append(f"The longest runs read the text {passes:.1f} times, and D counts every time{less}.")
    rates = list(study.swept)
    best = min(study.swept, key=study.swept.get) if rates else None
    if best in (min(rates, default=0), max(rates, default=0)) and len(rates) > 1:
        said.append(f"The best rate of the sweep, {best:g}, is the {'smallest' if best == min(rates) else 'largest'} "
                    "that was tried: one beyond may be better.")
    if options.seeds == 1 and found:
        said.append("One seed: the scatter is that of the runs around the law, whatever its cause.")
    return said


def spell(ends: tuple[float, float], digits: int = 4) -> str:
    return f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


# ---- the page ----


def sections(options: ScalingOptions, study: Study, found: Conclusions | None) -> list[str]:
    """The page below the picture."""
    rows = [{"size": size.label, "N": f"{size.parameters:,}", "FLOPs a token": f"{size.flops:,.0f}",
             "learning rate": f"{study.rates[size.label]:g}"} | losses(study, size.label) for size in study.sizes]
    rules = [*rate_rule(options, study), *batch_rule(options)]
    runs = ["## The losses", markdown_table(rows), READING, "## The learning rates", bullets(rules)]
    if found is None:
        return runs
    best = [{"FLOPs": f"{one.flops:.3g}", "best N": f"{one.size:,.0f}", "D": f"{one.tokens:,.0f}",
             "tokens a parameter": f"{one.tokens / one.size:.2g}", "bits per byte": f"{one.loss:.4f}",
             "": "" if one.is_inside else "at the edge of the sizes: the best may lie beyond"} for one in found.optima]
    return ["## The law", markdown_table(law_rows(found)), *runs, "## The best size for a budget", markdown_table(best)]


def losses(study: Study, label: str) -> dict[str, str]:
    """The mean loss of a size at each number of tokens."""
    mine = study.points[study.points["size"] == label]
    means = mine.groupby("for_tokens").bits_per_byte.mean()
    return {f"{tokens:,} tokens": f"{means[tokens]:.4f}" if tokens in means else ""
            for tokens in sorted(study.points.for_tokens.unique())}


def law_rows(found: Conclusions) -> list[dict[str, str]]:
    """The parameters of both fits with their intervals."""
    rows = []
    for name in Law._fields:
        row = {"parameter": name}
        for title, fit in (("fitted", found.free), ("with E at the entropy", found.known)):
            if fit is not None:
                row |= {title: f"{getattr(fit.law, name):.4g}", f"{title}, 95 % interval":
                        "{:.4g} to {:.4g}".format(*fit.ranges[name]) if name != "E" or fit is found.free else "given"}
        rows.append(row)
    return rows


def rate_rule(options: ScalingOptions, study: Study) -> list[str]:
    """How each size has come to its learning rate."""
    if study.rate_power is None:
        return ["Those of --rates, one for each size."]
    first = study.sizes[0].label
    tried = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in study.swept.items())
    return [f"{study.rates[first]:g} for {first}, the best of a sweep on the middle number of tokens (bits per byte "
            f"{tried})." if tried else "train.lr is that of a model as wide as the base.",
            f"A model w times as wide has a rate / w^{study.rate_power:g}."]


def batch_rule(options: ScalingOptions) -> list[str]:
    """The batch of each number of tokens, if they differ."""
    pairs = ", ".join(f"{options.batch_for(tokens)} for {tokens:,}" for tokens in options.token_counts)
    return [f"Rows of a batch, for each number of tokens: {pairs}."] if options.batches else []


def as_json(study: Study, found: Conclusions | None) -> dict[str, Any]:
    """The law in full precision, and what identifies the text."""
    text = {name: study.data[name] for name in ("name", "fingerprint", "val_bytes", "floor_bits_per_byte")}
    fits = {"free": None, "known": None} if found is None else {"free": found.free, "known": found.known}
    return {"text": text, "runs": len(study.points), "missing": [run.name for run in study.missing],
            "failed": study.failures, "rates": study.rates,
            **{name: fit and fit_json(fit) for name, fit in fits.items()},
            "left_out": found and found.left_out and vars(found.left_out) | {"error": found.left_out.error},
            "best": [one._asdict() for one in found.optima] if found else []}


def fit_json(fit: Fit) -> dict[str, Any]:
    return {"scatter": fit.scatter} | {name: {"value": value, "low": fit.ranges[name][0], "high": fit.ranges[name][1]}
                                       for name, value in fit.law._asdict().items()}
