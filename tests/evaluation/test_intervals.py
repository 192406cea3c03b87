"""What several runs say together: bands of learning curves and the probability of improvement, worked out by hand."""

import numpy as np
import pytest

from cwm_hub.evaluation import intervals


def test_a_band_is_the_middle_half_of_the_runs_at_every_point():
    # Eight runs, at the second point ten times as high: the middle four of 0 1 2 3 4 5 6 100 are 2 3 4 5, mean 3.5.
    first = np.array([100.0, 0, 1, 6, 2, 5, 3, 4])
    iqm, low, high = intervals.interquartile_band(np.stack([first, 10 * first], axis=1))
    np.testing.assert_allclose(iqm, [3.5, 35.0])
    assert (low < iqm).all() and (iqm < high).all()
    np.testing.assert_allclose([10 * low[0], 10 * high[0]], [low[1], high[1]])


def test_a_band_resamples_whole_runs():
    # Of two runs a quarter of the resamples are twice the first, a quarter twice the second, half are both.
    curves = np.array([[0.0, 8.0], [2.0, 4.0]])
    _, low, high = intervals.interquartile_band(curves)
    np.testing.assert_allclose((low, high), ([0.0, 4.0], [2.0, 8.0]))
    _, low, high = intervals.interquartile_band(curves, confidence=0.4)
    np.testing.assert_allclose((low, high), ([1.0, 6.0], [1.0, 6.0]))


def test_one_run_has_neither_band_nor_interval():
    iqm, low, high = intervals.interquartile_band(np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(iqm, [1.0, 2.0])
    assert np.isnan(low).all() and np.isnan(high).all()
    assert intervals.interquartile_mean({"reach": [1.0, 3.0], "push": [2.0]}) == {"iqm": 2.0, "runs": 3}
    told = intervals.probability_of_improvement({"reach": [1.0, 3.0]}, {"reach": [2.0]})
    assert told == {"probability": 0.5}


def test_improvement_counts_pairs_and_a_tie_is_half():
    # 3 beats 2 and 0, 1 beats 0 and loses to 2: three of four pairs. On the other task every pair is a tie.
    ours, theirs = {"reach": [3.0, 1.0]}, {"reach": [2.0, 0.0]}
    assert intervals.probability_of_improvement(ours, theirs)["probability"] == 0.75
    assert intervals.probability_of_improvement(theirs, ours)["probability"] == 0.25
    ours["push"] = theirs["push"] = [1.0, 1.0, 1.0]
    assert intervals.probability_of_improvement(ours, theirs)["probability"] == (0.75 + 0.5) / 2
    equal = intervals.probability_of_improvement({"reach": [1.0, 1.0]}, {"reach": [1.0, 1.0]})
    assert equal == {"probability": 0.5, "low": 0.5, "high": 0.5}


def test_improvement_weighs_tasks_alike_however_many_runs_they_have():
    ours = {"many": [1.0] * 9, "few": [0.0]}
    theirs = {"many": [0.0] * 7, "few": [1.0]}
    assert intervals.probability_of_improvement(ours, theirs)["probability"] == 0.5


def test_improvements_interval_resamples_within_task_and_side():
    # Two draws from {0, 2} against 1: both lose, one wins or both win, with 1/4, 1/2 and 1/4.
    ours, theirs = {"reach": [0.0, 2.0]}, {"reach": [1.0, 1.0]}
    told = intervals.probability_of_improvement(ours, theirs)
    assert (told["low"], told["high"]) == (0.0, 1.0)
    told = intervals.probability_of_improvement(ours, theirs, confidence=0.4)
    assert (told["low"], told["high"]) == (0.5, 0.5)
    # Runs of a task and a side are equal: every resample within them is the data itself.
    ours, theirs = {"easy": [1.0] * 4, "hard": [0.0] * 4}, {"easy": [0.0] * 4, "hard": [1.0] * 4}
    told = intervals.probability_of_improvement(ours, theirs)
    assert told == {"probability": 0.5, "low": 0.5, "high": 0.5}


def test_improvement_needs_the_same_tasks():
    with pytest.raises(ValueError, match=r"the same tasks, got \['reach'\] and \['push'\]"):
        intervals.probability_of_improvement({"reach": [1.0]}, {"push": [1.0]})
