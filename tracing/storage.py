"""Traces as JSON files, lossless."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tracing.records import Call, NonFinite, Part, Value

SCHEMA = 1


def to_dict(trace) -> dict[str, Any]:
    """All that a trace holds, as plain values."""
    return {
        "schema": SCHEMA,
        "torch": trace.torch_version,
        "dims": trace.dims,
        "calls": [asdict(call) for call in trace.calls],
        "parts": {path: asdict(part) for path, part in trace.parts.items()},
        "silent": trace.silent,
        "notes": trace.notes,
        "backward_origin": trace.backward_origin and asdict(trace.backward_origin),
    }


def dump(trace) -> str:
    """A trace as strict JSON."""
    return json.dumps(_plain(to_dict(trace)), allow_nan=False)


def load(path: str | Path) -> dict[str, Any]:
    """The attributes of the trace in a file. Raises ValueError for another schema."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    if data.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {data.get('schema')}: this code reads {SCHEMA}")
    return {
        "torch_version": data["torch"],
        "dims": {k: _tuple(v) for k, v in data["dims"].items()},
        "calls": [_load_call(call) for call in data["calls"]],
        "parts": {path: Part(**part) for path, part in data["parts"].items()},
        "silent": {path: (count, dead) for path, (count, dead) in data["silent"].items()},
        "notes": data["notes"],
        "backward_origin": data["backward_origin"] and NonFinite(**data["backward_origin"]),
    }


def _plain(x):
    """Values of strict JSON: NaN and Inf become {"float": "nan"}."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, float) and not math.isfinite(x):
        return {"float": str(x)}
    return x


def _rich(x):
    if isinstance(x, dict):
        return float(x["float"]) if x.keys() == {"float"} else {k: _rich(v) for k, v in x.items()}
    return [_rich(value) for value in x] if isinstance(x, list) else x


def _tuple(x):
    return tuple(x) if isinstance(x, list) else x


def _load_call(data: dict) -> Call:
    values = {
        side: [
            Value(**{**value, "shape": _tuple(value["shape"]), "labels": tuple(value["labels"]),
                     "stats": _rich(value["stats"])})
            for value in data[side]
        ]
        for side in ("inputs", "outputs")
    }  # fmt: skip
    children = [_load_call(child) for child in data["children"]]
    norms = _rich(data["grad_norms"])
    return Call(**{**data, **values, "children": children, "grad_norms": norms})
