"""What the recipes and `cwm-hub watch` print while episodes are played."""

import time

from cwm_hub.agents.rollout import EpisodeRecord
from cwm_hub.command_line import line_seconds, progress_line


class PlayProgress:
    """How far, how fast, how long: a line for each episode, and between them for the steps now and then.

    Args:
        episodes: of all policies together.
        most_steps: of an episode, None where nothing limits it; what is left goes by it until one is over.
        each: whether every episode has its line; else there are none but those of long ones.
    """

    def __init__(self, episodes: int, *, most_steps: int | None, each: bool = True) -> None:
        self._episodes, self._done, self._steps, self._steps_of_done = episodes, 0, 0, 0
        self._most_steps, self._each = most_steps, each
        self._began = self._told = time.monotonic()

    def step(self, steps: int) -> None:
        """So many agent steps were taken."""
        self._steps += steps
        if time.monotonic() - self._told >= line_seconds():
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
        # Those to come are taken to be as long as those that are over.
        each = self._steps_of_done / self._done if self._done else self._most_steps
        left = "?" if each is None else f"{max(0.0, each * self._episodes - self._steps) / rate / 60:.1f} min"
        text = f"{self._done} / {self._episodes} episodes  {self._steps:,} steps  {rate:.1f} steps/s  left {left}{words}"
        progress_line(text, last=self._each and self._done == self._episodes)
