"""A trace as one static HTML page: nested and collapsible, without scripts."""

from html import escape

from tracing.folding import Fold, fold
from tracing.formats import amount, axis_text, duration, is_origin, number, short_name
from tracing.render import remarks

WORDS = {
    "b": "batch", "t": "time", "s": "source (keys)", "d": "residual width", "h": "heads",
    "g": "key/value heads", "p": "head width", "f": "MLP width", "n": "state", "e": "experts",
    "v": "vocabulary",
}  # fmt: skip
HUES = {"b": 265, "t": 212, "s": 187, "d": 30, "h": 340, "g": 310, "p": 135, "f": 90, "n": 160,
        "e": 0, "v": 50}  # fmt: skip
OTHER_HUE = 230

STYLE = """
.trace{--ink:#1c2230;--soft:#667085;--line:#e3e7ee;--paper:#fff;--wash:#f6f8fb;--bad:#c62828;
 --tone:92%;--word:30%;color:var(--ink);background:var(--paper);
 font:14px/1.5 system-ui,"Segoe UI",Roboto,sans-serif;text-align:left}
@media(prefers-color-scheme:dark){.trace{--ink:#e6e9f0;--soft:#98a2b3;--line:#2c3442;
 --paper:#12161e;--wash:#1a202b;--bad:#ff7b72;--tone:20%;--word:80%}}
.trace *{box-sizing:border-box}
.trace h1{font-size:22px;margin:0 0 10px;font-weight:650}
.trace .cards,.trace .key{display:flex;flex-wrap:wrap;gap:8px 22px;margin:0 0 12px}
.trace .cards div{min-width:72px}
.trace .cards b{display:block;font-size:17px;font-weight:600}
.trace .cards span,.trace .key>span{color:var(--soft);font-size:12px}
.trace .key{gap:5px 14px;align-items:center}
.trace .note{border-left:3px solid #d69e2e;background:var(--wash);padding:6px 12px;margin:0 0 8px}
.trace .bad{color:var(--bad);border-color:var(--bad);font-weight:600}
.trace .tree{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
.trace .tree>div{min-width:980px}
.trace summary,.trace .head{display:grid;align-items:baseline;cursor:pointer;list-style:none;
 grid-template-columns:minmax(90px,1fr) 370px 190px 92px 78px;gap:10px;padding:3px 12px 3px 8px}
.trace summary::-webkit-details-marker{display:none}
.trace summary:hover{background:var(--wash)}
.trace .head{cursor:default;color:var(--soft);font-size:12px;background:var(--wash);
 border-bottom:1px solid var(--line);padding-top:6px;padding-bottom:6px}
.trace .who{white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.trace .who::before{content:"";display:inline-block;width:15px}
.trace summary>.who::before{content:"\\25B8";color:var(--soft)}
.trace details[open]>summary>.who::before{content:"\\25BE"}
.trace .who b{font:600 13px/1.5 ui-monospace,Menlo,Consolas,monospace}
.trace .who i,.trace .soft{color:var(--soft);font-style:normal;font-size:12.5px}
.trace .num{text-align:right;line-height:22px;white-space:nowrap;font-variant-numeric:tabular-nums;
 color:var(--soft);font-size:12.5px}
.trace .in{margin-left:15px;border-left:1px solid var(--line)}
.trace .shape{white-space:nowrap;font:12.5px/22px ui-monospace,Menlo,Consolas,monospace}
.trace .shape em{font-style:normal;color:var(--soft);display:inline-block;min-width:3.2ch;
 margin-right:4px}
.trace .ax{display:inline-block;padding:0 6px;margin-right:3px;border-radius:4px;
 background:hsl(var(--h) 70% var(--tone));color:hsl(var(--h) 65% var(--word))}
.trace .ax.plain{background:var(--wash);color:var(--ink)}
.trace .ax.unsure{outline:1px dashed currentColor;outline-offset:-1px}
.trace .values{margin:2px 12px 8px 23px;border-collapse:collapse;font-size:12.5px;width:auto}
.trace .values th{font-weight:500;color:var(--soft);text-align:right;padding:2px 9px;border:0}
.trace .values td{text-align:right;padding:1px 9px;border:0;border-top:1px solid var(--line);
 font-variant-numeric:tabular-nums;background:none}
.trace .values :is(th,td):nth-child(-n+4){text-align:left}
.trace .hist{display:inline-flex;align-items:flex-end;height:16px;gap:1px}
.trace .hist s{width:4px;background:hsl(212 70% 55%);min-height:1px}
.trace .takes{opacity:.75}
.trace .takes .ax{background:none;padding:0 2px}
.trace .fold>summary{grid-template-columns:1fr;color:var(--soft)}
"""


def page(trace) -> str:
    """A complete document."""
    kind = trace.parts[""].kind if trace.parts else "model"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'><meta name=color-scheme "
        f"content='light dark'><title>{escape(kind)}: trace</title>"
        "<style>body{margin:0}body>.trace{min-height:100vh;padding:24px}</style>"
        f"{fragment(trace)}</html>"
    )


def fragment(trace) -> str:
    """The element that a notebook shows."""
    head = "".join(
        f"<span{' class=num' if i > 1 else ''}>{name}</span>"
        for i, name in enumerate(("call", "result", "range and deviation", "FLOPs", "time"))
    )
    calls = "".join(call_html(call, None, trace.first_nonfinite) for call in trace.calls)
    return (
        f"<div class=trace><style>{STYLE}</style>{top(trace)}"
        f"<div class=tree><div><div class=head>{head}</div>{calls}</div></div></div>"
    )


