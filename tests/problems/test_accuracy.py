import numpy as np
import pytest

from tinybilevel.problems import Accuracy


def test_the_interval_is_1_96_standard_errors():
    shares = np.array([0.5, 0.75, 1.0, 0.75])
    found = Accuracy(shares)
    variance = np.sum((shares - 0.75) ** 2) / 3
    assert (found.mean, found.tasks) == (0.75, 4)
    assert found.interval == pytest.approx(1.96 * np.sqrt(variance / 4), rel=1e-14)
    assert str(found) == "75.0 ± 20.0 % (4 tasks)"
    assert found.first(2) == Accuracy([0.5, 0.75])
    assert found.first(9) == found


def test_one_task_has_no_interval_and_none_is_refused():
    assert np.isnan(Accuracy([0.5]).interval)
    with pytest.raises(ValueError, match="at least one"):
        Accuracy([])
