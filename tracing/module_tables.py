"""Tables of modules: what a trace measured, and the parameters of a model."""

from collections import Counter, defaultdict

from torch import nn

from tracing.formats import amount, duration

COLUMNS = ("part", "kind", "parameters", "share", "calls", "flops", "output_bytes", "seconds")


def module_rows(trace) -> list[dict]:
    """Per module: path, kind, parameters, calls, flops, output_bytes, seconds."""
    rows = {
        path: {"path": path, "kind": part.kind, "parameters": part.parameters, "calls": 0,
               "flops": 0, "output_bytes": 0, "seconds": 0.0}
        for path, part in trace.parts.items()
    }  # fmt: skip
    for call in trace.walk():
        if call.method == "forward":
            row = rows[call.path]
            row["calls"] += 1
            row["flops"] += call.flops
            row["output_bytes"] += call.output_bytes
            row["seconds"] += call.seconds
    return list(rows.values())


def table(trace, columns, depth: int | None) -> str:
    """One row per module that ran or has parameters; from the second on, like layers share a row."""
    unknown = [c for c in columns if c not in COLUMNS]
    if unknown:
        raise ValueError(f"columns={unknown[0]!r} is not known: use some of {', '.join(COLUMNS)}")
    rows = {row["path"]: row for row in trace.rows()}
    below = defaultdict(list)
    for path, row in rows.items():
        if path and (row["calls"] or row["parameters"]):
            below[path.rpartition(".")[0]].append(path)
    lines = [list(columns)]

    def visit(paths: list[str], level: int) -> None:
        """Add a row for the sum of `paths`, then rows for the children of a single one."""
        cells = table_cells([rows[path] for path in paths], level, rows[""]["parameters"])
        lines.append([cells[c] for c in columns])
        if len(paths) == 1 and (depth is None or level < depth):
            for group in like_layers(below[paths[0]], rows, below):
                visit(group, level + 1)

    visit([""], 0)
    return grid(lines, left={"part", "kind"})


def like_layers(paths: list[str], rows: dict, below: dict) -> list[list[str]]:
    """The paths in groups; layers that cost the same as the layer before them share a group."""
    def cost(path: str) -> tuple:
        values = tuple(x for key, x in rows[path].items() if key not in ("path", "seconds"))
        return values, tuple(cost(child) for child in below[path])

    groups: list[list[str]] = []
    for i, path in enumerate(paths):
        repeats = i and path[-1].isdigit() and cost(path) == cost(paths[i - 1])
        if repeats and len(groups) > 1 and cost(groups[-1][0]) == cost(groups[-2][0]):
            groups[-1].append(path)
        else:
            groups.append([path])
    return groups


def table_cells(rows: list[dict], level: int, total: int) -> dict[str, str]:
    """The cells of one row, for one module or the sum of several."""
    first, last = (row["path"].rpartition(".")[2] or row["kind"] for row in (rows[0], rows[-1]))
    sums = {key: sum(row[key] for row in rows)
            for key in ("parameters", "calls", "flops", "output_bytes", "seconds")}  # fmt: skip
    return {
        "part": "  " * level + (first if len(rows) == 1 else f"{first} … {last}"),
        "kind": rows[0]["kind"] if len(rows) == 1 else f"{len(rows)} × {rows[0]['kind']}",
        "parameters": f"{sums['parameters']:,}",
        "share": f"{100 * sums['parameters'] / (total or 1):.1f} %",
        "calls": str(sums["calls"]),
        "flops": amount(sums["flops"], "FLOP") if sums["flops"] else "",
        "output_bytes": amount(sums["output_bytes"], "B") if sums["calls"] else "",
        "seconds": duration(sums["seconds"]) if sums["calls"] else "",
    }


def grid(rows: list[list[str]], left: set[str]) -> str:
    """Rows under their header; columns in `left` are left-aligned, others right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(w) if head in left else cell.rjust(w)
                  for cell, w, head in zip(row, widths, rows[0], strict=True)).rstrip()
        for row in rows
    ]  # fmt: skip
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def parameter_table(model: nn.Module, depth: int = 3) -> str:
    """Parameters of every part and their share, to `depth`; layers of one kind share a row.

    A shared parameter counts at its first module; at others the table says "= embed.weight".
    """
    own, shared = _first_owners(model)
    total = sum(own.values())
    rows = [["part", "kind", "parameters", "share", ""]]

    def visit(name: str, modules: list[nn.Module], level: int) -> None:
        everything = [part for module in modules for part in module.modules()]
        count = sum(own.get(part, 0) for part in everything)
        again = dict.fromkeys(x for part in everything for x in shared.get(part, ()))
        if not count and not again:
            return
        kind = type(modules[0]).__name__
        kind = f"{len(modules)} × {kind}" if len(modules) > 1 else kind
        note = f"= {', '.join(again)}" if again and not count else ""
        share = f"{100 * count / total:.1f} %"
        rows.append(["  " * level + name, kind, f"{count:,}", share, note])
        if level < depth:
            for child_name, children in _children(modules):
                visit(child_name, children, level + 1)

    visit(type(model).__name__, [model], 0)
    return grid(rows, left={"part", "kind", ""})


def _first_owners(model: nn.Module) -> tuple[dict, dict]:
    """Per module: the number of parameters that count there, and the names of those that count elsewhere."""
    names, own, shared = {}, Counter(), defaultdict(list)
    for path, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) in names:
                shared[module].append(names[id(p)])
            else:
                names[id(p)] = f"{path}.{name}".strip(".")
                own[module] += p.numel()
    return own, shared


def _children(modules: list[nn.Module]):
    """(name, modules) of the children; those of a ModuleList in groups of one kind."""
    for name, child in modules[0].named_children():
        siblings = [module.get_submodule(name) for module in modules]
        if not isinstance(child, nn.ModuleList):
            yield name, siblings
            continue
        groups = defaultdict(list)
        for i, layer in ((i, layer) for layers in siblings for i, layer in enumerate(layers)):
            shapes = tuple((key, p.shape) for key, p in layer.named_parameters())
            groups[type(layer), shapes].append((i, layer))
        for group in groups.values():
            numbers = sorted({i for i, _ in group})
            many = ", ".join(map(str, numbers))
            if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
                many = f"{numbers[0]} … {numbers[-1]}"
            yield f"{name}.{many}", [layer for _, layer in group]