def top(trace) -> str:
    """Name, totals, legend of the letters, remarks."""
    root = trace.parts.get("")
    calls = list(trace.walk())
    cards = {
        "parameters": f"{root.parameters:,}" if root else "",
        "forward": amount(sum(call.flops for call in trace.calls), "FLOP"),
        "time": duration(sum(call.seconds for call in trace.calls)),
        "calls": f"{len(calls):,}",
    }
    letters = {x for call in calls for v in call.outputs for label in v.labels if label
               for x in label.replace("|", "*").split("*")}  # fmt: skip
    key = "".join(f"<span>{axis(x, x)}{words}</span>" for x, words in WORDS.items()
                  if x in letters)  # fmt: skip
    notes = "".join(
        f"<div class='note{' bad' if '✗' in line or 'stopped' in line else ''}'>{escape(line)}</div>"
        for line in remarks(trace)
    )
    numbers = "".join(f"<div><b>{x}</b><span>{name}</span></div>" for name, x in cards.items())
    title = escape(root.kind) if root else "Trace"
    return f"<h1>{title}</h1><div class=cards>{numbers}</div><div class=key>{key}</div>{notes}"


def call_html(call, parent, origin) -> str:
    """A call and all below it; closed if there is nothing but arguments and results."""
    kind = call.kind if call.method == "forward" else call.title
    tags = ["recomputed"] * call.recompute + ["✗ first NaN or Inf"] * is_origin(call, origin)
    trouble = "".join(f"<div class='note bad'>{escape(x)}</div>"
                      for x in (call.problem, call.exception) if x)  # fmt: skip
    is_open = " open" if call.children or trouble else ""
    tensors = [v for v in call.outputs if v.shape is not None]
    results = "<br>".join(shape(v) for v in tensors)
    ranges = "<br>".join(range_html(v.stats) for v in tensors if v.stats)
    children = "".join(
        fold_html(item, call, origin) if isinstance(item, Fold) else call_html(item, call, origin)
        for item in fold(call.children, call)
    )
    name = escape(short_name(call, parent))
    described = escape(" · ".join(filter(None, (kind, *tags)))) if kind != name else ""
    values = values_html(call)
    if children:
        taken = "<br>".join(shape(v) for v in call.inputs if v.shape is not None)
        values = (
            "<details class=takes><summary><span class='who soft'>takes</span>"
            f"<span class=shape>{taken}</span></summary>{values}</details>"
        )
    return (
        f"<details{is_open}><summary><span class='who{' bad' * is_origin(call, origin)}'><b>{name}</b>"
        f" <i>{described}</i></span><span class=shape>{results}</span><span class=num>{ranges}</span>"
        f"<span class=num>{amount(call.flops) if call.flops else ''}</span>"
        f"<span class=num>{duration(call.seconds)}</span></summary>"
        f"<div class=in>{trouble}{values}{children}</div></details>"
    )


def range_html(stats: dict) -> str:
    return f"{number(stats['min'])} … {number(stats['max'])} &nbsp;σ {number(stats['std'])}"


def fold_html(folded: Fold, parent, origin) -> str:
    """Repeated calls behind one line."""
    first, last = (escape(short_name(folded.calls[i], parent)) for i in (0, -1))
    names = first if first == last else f"{first} … {last}"
    inside = "".join(call_html(call, parent, origin) for call in folded.calls)
    return (
        f"<details class=fold><summary><span class=who><b>{names}</b> <i>{folded.text}</i></span>"
        f"</summary>{inside}</details>"
    )


def values_html(call) -> str:
    """A table of all arguments and results."""
    full = any("histogram" in v.stats for v in (*call.inputs, *call.outputs))
    heads = ["", "name", "dtype", "shape", "min", "max", "mean", "std"]
    heads += ["zeros", "values"] if full else []
    heads += ["gradient"] if call.grad_norms else []
    rows = []
    for side, values in (("in", call.inputs), ("out", call.outputs)):
        for v in values:
            cells = [f"<span class=soft>{side}</span>", escape(v.name), escape(v.dtype)]
            cells.append(escape(v.text) if v.shape is None else shape(v, named=False))
            cells += [number(v.stats[k]) if v.stats else "" for k in heads[4:8]]
            if full:
                zeros = v.stats.get("zeros")
                cells += ["" if zeros is None else f"{100 * zeros:.3g} %", histogram(v.stats)]
            if call.grad_norms:
                norm = call.grad_norms.get(v.name) if side == "out" else None
                cells.append("" if norm is None else number(norm))
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table class=values><tr>{head}</tr>{''.join(rows)}</table>"


def shape(value, named: bool = True) -> str:
    """A colored chip per axis."""
    name = f"<em>{escape(value.name)}</em>" if named and value.name else ""
    axes = [axis(label, axis_text(label, size))
            for label, size in zip(value.labels, value.shape, strict=True)]  # fmt: skip
    return f"<span class=shape>{name}{''.join(axes) or 'scalar'}</span>"


def axis(label: str | None, text: str) -> str:
    if label is None:
        return f"<span class='ax plain'>{escape(text)}</span>"
    hue = HUES.get(label.rpartition("|")[0][:1] or label[-1], OTHER_HUE)
    unsure = " unsure" if "|" in label else ""
    return f"<span class='ax{unsure}' style='--h:{hue}'>{escape(text)}</span>"


def histogram(stats: dict) -> str:
    bins = stats.get("histogram") or []
    top = max(bins, default=0) or 1
    bars = "".join(f"<s style='height:{100 * n / top:.0f}%'></s>" for n in bins)
    return f"<span class=hist>{bars}</span>"
