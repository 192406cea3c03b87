"""How well labels separate in features, a row for each source video."""

import numpy as np
import pytest
import torch

from cwm_hub.evaluation.held_out import HeldOut
from cwm_hub.evaluation.probes import labelled_videos, separability


def test_separability_of_two_distant_clusters_and_of_one():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(4)
    labels = [0] * 10 + [1] * 10
    apart = rng.normal(size=(20, 3)) + 100 * np.array(labels)[:, None]
    assert separability(apart, labels)["knn_accuracy"] == 1.0
    assert separability(apart, labels)["silhouette"] > 0.95
    mixed = separability(rng.normal(size=(20, 3)), labels)
    assert mixed["chance"] == 0.5 and mixed["knn_accuracy"] < 0.8 and abs(mixed["silhouette"]) < 0.2


def test_a_row_is_the_mean_of_a_videos_windows_and_lonely_labels_are_left_out():
    windows = [("set", f"film {number // 2}", "key", 0) for number in range(12)]
    labels = ["b", "b", "b", "b", "a", "a", "a", "a", "alone", "alone", "", ""]
    held_out = HeldOut(torch.zeros(12, 1, 3, 2, 2, dtype=torch.uint8), windows, labels, {}, {})
    videos = labelled_videos(np.arange(24.0).reshape(12, 2), held_out)
    assert videos.names == ["a", "b"] and videos.labels == [1, 1, 0, 0] and videos.windows == 8
    assert videos.features.tolist() == [[1, 2], [5, 6], [9, 10], [13, 14]]


def test_without_shared_labels_there_is_no_row():
    windows = [("set", f"film {number}", "key", 0) for number in range(2)]
    held_out = HeldOut(torch.zeros(2, 1, 3, 2, 2, dtype=torch.uint8), windows, ["", "a"], {}, {})
    assert labelled_videos(np.zeros((2, 3)), held_out).names == []
