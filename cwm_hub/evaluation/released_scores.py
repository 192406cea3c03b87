"""Numbers that others released, for reference lines that are named as what they are.

APV's released raw data (arXiv 2203.13880): mean success over 8 seeds after 245,000 environment steps on Meta-world's v2
tasks. The tasks here are v3, with other dynamics, and one reward and one threshold differ: these are levels to look at
and no results of this code. No number of ContextWM itself is published as a table.
"""

from collections.abc import Mapping

RELEASED: Mapping[str, Mapping[str, float]] = {
    "DreamerV2, as APV released it (Meta-world v2, 8 seeds, 245k)": {
        "metaworld:lever-pull": 0.100,
        "metaworld:drawer-open": 0.812,
        "metaworld:door-lock": 0.875,
        "metaworld:button-press-topdown-wall": 0.975,
        "metaworld:reach": 0.700,
        "metaworld:dial-turn": 0.113,
    },
    "APV on RLBench, as released (Meta-world v2, 8 seeds, 245k)": {
        "metaworld:lever-pull": 0.675,
        "metaworld:drawer-open": 1.000,
        "metaworld:door-lock": 0.988,
        "metaworld:button-press-topdown-wall": 1.000,
        "metaworld:reach": 0.900,
        "metaworld:dial-turn": 0.575,
    },
}
"""What it is -> task -> mean success."""


def released_success(task: str) -> dict[str, float]:
    """What was released for a task, by what it is; nothing for most."""
    return {name: scores[task] for name, scores in RELEASED.items() if task in scores}
