"""`cwm-hub compare A B`: where two checkpoints differ, and how their scores compare where they were measured alike."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cwm_hub.command_line import add_checkpoint

if TYPE_CHECKING:
    import argparse

    from cwm_hub.hub.description import Description

EXAMPLES = (
    "cwm-hub compare contextwm-tiny runs/mine/model",
    "cwm-hub compare owner/contextwm-mine@v1 owner/contextwm-mine@v2",
)


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    for name in ("a", "b"):
        add_checkpoint(parser, name, metavar=name.upper())


def run(args: Any) -> Iterator[str]:
    """What differs of type, parents, training and configuration side by side, then the scores.

    Raises:
        HubError: no such checkpoint, or one that is not what the format says.
    """
    from cwm_hub.hub.description import describe
    from cwm_hub.hub.names import find_checkpoint

    a, b = describe(find_checkpoint(args.a)), describe(find_checkpoint(args.b))
    yield from (f"A {a.name}", f"B {b.name}")
    for title in ("facts", "parents", "training", "config"):
        yield from _differences(title, getattr(a, title), getattr(b, title))
    yield from _scores(a, b)


def _differences(title: str, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[str]:
    """A row for every fact that is not the same on both sides; `-` where one has none."""
    keys = list(dict.fromkeys([*a, *b]))
    differing = [key for key in keys if a.get(key) != b.get(key)]
    yield f"{title}: {len(differing)} of {len(keys)} differ" if keys else f"{title}: not recorded"
    for key in differing:
        yield from _row(f"  {key}", a.get(key, "-"), b.get(key, "-"))


def _row(name: str, a: str, b: str) -> Iterator[str]:
    """Side by side in 80 characters, below each other where a cell would touch the next."""
    if len(name) < 30 and len(a) < 26 and len(b) < 25:
        yield f"{name:<30}{a:<26}{b}"
    else:
        yield from (name, f"    A {a}", f"    B {b}")


def _scores(a: "Description", b: "Description") -> Iterator[str]:
    from cwm_hub.evaluation import words
    from cwm_hub.evaluation.comparison import compare_designs, markdown_tables
    from cwm_hub.evaluation.protocol import ProtocolError, check_same_protocol
    from cwm_hub.hub.files import form_of

    without = [one.name for one in (a, b) if one.scorecard is None]
    if a.scorecard is None or b.scorecard is None:
        yield f"scores: {' and '.join(without)} {'have' if len(without) > 1 else 'has'} no scorecard"
        return
    names = (a.name, b.name) if a.name != b.name else (f"{a.name} (A)", f"{b.name} (B)")
    try:
        check_same_protocol(a.scorecard["protocol"], b.scorecard["protocol"])
    except ProtocolError as error:
        yield f"scores: {error}"
        return
    with form_of("one of the scorecards"):
        compared = compare_designs(dict(zip(names, ([a.scorecard], [b.scorecard]), strict=True)))
        lines = [*markdown_tables(compared).splitlines(), *_apart(a.scorecard, b.scorecard)]
    yield from lines
    difference = compared["together"]["designs"][names[1]]["psnr_db"]["minus_first"]
    yield words.verdict(names[1], names[0], difference, confidence=compared["protocol"]["confidence"])


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Probes and planning side by side, where both were measured on as many windows, videos and plans; `-` where one has none."""
    from cwm_hub.evaluation import words

    for key, name in words.APART.items():
        found = [card.get(key, {}) for card in (a, b)]
        for data_set in dict.fromkeys([*found[0], *found[1]]):
            sides = [card.get(data_set) for card in found]
            cells = ["-" if side is None else words.interval(side) for side in sides]
            counts = [
                {count: side[count] for count in words.COUNTS if count in side}
                for side in sides
                if side is not None
            ]
            yield from _row(f"{data_set}, {name}", *cells)
            if counts[0] != counts[-1]:
                yield "    measured on other counts: these do not compare"
