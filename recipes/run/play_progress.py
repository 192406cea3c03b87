"""What is printed while episodes are played."""

import sys
import time

from cwm_hub.agents.rollout import EpisodeRecord
from recipes.run.folder import progress_line

TERMINAL_SECONDS, LOG_SECONDS = 0.5, 10.0
"""Between lines of the steps, where a line is rewritten and where each has its own."""


class PlayProgress:
    """How far, how fast, how long: a line for each episode, and between them for the steps now and then.

    Args:
        episodes: of all policies together.
        each: whether every episode has its line; else there are none but those of long ones.
    """

    def __init__(self, episodes: int, *, each: bool = True) -> None:
        self._episodes, self._done, self._steps, self._steps_of_done = episodes, 0, 0, 0
        self._each = each
        self._began = self._told = time.monotonic()

    def step(self, steps: int) -> None:
        """So many agent steps were taken."""
        self._steps += steps
        if time.monotonic() - self._told >= (TERMINAL_SECONDS if sys.stdout.isatty() else LOG_SECONDS):
            self._tell("")

    def episode(self, policy: str, record: EpisodeRecord) -> None:
        """One is over."""
        self._done, self._steps_of_done = self._done + 1, self._steps_of_done + record.episode_steps
        if self._each:
            self._tell(
                f"  {policy}, seed {record.seed}: return {record.score:.2f}, success {record.success:.0f}"
            )

    def _tell(self, words: str) -> None:
        self._told = time.monotonic()
        rate = self._steps / (self._told - self._began)
        left = "?"
        if self._done:  # those to come are taken to be as long as those that are over
            to_go = self._steps_of_done / self._done * self._episodes - self._steps
            left = f"{max(0.0, to_go) / rate / 60:.1f} min"
        text = f"{self._done} / {self._episodes} episodes  {self._steps:,} steps  {rate:.1f} steps/s  left {left}{words}"
        progress_line(text, last=self._each and self._done == self._episodes)
