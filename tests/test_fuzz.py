"""Flags of every kind with values of every kind; see fuzz_flags.py for hundreds of them."""

import pytest
from fuzz_flags import fuzz


@pytest.mark.slow
def test_any_flags_train_or_end_in_one_sentence(tmp_path, predicted, models, pytestconfig):
    draws = 60 if pytestconfig.getoption("--thorough") else 20
    assert fuzz(seed=0, draws=draws, place=tmp_path) == []
