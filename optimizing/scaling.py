"""The rates of wide and deep models, from those of the base of model.scaling: a factor for each parameter."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Factors(NamedTuple):
    """Factors on the learning rate and the weight decay of a parameter."""

    lr: float = 1.0
    decay: float = 1.0


def of_adam(role: str, growth: Any, m: float) -> Factors:
    """Steps of one size: the rate falls as the inputs grow, and the decay rises, so that their product stays.

    Embedding and head keep theirs: the head reads less, by a factor of the forward pass.
    Yang et al. 2022, arXiv:2203.03466; decay: Dey et al. 2025, arXiv:2505.01618.
    """
    slower = 1.0 if role in ("embedding", "head") else m**-growth.powers.inputs
    return Factors(slower, 1 / slower)


def of_sgd(role: str, growth: Any, m: float) -> Factors:
    """Steps as large as the gradient: the rate goes with outputs / inputs. Yang et al. 2022, arXiv:2203.03466.

    A head, whose inputs are divided by their growth in the forward pass, goes with its size, as an embedding does.
    """
    inputs = 0.0 if role in ("embedding", "head") else growth.powers.inputs
    faster = m ** (growth.powers.size - 2 * inputs)
    return Factors(faster, 1 / faster)


def of_muon(role: str, growth: Any, m: float) -> Factors:
    """Matrices: steps whose spectral norm goes with the root of outputs / inputs. All else: as Adam.

    Yang et al. 2023, arXiv:2310.17813. The optimizer's own steps have a norm of 0.2 lr sqrt(max(outputs, inputs)). What
    decay takes away in a step falls with the inputs, arXiv:2512.05620.
    """
    if role != "matrix":
        return of_adam(role, growth, m)
    fans, more_inputs, more_outputs = growth.fans, m**growth.powers.inputs, m**growth.powers.outputs
    usual = max(fans.outputs / more_outputs, fans.inputs / more_inputs) / max(fans.outputs, fans.inputs)
    slower = (usual * more_outputs / more_inputs) ** 0.5
    return Factors(slower, 1 / (slower * more_inputs))


# by optimizer: role of a parameter, growth with the width (modules/scaling.py), and m, the width / that of the base
RULES: dict[str, Callable[[str, Any, float], Factors]] = {
    "adamw": of_adam, "adam": of_adam, "lion": of_adam, "schedule_free": of_adam, "muon": of_muon, "sgd": of_sgd}
