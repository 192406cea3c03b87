"""Planning by the cross-entropy method in an action world model's imagination, one action at a time in an environment.

    python examples/plan_with_cem.py --agent runs/scenes/agent --env scenes --steps 25

Without `--agent` the model has new weights and its plans mean nothing: that shows the calls and how long they take.
"""

import argparse

import torch

from cwm_hub import ActionWorldModel, from_pretrained, make_env, resize
from cwm_hub.agents.presets import agent_preset


def plan(model, state, *, horizon=8, candidates=64, elites=8, rounds=4, generator=None):
    """The actions [horizon, A] whose imagined rewards add up to most, by the mean of the best candidates of each round."""
    mean = torch.zeros(horizon, model.config.action_size)
    std = torch.ones_like(mean)
    many = state.repeat(candidates)
    for _ in range(rounds):
        noise = torch.randn(candidates, *mean.shape, generator=generator)
        actions = (mean + std * noise).clamp(-1, 1)
        actions[0] = mean  # what is good already stays among them
        future = model.imagine(many, actions, sample=False)
        best = actions[model.reward(future).sum(1).topk(elites).indices]
        mean, std = best.mean(0), best.std(0).clamp(min=0.05)
    return mean


def main() -> None:
    """Play one episode, planning anew at every step, and print its return."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", help="checkpoint of a fine-tuned agent or of its world model")
    parser.add_argument("--env", default="scenes")
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    if args.agent is None:
        model = ActionWorldModel(agent_preset("contextwm-mini", action_size=1).world).eval()
        print("new weights: these plans mean nothing")
    else:
        loaded = from_pretrained(args.agent)
        model = loaded if isinstance(loaded, ActionWorldModel) else loaded.world_model
    env = make_env(args.env, image_size=model.image_size)
    frame, _ = env.reset(seed=0)
    state, action, total = model.initial(1), torch.zeros(1, model.config.action_size), 0.0
    for _ in range(args.steps):
        pixels = torch.from_numpy(resize(frame, model.image_size)).permute(2, 0, 1)[None]
        state = model.obs_step(state, pixels, action, sample=False)
        action = plan(model, state)[:1]
        frame, reward, terminated, truncated, _ = env.step(action[0].numpy())
        total += float(reward)
        if terminated or truncated:
            break
    print(f"return {total:.2f} in at most {args.steps} steps")


if __name__ == "__main__":
    main()
