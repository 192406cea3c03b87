"""What was measured of a checkpoint, as its card shows it: tables, sentences, and the Hub's `model-index`."""

import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult

from cwm_hub.evaluation import words
from cwm_hub.hub.model_kinds import Usage

POLICIES = {"mode": "this agent", "sampled": "samples of its policy", "random": "a random policy"}
"""Policies that an evaluation plays, in words."""


def scorecard_facts(shown: Mapping[str, Any]) -> dict[str, Any]:
    """What the card's template is given of a scorecard whose texts are inert; empty values where there is none."""
    if "sources" not in shown:
        return {"protocol": _single_values(shown.get("protocol", {})), "scores": []}
    return {
        "protocol": _single_values(shown["protocol"]),
        "measured": words.protocol_sentences(shown["protocol"]),
        "scores": [
            {
                "title": f"**{name}** ({words.counted(part, shown['protocol'])})",
                "table": words.score_table({"this model": part}),
            }
            for name, part in words.parts(shown).items()
        ],
        "further": words.further_sentences(shown),
    }


def scorecard_results(scorecard: Mapping[str, Any], usage: Usage) -> list[EvalResult]:
    """The model's own scores as the Hub's `model-index` wants them, a finite one for each data set and metric."""
    scores = [
        (name, key, f"{metric.heading}, open loop", part["model"][key]["mean"])
        for name, part in scorecard.get("sources", {}).items()
        for key, metric in words.METRICS.items()
        if key in part["model"]
    ]
    apart = [
        (name, key, words_of_it, found["mean"])
        for key, words_of_it in words.APART.items()
        for name, found in scorecard.get(key, {}).items()
    ]
    return [
        EvalResult(
            task_type=usage.pipeline_tag,
            dataset_type=" ".join(name.split()),
            dataset_name=" ".join(name.split()),
            metric_type=key,
            metric_name=metric_name,
            metric_value=round(value, 4),
        )
        for name, key, metric_name, value in scores + apart
        if math.isfinite(value)
    ]


def episode_facts(train: Mapping[str, Any]) -> dict[str, Any]:
    """What the card's template is given of an agent's last evaluation; empty values where there was none."""
    episodes = _episodes(train)
    played = {
        who: episodes if key == "mode" else episodes.get(key) for key, who in POLICIES.items() if episodes
    }
    rows = {
        who: [_interval(scores, "score"), _interval(scores, "success_rate")]
        for who, scores in played.items()
        if isinstance(scores, Mapping) and "score" in scores
    }
    return {"episodes": episodes, "episode_rows": rows}


def episode_results(train: Mapping[str, Any], usage: Usage) -> list[EvalResult]:
    """Scores of an agent's last evaluation as the Hub's `model-index` wants them."""
    episodes = _episodes(train)
    if episodes is None:
        return []
    return [
        EvalResult(
            task_type=usage.pipeline_tag,
            dataset_type=train["task"],
            dataset_name=train["task"],
            metric_type=metric,
            metric_name=f"{name}, {episodes['episodes']} episodes, one seed",
            metric_value=round(episodes[metric], 4),
        )
        for metric, name in (("score", "mean score"), ("success_rate", "success rate"))
        if metric in episodes
    ]


def _single_values(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """What fits in a sentence: the single values, and how many windows there are."""
    single = {key: value for key, value in protocol.items() if not isinstance(value, dict | list)}
    return single | ({"windows": len(protocol["windows"])} if "windows" in protocol else {})


def _episodes(train: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last evaluation of a fine-tuning run, or None when there was none."""
    evaluation = train.get("evaluation", {})
    return evaluation if "score" in evaluation else None


def _interval(scores: Mapping[str, Any], metric: str) -> str:
    """Mean, and the interval where there is one."""
    if metric not in scores:
        return "-"
    bounds = [f"{scores[f'{metric}_{end}']:.2f}" for end in ("low", "high") if f"{metric}_{end}" in scores]
    return f"{scores[metric]:.2f}" + (f" [{', '.join(bounds)}]" if bounds else "")
