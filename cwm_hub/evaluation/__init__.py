"""Evaluation: held-out windows, scorecards with their protocol, intervals, comparisons of designs."""

from typing import TYPE_CHECKING

from cwm_hub import lazy_names

if TYPE_CHECKING:
    from cwm_hub.evaluation.comparison import compare_designs as compare_designs
    from cwm_hub.evaluation.intervals import bootstrap_interval as bootstrap_interval
    from cwm_hub.evaluation.intervals import interquartile_mean as interquartile_mean
    from cwm_hub.evaluation.scorecard import Protocol as Protocol
    from cwm_hub.evaluation.scorecard import ProtocolError as ProtocolError

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "Protocol": "cwm_hub.evaluation.scorecard",
        "ProtocolError": "cwm_hub.evaluation.scorecard",
        "bootstrap_interval": "cwm_hub.evaluation.intervals",
        "compare_designs": "cwm_hub.evaluation.comparison",
        "interquartile_mean": "cwm_hub.evaluation.intervals",
    },
)
