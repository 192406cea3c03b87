"""Writes tests/fixtures/checkpoint_v<FORMAT_VERSION>: one small checkpoint of every model type, and what it answers.

    python tests/make_checkpoint_fixture.py

Run once when a format version is born; the files then stay as they are, and `test_frozen_checkpoints.py` asks every
later version of the code to load them and to give the same answers.
"""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.drqv2 import DrQV2Agent, DrQV2Config
from cwm_hub.config import override
from cwm_hub.hub.checkpoint import FORMAT_VERSION
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModel, ActionWorldModelConfig
from cwm_hub.models.registry import DEBUG_FRAME, DEBUG_RSSM, create_model
from cwm_hub.models.video_world_model import VideoWorldModel

FIXTURES = Path(__file__).parent / "fixtures"


def small_models() -> dict[str, nn.Module]:
    """The smallest model of every type, with no parameter or statistic left at a constant."""
    parts = {
        "frame": DEBUG_FRAME,
        "rssm": DEBUG_RSSM,
        "video_rssm": DEBUG_RSSM,
        "heads.layers": 1,
        "heads.units": 8,
    }
    action = override(ActionWorldModelConfig(action_size=2), parts)
    small_agent = {
        "behaviour.heads": {"layers": 1, "units": 8},
        "intrinsic": {"queue_size": 32, "projection_size": 8},
    }
    torch.manual_seed(0)
    models = {
        "video_world_model": create_model("contextwm-debug"),
        "action_world_model": ActionWorldModel(action),
        "dreamer_agent": DreamerAgent(override(DreamerConfig(world=action), small_agent)),
        "drqv2_agent": DrQV2Agent(
            DrQV2Config(action_size=2, image_size=32, channels=4, feature_units=4, hidden_units=8)
        ),
    }
    for model in models.values():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.data.mul_(1 + 0.1 * torch.rand_like(tensor)).add_(0.02 * torch.rand_like(tensor))
    return models


@torch.no_grad()
def answers(model: nn.Module) -> dict[str, Tensor]:
    """What a model makes of one fixed input, with nothing drawn at random."""
    time, height, width = torch.meshgrid(torch.arange(6), torch.arange(32), torch.arange(32), indexing="ij")
    channels = [(9 * time + 5 * height + 3 * width), (7 * width + 20 * time), (4 * height * time)]
    video = torch.stack([channel % 256 for channel in channels], 1).to(torch.uint8)[None]
    if isinstance(model, VideoWorldModel):
        return {"prediction": model.predict(video, observed_frames=3, sample=False)}
    if isinstance(model, DrQV2Agent):
        return {
            "action": torch.from_numpy(
                model.act(video[:, 0].numpy(), model.initial_state(1), explore=False)[0]
            )
        }
    action = torch.tensor([[0.5, -0.25]])
    first = torch.tensor([True])
    world = model.world_model if isinstance(model, DreamerAgent) else model
    assert isinstance(world, ActionWorldModel)
    state = world.obs_step(world.initial(1), video[:, 0], action, first, sample=False)
    feature = world.feature(world.obs_step(state, video[:, 1], action, ~first, sample=False))
    rewards = {
        "behavioural": world.behavioural_reward(feature),
        "representative": world.representative_reward(feature),
    }
    if not isinstance(model, DreamerAgent):
        return {"feature": feature, **rewards}
    return {**rewards, "action": model.behaviour.actor(feature).mode}


def main() -> None:
    folder = FIXTURES / f"checkpoint_v{FORMAT_VERSION}"
    for model_type, model in small_models().items():
        if (folder / model_type).exists():
            print(f"{folder / model_type} is there already, and what is frozen stays")
            continue
        save_pretrained(
            model,
            folder / model_type,
            card=False,
            train={"recipe": "tests/make_checkpoint_fixture.py", "updates": 0},
        )
        safetensors.torch.save_file(answers(model.eval()), folder / f"{model_type}.answers.safetensors")


if __name__ == "__main__":
    main()
