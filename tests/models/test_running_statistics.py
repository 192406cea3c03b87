"""A skipped update leaves the buffers as they were, an update that counts does not."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from cwm_hub.models.running_statistics import RunningStatistics


@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_a_skipped_update_leaves_the_running_statistics(bad):
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(2)).train()
    before = deepcopy(model.state_dict())
    statistics = RunningStatistics(model)
    statistics.keep()
    model[0](torch.full((2, 4, 2, 2), torch.nan if bad else 7.0))
    statistics.take_back(torch.tensor(bad))
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    moved = {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    assert changed == (set() if bad else moved)


def test_a_model_without_buffers_has_nothing_to_keep():
    statistics = RunningStatistics(nn.Linear(2, 2))
    statistics.keep()
    statistics.take_back(torch.tensor(1.0))
