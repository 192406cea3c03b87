"""Progress on a terminal keeps to one line, which is what rewriting it needs."""

import pytest

from cwm_hub.command_line import fitted

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
