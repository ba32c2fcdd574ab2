"""What the losses of trials are, if their objectives differ: those of a text, bounds of these, or of a part of it."""

from collections.abc import Sequence

import optuna

from config import from_dict
from configuration.objectives import FACTS, Facts, facts_of, is_loss
from experiments.searching.outcomes import columns, flags
from experiments.searching.space import Space

FLAG = "train.objective"


def require_one_text(judged_by: Sequence[str], space: Space) -> None:
    """Raise ValueError if trials are judged by losses, and the objectives that are searched have those of other texts.

    A bound is of the same text as an exact loss: the report says which is one.
    """
    words = space.parameters[FLAG].extremes() if FLAG in space.parameters else []
    texts: dict[str, str] = {}  # and the first objective that is of each
    for word in words:
        texts.setdefault(FACTS[word].on(pairs=space.base.data.is_pairs).of or "the whole text", word)
    judged = [column for column in judged_by if is_loss(column) or column == "accuracy"]
    if judged and len(texts) > 1:
        said = ", ".join(f"of {text} with {FLAG}={word}" for text, word in texts.items())
        raise ValueError(f"objective={judged[0]} is {said}, which do not compare: search each apart, or judge trials "
                         "by another objective")


def meanings(results: optuna.Study) -> str:
    """What losses of the trials are not those of the whole text; "" if trials are judged by other columns."""
    if not any(map(is_loss, columns(results))):
        return ""
    found = {(word, facts.meaning) for word, facts in _facts(results).values() if facts.meaning}
    return "".join(f" The loss of {word} is {meaning}." for word, meaning in sorted(found))


def signs_before(results: optuna.Study) -> dict[int, list[str]]:
    """What stands before the values of each trial, by its number: ≤ if a loss is a bound, ≠ if not of all the text."""
    return {number: [facts.sign * is_loss(column) for column in columns(results)]
            for number, (_, facts) in _facts(results).items()}


def _facts(results: optuna.Study) -> dict[int, tuple[str, Facts]]:
    """The objective of each trial, by its number, and what it is like; of an invalid word, those of the base."""
    base, found = from_dict(results.user_attrs["base"]), {}
    for trial in results.get_trials(deepcopy=False):
        changed = flags(trial)
        word = changed.get(FLAG) if changed.get(FLAG) in FACTS else base.train.objective
        block_len = changed.get("train.diffusion.block_len", base.train.diffusion.block_len)
        found[trial.number] = word, facts_of(word, block_len=block_len).on(pairs=base.data.is_pairs)
    return found
