"""Would a plan by this model be right? Open-loop planning error on logged windows, without a simulator.

The last frame of a held-out window is the goal. The plans are the actions that were logged on the way there and those of other
windows; the model imagines where each leads from the frames it has seen, and a planner would take the plan whose last decoded
frame has the least squared error to the goal.

    frame        0  1  2  3  4 | 5  6 ...  T-1
    model sees   x  x  x  x  x |           goal
    a plan                     | a5 a6 ... a(T-1)      by the most probable latents

The error of a window is the share of the other plans that the model takes for better than the true one, ties counting half:
0 is a planner that is never led astray, 0.5 is one that does not know what actions do.

Shape key: B windows, T frames of a window, P plans (the true one first).
"""

from typing import Any

import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cwm_hub.evaluation.held_out import HeldOut
from cwm_hub.evaluation.intervals import BOOTSTRAP_FIELDS, mean_interval
from cwm_hub.evaluation.predict import BATCH_CLIPS
from cwm_hub.evaluation.protocol import Protocol, resampled
from cwm_hub.models.action_world_model import ActionWorldModel

OTHER_PLANS = 15
"""At most, taken from the windows that follow in the list, which are of other source videos as far as there are some."""


def planning_error(model: ActionWorldModel, held_out: HeldOut, protocol: Protocol) -> dict[str, Any]:
    """Data set -> mean error over its windows with an interval over source videos, and how many plans each had.

    Args:
        model: In evaluation mode.
        held_out: Windows with actions, two or more of every data set.
        protocol: Of the scorecard: what is seen, and the bootstrap.
    """
    assert held_out.action is not None
    bootstrap = {field: getattr(protocol, field) for field in BOOTSTRAP_FIELDS}
    found = {}
    for name in held_out.manifests:
        rows = [row for row, (data_set, *_) in enumerate(held_out.windows) if data_set == name]
        videos = [held_out.windows[row][1] for row in rows]
        errors = plan_errors(
            model, held_out.video[rows], held_out.action[rows], observed_frames=protocol.observed_frames
        )
        shares = mistaken_share(errors).cpu().numpy()
        counts = {"plans": len(errors), "windows": len(rows), "videos": len(set(videos))}
        groups = resampled([(name, video) for video in videos], protocol.recordings)
        found[name] = mean_interval(shares, {**bootstrap, "videos": groups}) | counts
    return found


def mistaken_share(errors: Float[Tensor, "P B"]) -> Float[Tensor, " B"]:
    """Share of the other plans whose error is below that of the first, a tie counting half."""
    true, others = errors[:1], errors[1:]
    return ((others < true).double() + 0.5 * (others == true).double()).mean(0)


@torch.no_grad()
def plan_errors(
    model: ActionWorldModel,
    video: UInt8[Tensor, "B T 3 H W"],
    action: Float32[Tensor, "B T A"],
    *,
    observed_frames: int,
) -> Float[Tensor, "P B"]:
    """Mean squared error of the imagined last frame to the true one, in grey levels squared.

    Plan 0 is a window's own, plan p that of the window p places further on.
    """
    device = next(model.parameters()).device
    plans = min(OTHER_PLANS, len(video) - 1) + 1
    rolled = torch.stack([action.roll(-plan, 0)[:, observed_frames:] for plan in range(plans)])
    parts = []
    for at in range(0, len(video), BATCH_CLIPS):
        rows = slice(at, at + BATCH_CLIPS)
        seen, goal = video[rows, :observed_frames].to(device), video[rows, -1].to(device)
        is_first = torch.zeros(seen.shape[:2], dtype=torch.bool, device=device)
        is_first[:, 0] = True
        output = model.observe(seen, action[rows, :observed_frames].to(device), is_first, sample=False)
        last = output.posterior.select((slice(None), -1))
        context = model.frame_model.default_context(seen)
        of_plan = []
        for plan in rolled[:, rows].to(device):
            future = model.rssm.imagine(last, plan, sample=False)
            frame = model.decode(model.rssm.feature(future)[:, -1:], context)[:, 0]
            of_plan.append((frame.float() - goal.float()).square().mean((1, 2, 3)))
        parts.append(torch.stack(of_plan))
    return torch.cat(parts, 1)
