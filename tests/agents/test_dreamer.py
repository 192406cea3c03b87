"""The agent's update: what trains, what does not, what is skipped, and exact continuation."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cwm_hub.agents.actor_critic import ActorCriticConfig
from cwm_hub.agents.dreamer import DreamerAgent, DreamerConfig
from cwm_hub.agents.intrinsic import IntrinsicConfig
from cwm_hub.agents.replay import SequenceBatch
from cwm_hub.config import ConfigError, override
from cwm_hub.hub.pretrained import from_pretrained
from cwm_hub.hub.saving import save_pretrained
from cwm_hub.models.action_world_model import ActionWorldModelConfig
from cwm_hub.models.heads import HeadConfig
from cwm_hub.models.registry import create_model, model_config

HEADS = HeadConfig(layers=1, units=16)


def make_config(**changes) -> DreamerConfig:
    video = model_config("contextwm-debug")
    world = ActionWorldModelConfig(
        action_size=2, frame=video.frame, video_rssm=video.rssm, rssm=video.rssm, heads=HEADS
    )
    config = DreamerConfig(
        world=world,
        behaviour=ActorCriticConfig(heads=HEADS, imagined_steps=3, slow_critic_updates=2),
        intrinsic=IntrinsicConfig(queue_size=32, projection_size=8, k=4, window_frames=3),
        batch_sequences=3,
        sequence_steps=6,
        held_updates=0,
    )
    return replace(config, **changes)


def make_agent(**changes) -> DreamerAgent:
    torch.manual_seed(0)
    return DreamerAgent(make_config(**changes))


def make_dreamerv2(**changes) -> DreamerAgent:
    config = make_config()
    frame = replace(config.world.frame, context=None)
    world = replace(config.world, video_rssm=None, dual_reward=False, frame=frame)
    torch.manual_seed(0)
    return DreamerAgent(replace(config, world=world, intrinsic=None, **changes))


def make_batch(seed: int = 0) -> SequenceBatch:
    rng = np.random.default_rng(seed)
    is_first = np.zeros((3, 6), bool)
    is_first[:, 0] = True
    return SequenceBatch(
        rng.integers(0, 256, (3, 6, 3, 32, 32), np.uint8),
        rng.uniform(-1, 1, (3, 6, 2)).astype(np.float32),
        rng.normal(size=(3, 6)).astype(np.float32),
        is_first,
        np.zeros((3, 6), bool),
    )


def weights(agent: DreamerAgent) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in agent.named_parameters()}


def moved(before: dict[str, torch.Tensor], agent: DreamerAgent) -> set[str]:
    return {name for name, value in weights(agent).items() if not torch.equal(value, before[name])}


def test_one_update_trains_every_part() -> None:
    agent = make_agent()
    before = weights(agent)
    metrics = agent.update_on(make_batch())
    assert all(value.isfinite() for value in metrics.values())
    still = set(before) - moved(before, agent)
    # The slow critic is a copy. The video RSSM's KL has weight 0: its prior moves by weight decay alone, its zero
    # biases stay.
    assert all("slow_critic" in name or ("video_rssm.prior_" in name and "bias" in name) for name in still), (
        still
    )
    assert not agent.training


def test_pretrained_group_is_held_in_the_first_updates_only() -> None:
    agent = make_agent(held_updates=1)
    before = weights(agent)
    agent.update_on(make_batch())
    pretrained = (
        "world_model.frame_model.encoder",
        "world_model.frame_model.context",
        "world_model.video_rssm",
    )
    first = moved(before, agent)
    assert not any(name.startswith(pretrained) for name in first)
    assert any(name.startswith("world_model.frame_model.decoder") for name in first)
    agent.update_on(make_batch())
    assert any(name.startswith(pretrained) for name in moved(before, agent))


def test_dreamerv2_is_clipped_by_one_norm_over_its_world_model() -> None:
    """As in the official code; the stacked model's two groups have a norm each."""
    stacked = make_agent().update_on(make_batch())
    assert {name for name in stacked if name.endswith("grad_norm")} == {
        f"{name}_grad_norm" for name in ("pretrained", "new", "actor", "critic")
    }
    agent = make_dreamerv2(clip_norm=1e-3)
    metrics = agent.update_on(make_batch())
    assert {name for name in metrics if name.endswith("grad_norm")} == {
        f"{name}_grad_norm" for name in ("world", "actor", "critic")
    }
    trained = [p.grad for p in agent.world_model.parameters() if p.grad is not None]
    assert torch.stack([gradient.norm() for gradient in trained]).norm().item() == pytest.approx(
        1e-3, rel=1e-3
    )


