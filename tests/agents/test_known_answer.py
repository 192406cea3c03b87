"""Three steps worked out by hand, from the environment through replay and world model into imagination.

Everything real but two parts whose place is taken by arithmetic, so that a state says how it came to be:

    encoder   embed = t, read off the grey level of frame t
    GRU       deter' = deter / 10 + action: a tape whose digits are the actions, the newest first

Weights are set so that each posterior's latent is one-hot(t), the prior's always one-hot(3), and the policy's action
in latent c is (c + 1) / 10. All learning rates are 0: the update computes and changes nothing. The episode:

    t            0      1      2      3
    frame      10     20     30     40        grey level of every pixel
    action      0     0.1    0.2    0.3       led to frame t; the policy saw frame t - 1
    reward      0      1      2      3        received on arrival at frame t
    posterior   0      1      2      3        class of the latent, of either RSSM
    tape        0     0.1    0.21   0.321     deter of the action RSSM
"""

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cwm_hub.agents.actor_critic import ActorCriticConfig
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.intrinsic import IntrinsicConfig
from cwm_hub.agents.replay import Replay
from cwm_hub.agents.rollout import Collector
from cwm_hub.models.action_world_model import ActionWorldModelConfig
from cwm_hub.models.distributions import TruncatedNormal
from cwm_hub.models.heads import HeadConfig
from cwm_hub.models.registry import model_config
from cwm_hub.models.rssm import RSSM, RSSMConfig

SIZE = 32
CLASSES = torch.arange(4.0)
SHARP = 50.0
"""Logits this far apart: another class is drawn once in e^50 times."""
TAPE = [0.0, 0.1, 0.21, 0.321]


class Grey(nn.Module):
    """The number of a frame in the first entry of its embedding, zeros in the others."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, image: Tensor) -> Tensor:
        number = ((image.mean((1, 2, 3)) + 0.5) * 255 - 10) / 10
        return torch.cat([number[:, None], torch.zeros(len(image), self.width - 1)], 1)


class Tape(nn.Module):
    """In place of the GRU."""

    def forward(self, inputs: Tensor, deter: Tensor) -> Tensor:
        return deter / 10 + inputs

    def for_scan(self, *, steps: int, rows: int) -> "Tape":
        return self


class Counting(gymnasium.Env):
    """Frame t has grey level 10 (t + 1), arriving there brings reward t, and the third step is the last."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self._frame(), {}

    def step(self, action):
        self.t += 1
        return self._frame(), float(self.t), False, self.t == 3, {}

    def _frame(self) -> np.ndarray:
        return np.full((SIZE, SIZE, 3), 10 * (self.t + 1), np.uint8)


def set_weights(layer: nn.Linear, weight: Tensor | float, bias: Tensor | float = 0.0) -> None:
    with torch.no_grad():
        layer.weight.zero_().add_(weight)
        layer.bias.zero_().add_(bias)


def set_rssm(rssm: RSSM, number: Tensor) -> None:
    """Posterior one-hot(t) from an embedding whose product with `number` is t; prior one-hot(3); deter the tape."""
    rssm.cell = Tape()
    latents = len(CLASSES)
    set_weights(rssm.img_in, torch.eye(1, latents + rssm.config.action_size).roll(latents, 1))
    set_weights(
        rssm.posterior_hidden, torch.cat([torch.zeros(1), number])[None]
    )  # ELU leaves t >= 0 as it is
    nearest = SHARP * (2 * CLASSES[:, None]), -SHARP * CLASSES**2  # -(t - c)^2, less t^2, is largest at c = t
    set_weights(rssm.posterior_logits, *nearest)
    set_weights(rssm.prior_logits, 0.0, SHARP * torch.tensor([0.0, 0.0, 0.0, 1.0]))


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> DreamerAgent:
    monkeypatch.setattr(TruncatedNormal, "rsample", lambda policy, generator=None: policy.mode)
    tiny = RSSMConfig(stoch=1, classes=4, deter=1, hidden=1, action_size=2)
    linear = HeadConfig(layers=0)
    frame = model_config("contextwm-debug").frame
    config = DreamerConfig(
        world=ActionWorldModelConfig(1, frame=frame, video_rssm=tiny, rssm=tiny, heads=linear),
        behaviour=ActorCriticConfig(
            heads=linear, imagined_steps=2, discount=0.5, lambda_=0.5, entropy_scale=0.0
        ),
        intrinsic=IntrinsicConfig(queue_size=3, projection_size=1, k=3, window_frames=2, momentum=1.0),
        batch_sequences=1,
        sequence_steps=4,
        world_lr=0.0,
        behaviour_lr=0.0,
    )
    agent = DreamerAgent(config)
    world, behaviour = agent.world_model, agent.behaviour
    width = world.frame_model.embed_size
    world.frame_model.encoder = Grey(width)
    assert world.video_rssm is not None and world.representative_head is not None and agent.bonus is not None
    set_rssm(world.video_rssm, torch.eye(1, width)[0])
    set_rssm(world.rssm, torch.cat([CLASSES, torch.zeros(1)]))
    # Features are [one-hot of 4, deter].
    set_weights(world.behavioural_head.out, torch.tensor([[0.0, 1.0, 2.0, 3.0, 10.0]]))
    set_weights(world.representative_head.out, torch.tensor([[0.0, 1.0, 2.0, 3.0, 0.0]]), 0.5)
    set_weights(
        behaviour.actor.mean, torch.cat([torch.atanh((CLASSES + 1) / 10), torch.zeros(1)])[None]
    )  # the mean is a tanh
    set_weights(behaviour.critic.out, 0.0, 1.0)
    agent.bonus.projection.copy_(torch.tensor([[0.0], [1.0], [3.0], [7.0], [0.0]]))
    return agent


