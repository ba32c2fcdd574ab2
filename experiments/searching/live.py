"""A live table of a search in a notebook."""

import io
import math
import time

from IPython.display import HTML, display
from rich.console import Console

from experiments.searching.display import picture
from experiments.searching.loop import Snapshot
from experiments.searching.options import Options

EVERY_SECONDS = 0.5
WIDTH = 110  # characters


class LiveTable:
    """For `search(..., on_change=LiveTable(options))`: each snapshot replaces the one before."""

    def __init__(self, options: Options):
        self._options, self._drawn = options, -math.inf
        self._place = display(HTML(""), display_id=True)

    def __call__(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if snapshot.running and now - self._drawn < EVERY_SECONDS:
            return
        self._drawn = now
        console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False)
        console.print(picture(snapshot, self._options))
        self._place.update(HTML(console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")))
