"""What is read of the values of a tensor: statistics and a checksum, at once or, on an accelerator, later."""

import torch
from torch import Tensor

from tracing import checksums, measure
from tracing.records import Value


class Readings:
    """Puts the statistics and checksums of tensors into their records."""

    def __init__(self, *, stats: str, max_elems: int):
        self.stats, self.max_elems = stats, max_elems
        self.late_stats: list[tuple[dict, Tensor]] = []
        self.late_sums: list[tuple[list[Value], Value, Tensor]] = []

    def read(self, x: Tensor, value: Value, records: list[Value]) -> None:
        """Fill in `value`, one of the records of x; what would make the CPU wait is filled in by `settle`."""
        if self.stats == "none":
            return
        with torch._C._DisableTorchDispatch():  # hides this from users' modes, and from our own
            if measure.readable(x):
                value.stats = self.statistics(x)
            if not checksums.has_bytes(x):
                return
            if at_hand(x):
                value.checksum = checksums.written(checksums.checksum(x))
            else:
                self.late_sums.append((records, value, checksums.checksum_later(x)))

    def statistics(self, x: Tensor) -> dict:
        """The numbers of measure.py, as `stats` wants them."""
        if at_hand(x):
            stats = measure.measure(x, self.max_elems)
        else:
            stats = dict.fromkeys(measure.NAMES, 0.0)
            self.late_stats.append((stats, measure.measure_later(x, self.max_elems)))
        if self.stats == "full":
            stats |= measure.details(x, self.max_elems)  # in place: `settle` fills in this very dict
        return stats

    def settle(self) -> None:
        """Fetch the numbers that are still on an accelerator, for all records made of one reading."""
        for stats, numbers in self.late_stats:
            stats.update(zip(measure.NAMES, numbers.tolist(), strict=True))
        for records, value, number in self.late_sums:
            text = checksums.written(number.item())
            for record in records:
                if record.stats is value.stats:
                    record.checksum = text
        self.late_stats.clear()
        self.late_sums.clear()


def at_hand(x: Tensor) -> bool:
    """Whether the values of x can be read without waiting for an accelerator."""
    return x.is_cpu
