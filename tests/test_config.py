"""Configs survive the way to JSON and back, and every mistake is one sentence that helps."""

import dataclasses
import json
import subprocess
import sys
from typing import Literal

import pytest

from cwm_hub.config import ConfigError, from_dict, merged, nearest, override, to_dict


@dataclasses.dataclass(frozen=True)
class Attention:
    heads: int = 4
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class Frame:
    widths: tuple[int, ...] = (48, 96, 192)
    context: Attention | None = dataclasses.field(default_factory=Attention)
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        if not self.widths:
            raise ValueError("widths is empty")


@dataclasses.dataclass(frozen=True)
class Model:
    depth: int
    frame: Frame = dataclasses.field(default_factory=Frame)
    where: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    augment: bool = False
    name: str | None = None


FULL = Model(
    depth=2,
    frame=Frame(widths=(8, 16), context=Attention(heads=2), norm="group"),
    where={"motion": (0.5, 9.0)},
    augment=True,
    name="tiny",
)


@pytest.mark.parametrize("original", [FULL, Model(depth=1), Model(depth=1, frame=Frame(context=None))])
def test_round_trip_through_json_keeps_types(original):
    assert from_dict(Model, json.loads(json.dumps(to_dict(original)))) == original


def test_to_dict_is_plain_data():
    plain = to_dict(FULL)
    assert plain["frame"]["widths"] == [8, 16]
    assert plain["frame"]["context"] == {"heads": 2, "dropout": 0.1}
    assert plain["where"] == {"motion": [0.5, 9.0]}


def test_left_out_fields_keep_their_defaults():
    assert from_dict(Model, {"depth": 1, "frame": {"norm": "group"}}) == Model(
        depth=1, frame=Frame(norm="group")
    )


def test_whole_numbers_are_floats_where_a_float_is_expected():
    dropout = from_dict(Attention, {"dropout": 1}).dropout
    assert dropout == 1.0 and type(dropout) is float


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"depth": 1, "frame": {"contxt": None}},
            "run.yaml: unknown key 'contxt' in Frame; did you mean 'context'?",
        ),
        ({"depth": 1, "zzz": 1}, "run.yaml: unknown key 'zzz' in Model"),
        ({}, "run.yaml: missing key 'depth' in Model"),
        ({"depth": "two"}, "run.yaml: depth expects int, got 'two' (str)"),
        ({"depth": True}, "run.yaml: depth expects int, got True (bool)"),
        ({"depth": 2.0}, "run.yaml: depth expects int, got 2.0 (float)"),
        ({"depth": 1, "augment": 1}, "run.yaml: augment expects bool, got 1 (int)"),
        ({"depth": 1, "frame": {"widths": [8, "x"]}}, "run.yaml: frame.widths[1] expects int, got 'x' (str)"),
        ({"depth": 1, "frame": {"widths": 8}}, "run.yaml: frame.widths expects tuple[int, ...], got 8 (int)"),
        (
            {"depth": 1, "frame": {"norm": "grup"}},
            "run.yaml: frame.norm expects one of 'batch', 'group', got 'grup'; did you mean 'group'?",
        ),
        (
            {"depth": 1, "frame": {"context": 4}},
            "run.yaml: frame.context expects a mapping (Attention), got 4 (int)",
        ),
        ({"depth": 1, "name": 3}, "run.yaml: name expects str, got 3 (int)"),
        (
            {"depth": 1, "where": {"motion": 1}},
            "run.yaml: where.motion expects tuple[float, ...], got 1 (int)",
        ),
        ({"depth": 1, "frame": None}, "run.yaml: frame expects a mapping (Frame), got None (NoneType)"),
        (
            {"depth": 1, "frame": "small"},
            "run.yaml: frame expects a mapping (Frame), got 'small' (str): it has parts, such as frame.widths",
        ),
        (
            {"depth": 1, "heads": 2},
            "run.yaml: unknown key 'heads' in Model; did you mean 'frame.context.heads'?",
        ),
        ({"depth": 1, "frame": {"widths": []}}, "run.yaml: frame: widths is empty"),
    ],
)
def test_a_mistake_is_one_sentence(data, sentence):
    with pytest.raises(ConfigError) as error:
        from_dict(Model, data, where="run.yaml")
    assert str(error.value) == sentence


def test_a_slip_of_a_letter_comes_before_a_name_that_has_all_words():
    assert nearest("step", ["log_every_step", "steps"]) == "; did you mean 'steps'?"
    assert nearest("frames", ["env.episode_frames", "name"]) == "; did you mean 'env.episode_frames'?"
    assert nearest("step_of_day", ["log_every_step"]) == ""  # a word in common is not enough


