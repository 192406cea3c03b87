"""What all commands say alike: counts, what is loaded, how far it is."""

from types import SimpleNamespace

import pytest

from cwm_hub import command_line
from cwm_hub.command_line import Pace, fitted, how_many, loading


def test_counts_have_their_number() -> None:
    assert [how_many(count, "clip") for count in (0, 1, 1234)] == ["0 clips", "1 clip", "1,234 clips"]
    assert [how_many(count, "is", "are") for count in (0, 1, 2)] == ["0 are", "1 is", "2 are"]


def test_of_several_processes_the_first_says_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        loading(f"what {rank} wants")
    assert capsys.readouterr().out == "loading what 0 wants\n"


def test_lines_of_progress_are_ten_seconds_apart_and_the_last_one_always_comes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 4.0, 12.0, 15.0, 16.0])
    monkeypatch.setattr(command_line, "time", SimpleNamespace(monotonic=lambda: next(now)))
    pace = Pace(1200, "videos")
    for more in (100, 200, 300, 600):
        pace.add(more)
    assert capsys.readouterr().out.splitlines() == [
        "300 of 1,200 videos  25.00 a second  left 0.6 min",
        "1,200 of 1,200 videos",
    ]


LINE = (
    "  250,000 / 255,000 steps  loss  -70.46  imagined return   10.64  success 33 %  10.7 steps/s "
    "(environment 1 %  act 9 %  update 89 %)  left 0.0 min"
)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (len(LINE) + 1, LINE),
        (120, LINE.replace(" (environment 1 %  act 9 %  update 89 %)", "")),
        (80, "250,000 / 255,000 steps loss -70.46 imagined…  10.7 steps/s  left 0.0 min"),
        (41, "250,000 /…  10.7 steps/s  left 0.0 min"),
        (5, "…  1"),
    ],
)
def test_a_line_too_long_for_a_terminal_keeps_how_fast_and_how_long(columns: int, shown: str) -> None:
    assert fitted(LINE, columns) == shown