def collect(agent: DreamerAgent) -> Replay:
    replay = Replay(capacity_steps=10, image_size=SIZE, action_size=1, seed=0)
    collector = Collector([Counting()], replay, seed=0)
    assert [collector.step(agent) for _ in range(2)] == [[], []]
    (record,) = collector.step(agent)
    assert (record.score, record.episode_steps) == (6.0, 3)
    return replay


def test_acting_filters_each_frame_with_the_action_that_led_to_it(agent: DreamerAgent) -> None:
    state, env = agent.initial_state(1), Counting()
    frame, _ = env.reset()
    for t in range(3):
        action, state = agent.act(frame.transpose(2, 0, 1)[None], state, explore=t % 2 == 0)
        assert action == pytest.approx(0.1 * (t + 1))
        assert state.world.action.deter.item() == pytest.approx(TAPE[t])
        assert state.world.action.stoch.argmax().item() == t
        assert state.world.video.stoch.argmax().item() == t
        frame, *_ = env.step(action[0])


def test_a_row_holds_the_frame_the_action_that_led_to_it_and_its_reward(agent: DreamerAgent) -> None:
    batch = collect(agent).sample_sequences(1, 4)
    assert batch.image[0, :, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert batch.action[0, :, 0] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert batch.reward[0].tolist() == [0, 1, 2, 3]
    assert batch.is_first[0].tolist() == [True, False, False, False]


def test_filtering_writes_the_tape_and_a_chunks_start_forgets_its_action(agent: DreamerAgent) -> None:
    """A chunk of rows 1 to 3 begins with an empty tape: 0, 0.2, 0.02 + 0.3."""
    replay = collect(agent)
    for rows, tape in ((4, TAPE), (3, [0.0, 0.2, 0.32])):
        drawn = [replay.sample_sequences(1, rows) for _ in range(50)]
        batch = next(batch for batch in drawn if batch.reward[0, -1] == 3)
        parts = (torch.from_numpy(part) for part in (batch.image, batch.action, batch.is_first))
        with torch.no_grad():
            output = agent.world_model.observe(*parts)
        assert output.posterior.deter.flatten().tolist() == pytest.approx(tape)
        classes = list(range(4 - rows, 4))
        assert output.posterior.stoch.argmax(-1).flatten().tolist() == classes
        assert output.video_posterior.stoch.argmax(-1).flatten().tolist() == classes
        assert output.prior.stoch.argmax(-1).flatten().tolist() == [3] * rows


def test_the_update_puts_every_number_where_it_belongs(agent: DreamerAgent) -> None:
    metrics = {name: value.item() for name, value in agent.update(collect(agent)).items()}

    # Bonus. Windows of 2 frames in the projection (0, 1, 3, 7): 0.5, 2, 5. Mean distance to all three, oneself among
    # them: (0 + 1.5 + 4.5) / 3, (1.5 + 0 + 3) / 3, (4.5 + 3 + 0) / 3. The magnitude stays 1.
    bonus = [2.0, 1.5, 2.5]
    assert metrics["intrinsic_bonus"] == pytest.approx(np.mean(bonus))
    # Behavioural target: reward plus bonus of the first three steps. The head says class + 10 deter.
    target = [0 + 2.0, 1 + 1.5, 2 + 2.5]
    said = [0.0, 1 + 1.0, 2 + 2.1, 3 + 3.21]
    squares = [(s - t) ** 2 for s, t in zip(said[:3], target, strict=True)]
    assert metrics["behavioural_reward_loss"] == pytest.approx(0.5 * np.mean(squares))
    # The representative head says class + 0.5, half too much at each of the four steps.
    assert metrics["representative_reward_loss"] == pytest.approx(0.5 * 0.5**2)

    # Imagination from each of the four posteriors. In latent c the policy does (c + 1) / 10; the prior then says 3.
    imagined, returns = [], []
    for start, tape in enumerate(TAPE):
        first = tape / 10 + (start + 1) / 10
        second = first / 10 + 0.4
        reward = [said[start], 3 + 10 * first, 3 + 10 * second]
        imagined += reward
        # Lambda and discount are a half, every value is 1, the last one the bootstrap.
        later = reward[1] + 0.5 * (0.5 * 1 + 0.5 * 1)
        returns.append((reward[0] + 0.5 * (0.5 * 1 + 0.5 * later), later))
    assert metrics["imagined_reward"] == pytest.approx(np.mean(imagined))
    assert metrics["imagined_return"] == pytest.approx(np.mean(returns))
    assert metrics["critic_value"] == pytest.approx(1)
    # The actor is asked for what its first action brought, with weight 1; its second leads only to the bootstrap.
    assert metrics["actor_loss"] == pytest.approx(-np.mean([later for _, later in returns]))
    # The critic says 1 at both states that have a target; the second weighs a half.
    squares = [0.5 * (1 - now) ** 2 + 0.5 * 0.5 * (1 - later) ** 2 for now, later in returns]
    assert metrics["critic_loss"] == pytest.approx(np.mean(squares) / 2)
