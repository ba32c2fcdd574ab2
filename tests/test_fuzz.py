"""Flags of every kind with values of every kind; see fuzz_flags.py for hundreds of them."""

import pytest
from fuzz_flags import fuzz


@pytest.mark.slow
def test_any_flags_train_or_end_in_one_sentence(tmp_path, predicted, models):
    assert fuzz(seed=0, draws=40, place=tmp_path) == []
