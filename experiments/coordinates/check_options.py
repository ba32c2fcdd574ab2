"""The options of a coordinate check."""

from pathlib import Path

from pydantic.dataclasses import dataclass

from config import CHECKED, Scaling
from configuration.checks import require_folder_name, words_of
from run_store.listing import RESULTS


@dataclass(frozen=True, kw_only=True, config=CHECKED)
class CheckOptions:
    """Which models to compare; the flags after these are those of the narrowest one."""

    scalings: tuple[Scaling, ...] = ("standard", "mup")  # words of model.scaling, each with a line of its own
    widths: tuple[int, ...] = (64, 128, 256, 512)  # of the stream: multiples of model.dim, with which other widths grow; none given = no check of widths
    depths: tuple[int, ...] = ()  # numbers of layers, at model.dim; none given = no check of depths
    steps: int = 4  # of training; the numbers after the last are compared
    seeds: int = 2  # of the weights, from train.seed on; the mean over them counts
    name: str = "coordinate-check"  # of the results' folder

    @property
    def folder(self) -> Path:
        return RESULTS / self.name

    @property
    def axes(self) -> tuple[str, ...]:
        """What is changed: the width, the depth, or first one and then the other."""
        return tuple(axis for axis, sizes in (("width", self.widths), ("depth", self.depths)) if sizes)

    def sizes(self, axis: str) -> tuple[int, ...]:
        return self.widths if axis == "width" else self.depths

    def __post_init__(self):
        for name in ("steps", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("widths", "depths"):
            values = getattr(self, name)
            if values and (len(set(values)) < 2 or len(set(values)) < len(values) or min(values) < 1):
                raise ValueError(f"{name}={words_of(values)} must be two or more different numbers: a slope needs them")
        if not self.scalings or len(set(self.scalings)) < len(self.scalings):
            raise ValueError(f"scalings={words_of(self.scalings)} must name one or more, each once")
        if not self.axes:
            raise ValueError("widths=() and depths=() leave nothing to compare: give one of them")
        require_folder_name("name", self.name)