def test_nothing_can_be_held_where_nothing_is_pretrained() -> None:
    with pytest.raises(ValueError, match=r"held_updates needs world\.video_rssm"):
        make_dreamerv2(held_updates=1)


def test_a_batch_with_fewer_windows_than_neighbours_is_refused_before_the_work() -> None:
    with pytest.raises(ValueError, match=r"2 windows .* fewer than intrinsic\.k=4"):
        make_config(batch_sequences=1, sequence_steps=4)


def test_weights_of_convolutions_are_channels_last_and_stay_so_when_loaded(tmp_path: Path) -> None:
    save_pretrained(make_agent(), tmp_path / "agent")
    for agent in (make_agent(), from_pretrained(tmp_path / "agent", expect=DreamerAgent)):
        kernels = [p for p in agent.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[-1] > 1]
        assert kernels
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_backward_passes_run_outside_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    backward = torch.Tensor.backward

    def spy(loss: torch.Tensor, *arguments, **options) -> None:
        seen.append(torch.is_autocast_enabled("cpu"))
        backward(loss, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "backward", spy)
    make_agent(precision="bf16").update_on(make_batch())
    assert seen == [False, False]


def test_a_continue_head_is_trained_by_the_end_of_episodes() -> None:
    """Two batches alike but for the termination: only the head's loss tells them apart before the step."""
    losses = {}
    for terminal in (False, True):
        agent = make_agent(world=replace(make_config().world, continue_head=True))
        head = agent.world_model.continue_head
        torch.nn.init.zeros_(head.out.weight), torch.nn.init.constant_(head.out.bias, 2.0)
        before = weights(agent)
        batch = make_batch()
        batch.is_terminal[0, -1] = terminal
        losses[terminal] = agent.update_on(batch)
        assert "world_model.continue_head.out.weight" in moved(before, agent)
    goes_on, ends = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))  # at a logit of 2
    assert losses[False]["continue_loss"].item() == pytest.approx(goes_on, rel=1e-5)
    assert losses[True]["continue_loss"].item() == pytest.approx((17 * goes_on + ends) / 18, rel=1e-5)
    assert losses[True]["image_loss"] == losses[False]["image_loss"]


def test_slow_critic_is_a_whole_copy_every_few_updates() -> None:
    agent = make_agent()
    slow, fast = agent.behaviour.slow_critic.out.weight, agent.behaviour.critic.out.weight
    initial = fast.clone()
    agent.update_on(make_batch())
    agent.update_on(make_batch())
    assert torch.equal(slow, initial)
    second = fast.clone()
    agent.update_on(make_batch())  # the third update begins with a copy
    assert torch.equal(slow, second)
    assert not torch.equal(fast, second)


def test_each_optimiser_clips_the_norm_of_its_own_parameters() -> None:
    """Far below what the gradients are, so that every group ends at the limit itself."""
    agent = make_agent(clip_norm=1e-3)
    metrics = agent.update_on(make_batch())
    for name, optimiser in agent.optimisers.items():
        gradients = [p.grad for p in optimiser.param_groups[0]["params"]]
        norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
        assert norm.item() == pytest.approx(1e-3, rel=1e-3), name
        assert metrics[f"{name}_grad_norm"] > 1e-3


def test_weight_decay_acts_on_every_optimisers_weights() -> None:
    """Coupled decay of 1e6 drowns every gradient: Adam's first step is then lr towards zero, whatever the weight."""
    agent = make_agent(weight_decay=1e6, clip_norm=1.0, world_lr=1e-3, behaviour_lr=1e-3)
    before = weights(agent)
    agent.update_on(make_batch())
    for optimiser in agent.optimisers.values():
        group = {id(p) for p in optimiser.param_groups[0]["params"]}
        names = [name for name, p in agent.named_parameters() if id(p) in group and p.grad is not None]
        assert names
        for name in names:
            old, new = before[name], agent.get_parameter(name)
            big = old.abs() > 1e-2
            assert torch.allclose((old - new)[big], 1e-3 * old.sign()[big], rtol=0.01), name


