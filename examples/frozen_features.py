"""Frozen features of a video world model as the observation of a gymnasium agent that knows nothing of this library.

    python examples/frozen_features.py 20     # episodes

`Features` is a gymnasium wrapper like others: any library's agent for vectors takes it, such as stable-baselines3's PPO (not
installed here, so not run). This page's agent is a linear policy with REINFORCE: it shows the wiring and learns little.
"""

import sys

import gymnasium
import numpy as np
import torch

from cwm_hub import VideoWorldModel, make_env, resize


class Features(gymnasium.ObservationWrapper):
    """What the model knows after each frame in place of the frame: its latents remember what one frame does not show."""

    def __init__(self, env: gymnasium.Env, model: VideoWorldModel):
        super().__init__(env)
        self.model, self.state = model, model.initial(1)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (model.feature_size,), np.float32)

    def reset(self, **options):  # noqa: D102
        self.state = self.model.initial(1)
        return super().reset(**options)

    def observation(self, frame: np.ndarray) -> np.ndarray:  # noqa: D102
        pixels = torch.from_numpy(resize(frame, self.model.image_size)).permute(2, 0, 1)[None]
        self.state = self.model.obs_step(self.state, pixels, sample=False)
        return self.model.feature(self.state)[0].numpy()


def main() -> None:
    """Train a linear policy on the features and print the return of every episode."""
    episodes = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    env = Features(make_env("scenes", image_size=64), VideoWorldModel.from_pretrained("contextwm-tiny"))
    policy = torch.nn.Linear(env.observation_space.shape[0], env.action_space.shape[0])
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-3)
    for episode in range(episodes):
        (feature, _), ended, log_probs, rewards = env.reset(seed=episode), False, [], []
        while not ended:
            distribution = torch.distributions.Normal(policy(torch.from_numpy(feature)), 0.3)
            action = distribution.sample()
            feature, reward, terminated, truncated, _ = env.step(action.clamp(-1, 1).numpy())
            log_probs.append(distribution.log_prob(action).sum())
            rewards.append(float(reward))
            ended = terminated or truncated
        to_go = torch.tensor(rewards).flip(0).cumsum(0).flip(0)
        loss = -(torch.stack(log_probs) * (to_go - to_go.mean()) / (to_go.std() + 1e-6)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        print(f"episode {episode:>3}  return {sum(rewards):8.2f}")


if __name__ == "__main__":
    main()
