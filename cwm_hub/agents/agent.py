"""What the fine-tuning loop asks of an agent: act, learn from the replay, say where it stands.

    env --frames--> act --action--> env          one agent step
    replay ---------------------> update         one gradient update, of everything that the agent learns

A new agent is a torch module with these members; neither loop, replay, evaluation nor checkpoint changes for it.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from cwm_hub.agents.replay import Replay


def device_named(name: str) -> torch.device:
    """The device of `auto` (the GPU where there is one), `cpu` or `cuda`.

    Raises:
        ValueError: there is no GPU that torch sees.
    """
    gpu = torch.cuda.is_available()
    if name == "cuda" and not gpu:
        raise ValueError(
            "the device is to be cuda, and torch sees no GPU here: take auto or cpu (cwm-hub doctor says more)"
        )
    return torch.device("cuda" if gpu and name != "cpu" else "cpu")


@runtime_checkable
class Policy(Protocol):
    """What acts: an agent, or `RandomPolicy`."""

    def initial_state(self, batch_size: int, *, seed: int) -> Any:
        """State at the start of episodes; everything random in them follows from the seed.

        It has a row for each episode and is what `batched_state` joins and selects, so that an episode goes on as it
        would alone in whatever batch it is.
        """

    def act(
        self, image: UInt8[np.ndarray, "N 3 H W"], state: Any, *, explore: bool
    ) -> tuple[Float32[np.ndarray, "N A"], Any]:
        """Actions in [-1, 1] for the frames just seen, and the next state.

        Exploring is a sample of the policy, with whatever noise belongs to it; else the action is its mode.
        """


@runtime_checkable
class Agent(Policy, Protocol):
    """A policy that learns from replayed experience; also a `torch.nn.Module` with `.config`, to be saved."""

    updates: int
    """Gradient updates so far, skipped ones among them."""
    skipped_updates: int
    """Updates left out, or cut short, because a loss or a gradient was not finite."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def action_size(self) -> int:
        """Numbers in an action."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the square frames that it sees."""

    @property
    def episode_rows(self) -> int:
        """Rows, the reset among them, that an episode needs to be learned from; shorter ones are never drawn."""

    @property
    def learns_termination(self) -> bool:
        """Whether an episode that the task itself ends is learned as an end, and not as a time limit."""

    def update(self, replay: Replay) -> dict[str, Tensor]:
        """One update on a batch drawn from the replay; detached scalars to log, any of which may miss when skipped, and which
        the next update may overwrite.

        Raises:
            ValueError: the replay cannot give such a batch, or holds terminations that the agent cannot learn.
        """

    def training_state(self) -> dict[str, Any]:
        """What continues training exactly beside the weights; tensors, numbers and strings in dicts and lists."""

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Takes over what `training_state` gave."""