def test_override_by_dots_and_by_nesting_agree():
    dotted = override(FULL, {"frame.context.heads": 8, "frame.norm": "batch", "depth": 5})
    nested = override(FULL, {"frame": {"context": {"heads": 8}, "norm": "batch"}, "depth": 5})
    assert dotted == nested
    assert dotted.frame.context == Attention(heads=8) and dotted.frame.widths == (8, 16)
    assert FULL.depth == 2


def test_override_takes_a_part_out_and_puts_it_back():
    plain = override(FULL, {"frame.context": None})
    assert plain.frame.context is None
    assert override(plain, {"frame.context.heads": 1}).frame.context == Attention(heads=1)
    assert override(plain, {"frame": {"context": Attention(heads=7)}}).frame.context == Attention(heads=7)


def test_override_replaces_a_free_mapping_whole():
    assert override(FULL, {"where": {"luma": [0, 1]}}).where == {"luma": (0.0, 1.0)}


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 7, "frame.norm": "batch", "frame.context.heads": 8, "frame.context.dropout": 0.5},
        {
            "frame": {"context": {"heads": 8}},
            "frame.context": {"dropout": 0.5},
            "frame.norm": "batch",
            "depth": 7,
        },
        {"frame.context": {"dropout": 0.5}, "depth": 7, "frame": {"norm": "batch", "context.heads": 8}},
        {
            "frame": {"context": {"heads": 1, "dropout": 0.5}, "norm": "batch"},
            "frame.context.heads": 8,
            "depth": 7,
        },
        {"frame": {}, "frame.context": {}, "frame.context.heads": 8, "frame.context.dropout": 0.5, "depth": 7}
        | {"frame.norm": "batch"},
    ],
)
def test_every_leaf_counts_whatever_its_form(changes):
    changed = override(FULL, changes)
    assert changed == dataclasses.replace(FULL, depth=7, frame=Frame((8, 16), Attention(8, 0.5), "batch"))


def test_none_takes_a_part_out_and_parts_after_it_begin_anew():
    assert override(FULL, merged({"frame.context.heads": 8}, {"frame.context": None})).frame.context is None
    assert (
        override(FULL, merged({"frame.context.heads": 8}, {"frame": {"context": None}})).frame.context is None
    )
    anew = merged(
        {"frame": {"context": {"heads": 8}}}, {"frame.context": None}, {"frame.context.dropout": 0.5}
    )
    assert override(FULL, anew).frame.context == Attention(heads=4, dropout=0.5)
    assert override(FULL, merged({"frame": None}, {"frame.norm": "group"})).frame == Frame(norm="group")


def test_merged_changes_are_flat_and_the_later_wins():
    assert merged({"a": {"b": {"c": 1, "d": 2}}}, {"a.b.c": 3}, {"a": {"e": [4]}}) == {
        "a.b.d": 2,
        "a.b.c": 3,
        "a.e": [4],
    }
    assert merged({"a": 1}, {"b": {}}) == {"a": 1, "b": {}}
    assert merged({"a.b": 1}, {"a": {}}) == {"a.b": 1}
    assert merged({"a.b": 1}, {"a": None}) == {"a": None}


def test_lists_and_tuples_of_fixed_length_are_read():
    @dataclasses.dataclass(frozen=True)
    class Bounds:
        parts: list[Attention]
        where: dict[str, tuple[float, float]]

    bounds = from_dict(Bounds, {"parts": [{"heads": 2}], "where": {"luma": [0, 1]}})
    assert bounds == Bounds([Attention(heads=2)], {"luma": (0.0, 1.0)})
    with pytest.raises(ConfigError, match=r"where.luma expects tuple\[float, float\], got \[0\]"):
        from_dict(Bounds, {"parts": [], "where": {"luma": [0]}})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frame.contxt.heads": 1}, "override: unknown key 'contxt' in Frame; did you mean 'context'?"),
        ({"frame.context.heads": "x"}, "override: frame.context.heads expects int, got 'x' (str)"),
        ({"depth.value": 1}, "override: depth expects int, got {'value': 1} (dict)"),
        (
            {"frame": 3, "frame.norm": "batch"},
            "override: 'frame' is given both a value and values of its parts",
        ),
        ({"frame.widths": ()}, "override: frame: widths is empty"),
    ],
)
def test_override_is_as_strict(changes, sentence):
    with pytest.raises(ConfigError) as error:
        override(FULL, changes)
    assert str(error.value) == sentence


def test_configs_need_no_torch():
    code = "import sys, cwm_hub.config; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