def test_behaviour_learning_leaves_the_world_model_alone() -> None:
    agent = make_agent()
    agent.train()
    rows = {name: torch.from_numpy(part) for name, part in vars(make_batch()).items()}
    start, _, bad = agent._update_world(**rows)
    before = weights(agent)
    gradients = [parameter.grad.clone() for parameter in agent.world_model.rssm.parameters()]
    agent._update_behaviour(start, bad)
    assert all(name.startswith("behaviour.") for name in moved(before, agent))
    for parameter, gradient in zip(agent.world_model.rssm.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_bonus_reaches_the_behavioural_head_and_not_the_representative_one() -> None:
    """With beta huge the behavioural loss is huge, and the representative one as without a bonus."""
    losses = {}
    for beta in (0.0, 100.0):
        agent = make_agent(intrinsic=replace(make_config().intrinsic, beta=beta))
        metrics = agent.update_on(make_batch())
        losses[beta] = (
            metrics["behavioural_reward_loss"].item(),
            metrics["representative_reward_loss"].item(),
        )
    assert losses[100.0][0] > 100 * losses[0.0][0]
    assert losses[100.0][1] == losses[0.0][1]


def test_a_non_finite_step_is_skipped_and_counted() -> None:
    agent = make_agent()
    agent.update_on(make_batch())
    before = weights(agent)
    batch = make_batch()
    batch.reward[0, 0] = np.nan
    agent.update_on(batch)
    assert (agent.updates, agent.skipped_updates) == (2, 1)
    assert not moved(before, agent)
    agent.update_on(make_batch())
    assert agent.skipped_updates == 1
    assert moved(before, agent)


def test_a_skipped_update_leaves_every_buffer() -> None:
    """BatchNorm's statistics and the bonus's queue: one NaN would stay in them, and acting reads the former."""
    agent = make_agent()
    agent.update_on(make_batch())
    before = {name: buffer.clone() for name, buffer in agent.named_buffers()}
    batch = make_batch(1)
    batch.action[0, 2] = np.nan
    agent.update_on(batch)
    assert agent.skipped_updates == 1
    for name, buffer in agent.named_buffers():
        assert buffer.isfinite().all(), name
        assert torch.equal(buffer, before[name]), name
    agent.update_on(make_batch(1))
    assert agent.skipped_updates == 1
    assert any(not torch.equal(buffer, before[name]) for name, buffer in agent.named_buffers())


def test_dreamerv2_from_scratch_is_the_same_agent_without_a_video_rssm() -> None:
    agent = make_dreamerv2()
    with pytest.raises(ValueError, match="set intrinsic to null"):
        replace(make_config(), world=agent.config.world)
    metrics = agent.update_on(make_batch())
    assert not {"intrinsic_bonus", "video_kl", "representative_reward_loss"} & set(metrics)
    action, state = agent.act(np.zeros((1, 3, 32, 32), np.uint8), agent.initial_state(1), explore=True)
    assert action.shape == (1, 2)
    assert state.world.video is None


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("batch_sequences", 0, "batch_sequences is at least 1, got 0"),
        ("sequence_steps", 0, "sequence_steps is at least 1, got 0"),
        ("held_updates", -1, "held_updates is at least 0, got -1"),
        ("world_lr", -1, "world_lr is at least 0, got -1.0"),
        ("behaviour_lr", -1, "behaviour_lr is at least 0, got -1.0"),
        ("adam_eps", 0, "adam_eps is above 0, got 0.0"),
        ("weight_decay", -1, "weight_decay is at least 0, got -1.0"),
        ("clip_norm", 0, "clip_norm is above 0, got 0.0"),
        ("behaviour.imagined_steps", 1, "behaviour: imagined_steps is at least 2, got 1"),
        ("behaviour.slow_critic_updates", 0, "behaviour: slow_critic_updates is at least 1, got 0"),
        ("behaviour.discount", 1.1, "behaviour: discount is at least 0 and at most 1, got 1.1"),
        ("behaviour.lambda_", -1, "behaviour: lambda_ is at least 0 and at most 1, got -1.0"),
        ("behaviour.entropy_scale", -1, "behaviour: entropy_scale is at least 0, got -1.0"),
        ("intrinsic.beta", -1, "intrinsic: beta is at least 0, got -1.0"),
        ("intrinsic.projection_size", 0, "intrinsic: projection_size is at least 1, got 0"),
        ("intrinsic.k", 0, "intrinsic: k is at least 1, got 0"),
        ("intrinsic.k", 33, "intrinsic: queue_size=32 is below k=33"),
        ("intrinsic.window_frames", 0, "intrinsic: window_frames is at least 1, got 0"),
        ("intrinsic.momentum", 2, "intrinsic: momentum is at least 0 and at most 1, got 2.0"),
    ],
)
def test_a_setting_out_of_range_is_one_sentence(key: str, value: float, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(make_config(), {key: value}, where="agent")
    assert str(error.value) == f"agent: {sentence}"


def test_acting_follows_the_seed_and_explores_only_when_told() -> None:
    agent = make_agent()
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)

    def play(seed: int, explore: bool) -> np.ndarray:
        state, actions = agent.initial_state(2, seed=seed), []
        for _ in range(3):
            action, state = agent.act(image, state, explore=explore)
            actions.append(action)
        return np.stack(actions)

    assert np.array_equal(play(1, True), play(1, True))
    assert not np.array_equal(play(1, True), play(2, True))
    assert not np.array_equal(play(1, True), play(1, False))
    assert np.abs(play(1, True)).max() < 1


