"""Evaluation: held-out windows, scorecards with their protocol, intervals, comparisons of designs."""

from typing import TYPE_CHECKING

from cwm_hub import lazy_names

if TYPE_CHECKING:
    from cwm_hub.evaluation.comparison import compare_designs as compare_designs
    from cwm_hub.evaluation.comparison import compare_runs as compare_runs
    from cwm_hub.evaluation.comparison import read_scorecard as read_scorecard
    from cwm_hub.evaluation.held_out import HeldOut as HeldOut
    from cwm_hub.evaluation.held_out import make_protocol as make_protocol
    from cwm_hub.evaluation.held_out import read_held_out as read_held_out
    from cwm_hub.evaluation.intervals import bootstrap_interval as bootstrap_interval
    from cwm_hub.evaluation.intervals import interquartile_mean as interquartile_mean
    from cwm_hub.evaluation.intervals import probability_of_improvement as probability_of_improvement
    from cwm_hub.evaluation.predict import score as score
    from cwm_hub.evaluation.protocol import Protocol as Protocol
    from cwm_hub.evaluation.protocol import ProtocolError as ProtocolError
    from cwm_hub.evaluation.protocol import ScoringConfig as ScoringConfig

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "HeldOut": "cwm_hub.evaluation.held_out",
        "Protocol": "cwm_hub.evaluation.protocol",
        "ProtocolError": "cwm_hub.evaluation.protocol",
        "ScoringConfig": "cwm_hub.evaluation.protocol",
        "bootstrap_interval": "cwm_hub.evaluation.intervals",
        "compare_designs": "cwm_hub.evaluation.comparison",
        "compare_runs": "cwm_hub.evaluation.comparison",
        "interquartile_mean": "cwm_hub.evaluation.intervals",
        "make_protocol": "cwm_hub.evaluation.held_out",
        "probability_of_improvement": "cwm_hub.evaluation.intervals",
        "read_held_out": "cwm_hub.evaluation.held_out",
        "read_scorecard": "cwm_hub.evaluation.comparison",
        "score": "cwm_hub.evaluation.predict",
    },
)
