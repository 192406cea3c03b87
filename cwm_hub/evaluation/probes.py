"""What a latent knows: how well clips of different labels are told apart by their features."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from cwm_hub.evaluation.held_out import HeldOut


class LabelledVideos(NamedTuple):
    """Source videos whose label another one shares."""

    features: Float[np.ndarray, "V F"]
    """Mean over the windows of each."""
    labels: list[int]
    """Of each, a place in `names`."""
    names: list[str]
    """Labels in words, sorted."""
    windows: int
    """Behind all of them."""


def labelled_videos(features: Float[np.ndarray, "B F"], held_out: HeldOut) -> LabelledVideos:
    """One row for each source video with a label, from one row a window; labels of a single video are left out.

    Several windows of one video would be each other's nearest neighbours and say nothing about labels.
    """
    of_video: dict[tuple[str, str], list[int]] = {}
    for row, (data_set, video, _, _) in enumerate(held_out.windows):
        of_video.setdefault((data_set, video), []).append(row)
    label_of = {video: held_out.labels[rows[0]] for video, rows in of_video.items()}
    counts = Counter(label_of.values())
    videos = [video for video, label in label_of.items() if label and counts[label] > 1]
    names = sorted({label_of[video] for video in videos})
    means = [features[of_video[video]].mean(0) for video in videos]
    return LabelledVideos(
        features=np.array(means).reshape(len(means), features.shape[1]),
        labels=[names.index(label_of[video]) for video in videos],
        names=names,
        windows=sum(len(of_video[video]) for video in videos),
    )


def separability(
    features: Float[np.ndarray, "N E"], labels: Sequence[int], *, neighbours: int = 5
) -> dict[str, float]:
    """How well labels separate in a feature space, as numbers beside a t-SNE picture; a row for each source video.

    Returns:
        `silhouette` in [-1, 1] (0: labels do not separate); `knn_accuracy`, the share whose label is the majority
        among its nearest neighbours, itself left out; `chance`, the share of the commonest label.
    """
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import LeaveOneOut, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        raise ValueError("separability needs at least two labels with at least two source videos each")
    classifier = KNeighborsClassifier(min(neighbours, len(labels) - 1))
    hits = cross_val_score(classifier, features, np.asarray(labels), cv=LeaveOneOut())
    return {
        "silhouette": float(silhouette_score(features, labels)),
        "knn_accuracy": float(hits.mean()),
        "chance": float(counts.max() / counts.sum()),
    }
