"""What a latent knows: how well clips of different labels are told apart by their features."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def separability(
    features: Float[np.ndarray, "N E"], labels: Sequence[int], *, neighbours: int = 5
) -> dict[str, float]:
    """How well labels separate in a feature space, as numbers beside a t-SNE picture; a row for each source video.

    Several clips of one video would be each other's nearest neighbours and say nothing about labels.

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
