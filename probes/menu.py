"""The menu of tasks, by the words of data.name."""

from functools import partial
from pathlib import Path

from probes import copying, knowledge, recall, tracking
from probes.task import Numbers, Task

SOURCES = sorted(Path(__file__).parent.glob("*.py"))  # what the rows depend on
MAD = "Poli et al. 2024, arXiv:2403.17844"
PHYSICS = "Allen-Zhu 2025, Physics of Language Models 4.1"
COPYING = "Jelassi et al. 2024, arXiv:2402.01032"
STATES = "Merrill et al. 2024, arXiv:2404.08819"


def _group(group: str) -> Task:
    draw, words = (partial(function, group) for function in (tracking.word_problem, tracking.group_words))
    return Task(draw, words, 16, Numbers(), None, STATES)


PROBES = {
    "mqar": Task(recall.mqar, recall.blank_words, 64, Numbers(64, 8), "pairs", "Arora et al. 2023, arXiv:2312.04927"),
    "recall": Task(recall.recall, recall.pair_words, 64, Numbers(16), None, MAD),
    "noisy_recall": Task(recall.noisy_recall, recall.noise_words, 64, Numbers(16, noise=0.2), None, MAD),
    "fuzzy_recall": Task(recall.fuzzy_recall, recall.pair_words, 64, Numbers(16, 4), "pairs of motifs", MAD),
    "memorisation": Task(recall.memorisation, recall.blank_words, 32, Numbers(256), None, MAD),
    "selective_copying": Task(copying.selective_copying, copying.letter_words, 64, Numbers(16, 8), "symbols to copy",
                              "Gu and Dao 2023, arXiv:2312.00752"),
    "induction": Task(recall.induction, recall.induction_words, 64, Numbers(16), None,
                      "Gu and Dao 2023, arXiv:2312.00752"),
    "needle": Task(recall.needle, recall.noise_words, 64, Numbers(16, 2), "pairs",
                   "after Hsieh et al. 2024, arXiv:2404.06654"),
    "copying": Task(copying.copying, copying.letter_words, 41, Numbers(26), None, COPYING),
    "ngram_lookup": Task(copying.ngram_lookup, copying.letter_words, 64, Numbers(26, 2), "symbols of the n-gram",
                         COPYING),
    "parity": Task(tracking.parity, lambda n: ["0", "1"], 40, Numbers(), None, "Grazzi et al. 2024, arXiv:2411.12537"),
    "modular_arithmetic": Task(tracking.modular_arithmetic, tracking.residue_words, 40, Numbers(5), None,
                               "after Deletang et al. 2022, arXiv:2207.02098"),
    "s3": _group("s3"),
    "a5": _group("a5"),
    "s5": _group("s5"),
    "z60": _group("z60"),
    "depo": Task(knowledge.depo, knowledge.depo_words, 64, Numbers(32, 4), "steps", f"after {PHYSICS}"),
    "mano": Task(knowledge.mano, knowledge.mano_words, 8, Numbers(23), None, f"after {PHYSICS}"),
}
