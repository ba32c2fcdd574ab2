"""Record what a model does: trace() and its result, shapes() without data, live logging."""

from tracing.api import trace
from tracing.live import LIVE
from tracing.records import Call, NonFinite, Part, Value
from tracing.result import Trace
from tracing.swap import is_watched
from tracing.symbolic import shapes

__all__ = ["LIVE", "Call", "NonFinite", "Part", "Trace", "Value", "is_watched", "shapes", "trace"]
