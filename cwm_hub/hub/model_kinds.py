"""What a card says of each kind of model, whatever its weights: how to find it, what goes in and out, how to use it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a card says of a kind of model: the same for every checkpoint of that kind."""

    pipeline_tag: str
    """Task under which the Hub lists it."""
    tags: tuple[str, ...]
    """Further words to find it by."""
    summary: str
    """What it is, one sentence."""
    inputs: str
    """Names, types and shapes of what goes in."""
    outputs: str
    """The same of what comes out."""
    snippet: str
    """Python that loads and runs it; `NAME` stands for the checkpoint."""


CONTEXTWM = ("contextwm", "arxiv:2305.18499")
"""Tags of the paper's kinds of model."""

USAGE = {
    "video_world_model": Usage(
        pipeline_tag="video-to-video",
        tags=(*CONTEXTWM, "world-model", "video-prediction"),
        summary="An action-free video world model: it sees a few frames and imagines how they go on.",
        inputs="`video`: uint8, RGB, `[batch, time, 3, height, width]`; frames seen: the first `observed_frames`.",
        outputs="uint8 of the same shape: the frames seen as the model reconstructs them, then its open-loop prediction.",
        snippet="""\
import torch
from cwm_hub import from_pretrained

model = from_pretrained("NAME")
side = model.image_size
video = torch.randint(0, 256, (1, 12, 3, side, side), dtype=torch.uint8)  # your clip here
prediction = model.predict(video, observed_frames=5)
assert prediction.shape == video.shape and prediction.dtype == torch.uint8
""",
    ),
    "action_world_model": Usage(
        pipeline_tag="reinforcement-learning",
        tags=(*CONTEXTWM, "world-model", "model-based-rl"),
        summary="An action-conditional world model: it follows images and actions and predicts rewards from its state.",
        inputs="`image`: uint8, RGB, `[batch, 3, height, width]`; `action`: float, the one that led to the image, in "
        "the units in which it was learned ([-1, 1] of an environment).",
        outputs="A state after every image, and the reward that the model expects there, where it learned from rewards.",
        snippet="""\
import torch
from cwm_hub import from_pretrained

model = from_pretrained("NAME")
side, actions = model.image_size, model.config.action_size
image = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)  # your camera here
with torch.no_grad():
    state = model.obs_step(model.initial(1), image, torch.zeros(1, actions), torch.tensor([True]))
    reward = model.behavioural_reward(model.feature(state))
assert reward.shape == (1,)
""",
    ),
    "dreamer_agent": Usage(
        pipeline_tag="reinforcement-learning",
        tags=(*CONTEXTWM, "world-model", "model-based-rl", "deep-reinforcement-learning"),
        summary="A model-based agent: a world model and an actor trained in its imagination.",
        inputs="`image`: uint8 array, RGB, `[batch, 3, height, width]`, and the agent's own state.",
        outputs="`action`: float32 array in [-1, 1], `[batch, action_size]`, and the next state.",
        snippet="""\
import numpy as np
from cwm_hub import from_pretrained

agent = from_pretrained("NAME")
side = agent.world_model.image_size
image = np.zeros((1, 3, side, side), dtype=np.uint8)  # your camera here
action, state = agent.act(image, agent.initial_state(1), explore=False)
assert action.shape == (1, agent.config.world.action_size)
""",
    ),
    "drqv2_agent": Usage(
        pipeline_tag="reinforcement-learning",
        tags=("arxiv:2107.09645", "model-free-rl", "deep-reinforcement-learning"),
        summary="A model-free agent (DrQ-v2): an actor-critic on stacked frames.",
        inputs="`image`: uint8 array, RGB, `[batch, 3, height, width]`, and the agent's own state.",
        outputs="`action`: float32 array in [-1, 1], `[batch, action_size]`, and the next state.",
        snippet="""\
import numpy as np
from cwm_hub import from_pretrained

agent = from_pretrained("NAME")
side = agent.config.image_size
image = np.zeros((1, 3, side, side), dtype=np.uint8)  # your camera here
action, state = agent.act(image, agent.initial_state(1), explore=False)
assert action.shape == (1, agent.config.action_size)
""",
    ),
}
"""By `model_type`."""