def test_evaluation_takes_the_policys_mode_and_exploration_does_not() -> None:
    agent = make_agent()
    image = make_batch().image[:, 0]
    for explore in (True, False):
        action, state = agent.act(image, agent.initial_state(3), explore=explore)
        with torch.no_grad():
            mode = agent.behaviour.actor(agent.world_model.feature(state.world)).mode.numpy()
        assert np.allclose(action, mode) != explore


def test_pretrained_weights_arrive_and_other_networks_are_refused() -> None:
    video = create_model("contextwm-debug")
    agent = DreamerAgent.from_video_world_model(video, make_config())
    for name, tensor in video.rssm.state_dict().items():
        assert torch.equal(agent.world_model.video_rssm.state_dict()[name], tensor)
    plain = create_model("plainwm-debug")
    with pytest.raises(ValueError, match="does not fit"):
        DreamerAgent.from_video_world_model(plain, make_config())


def test_saved_agent_acts_the_same_in_a_new_object(tmp_path: Path) -> None:
    agent = make_agent()
    agent.update_on(make_batch())
    save_pretrained(agent, tmp_path / "agent")
    loaded = from_pretrained(tmp_path / "agent", expect=DreamerAgent)
    image = make_batch().image[:, 0]
    ours, _ = agent.act(image, agent.initial_state(3, seed=5), explore=True)
    theirs, _ = loaded.act(image, loaded.initial_state(3, seed=5), explore=True)
    assert np.array_equal(ours, theirs)


def test_update_continues_bit_for_bit_from_weights_and_training_state() -> None:
    one = make_agent()
    one.update_on(make_batch(0))
    two = DreamerAgent(one.config)
    two.load_state_dict(one.state_dict())
    two.load_training_state(deepcopy(one.training_state()))
    for agent in (one, two):
        torch.manual_seed(7)
        agent.update_on(make_batch(1))
    assert two.updates == 2
    for name, tensor in one.state_dict().items():
        assert torch.equal(two.state_dict()[name], tensor), name


def test_the_recorded_update_is_another_once_the_pretrained_group_is_no_longer_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph replays the learning rate of its recording."""
    agent, keys, batch = make_agent(held_updates=2), [], make_batch()

    def replay(rows: dict, *, key: bool | None = None) -> tuple[dict, torch.Tensor]:
        keys.append(key)
        return {}, torch.zeros(())

    monkeypatch.setattr(DreamerAgent, "device", torch.device("cuda"))
    monkeypatch.setattr(torch, "from_numpy", lambda part: SimpleNamespace(to=lambda device: part))
    monkeypatch.setattr(agent, "_recorded_update", lambda: replay)
    for _ in range(3):
        agent.update_on(batch)
    assert keys == [True, True, False]


@pytest.mark.parametrize(("logit", "expected"), [(-50.0, 2.0), (50.0, 2 * (1 + 0.5 + 0.25))])
def test_imagined_rewards_stop_where_the_continue_head_says_so(logit: float, expected: float) -> None:
    """Reward 2 everywhere, values 0, gamma 0.5, lambda 1: the first of three targets is 2 alone or 2 + 1 + 0.5."""
    config = make_config()
    agent = make_agent(
        world=replace(config.world, continue_head=True),
        behaviour=replace(config.behaviour, discount=0.5, lambda_=1.0),
        world_lr=0.0,
    )
    heads = (agent.world_model.behavioural_head, 2.0), (agent.world_model.continue_head, logit)
    for head, value in (*heads, (agent.behaviour.critic, 0.0)):
        torch.nn.init.zeros_(head.out.weight), torch.nn.init.constant_(head.out.bias, value)
    later = 2 * (1 + 0.5) if logit > 0 else 2.0
    metrics = agent.update_on(make_batch())
    assert metrics["imagined_return"].item() == pytest.approx((expected + later + 2) / 3, rel=1e-4)
