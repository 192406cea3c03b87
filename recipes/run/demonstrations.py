"""Logged episodes as the beginning of an agent's replay: what `finetune --demonstrations` puts there before the prefill."""

from collections.abc import Iterator

import numpy as np

from cwm_hub.agents.agent import Agent
from cwm_hub.agents.replay import Episode, Replay
from cwm_hub.shards.arrays import decode_arrays
from cwm_hub.shards.codecs import decode_clip
from cwm_hub.shards.index import ClipRow, read_index
from cwm_hub.shards.manifest import Manifest
from cwm_hub.shards.storage import Root
from recipes.run.folder import RecipeError

MOST_ACTION = 1.001
"""Actions of an environment lie in [-1, 1]; rounding may leave them by a little."""


def seed_replay(
    replay: Replay, agent: Agent, place: str, *, action_size: int, image_size: int
) -> tuple[int, int]:
    """Add every training episode of a set of shards, by its id.

    Returns:
        Episodes and their steps, resets not counted.

    Raises:
        ShardError: there is no readable set.
        RecipeError: its episodes are not ones of this environment and agent; the sentence says why.
    """
    root = Root.parse(place)
    check_set(Manifest.load(root), place, action_size=action_size, image_size=image_size)
    episodes = steps = 0
    for source, episode in read_episodes(root):
        largest = float(np.abs(episode.action).max())
        if largest > MOST_ACTION:
            raise RecipeError(
                f"{place}: {source} has an action of {largest:g}, and those of an environment lie in [-1, 1]"
            )
        if episode.terminated and not agent.learns_termination:
            raise RecipeError(
                f"{place}: {source} ends by itself (is_terminal), which this agent would take for a time limit: set "
                "--agent.world.continue_head true"
            )
        if len(episode) < agent.episode_rows:
            raise RecipeError(
                f"{place}: {source} has {len(episode)} frames and the agent learns from {agent.episode_rows} at once: "
                "leave out the short ones (cwm-dataprep filter), lower agent.sequence_steps, or set agent.repeat_short"
            )
        replay.add(episode)
        episodes, steps = episodes + 1, steps + len(episode) - 1
    return episodes, steps


def check_set(manifest: Manifest, place: str, *, action_size: int, image_size: int) -> None:
    """Refuse a set that cannot be an agent's experience; raises RecipeError."""
    arrays = manifest.arrays
    missing = [name for name in ("action", "reward") if name not in arrays]
    if missing:
        raise RecipeError(
            f"{place} holds no {missing[0]} beside its clips, and demonstrations are worth what their rewards say"
        )
    found = arrays["action"].shape[0]
    if found != action_size:
        raise RecipeError(f"{place} holds actions of {found} numbers and the environment takes {action_size}")
    if manifest.image_size != image_size:
        raise RecipeError(
            f"{place} holds frames of {manifest.image_size} pixels and env.image_size is {image_size}"
        )


def read_episodes(root: Root) -> Iterator[tuple[str, Episode]]:
    """(id, episode) of every source video of the training split, its pieces joined.

    Raises:
        RecipeError: there is none, they are of several cameras, or frames of one are missing.
    """
    sources: dict[str, list[ClipRow]] = {}
    rows = [row for row in read_index(root) if row.split == "train"]
    cameras = sorted({row.camera for row in rows})
    if len(cameras) != 1:
        raise RecipeError(
            f"{root} has the cameras {', '.join(cameras)} in its training split, an agent sees one: "
            "cwm-dataprep filter --where camera=..."
            if rows
            else f"{root} has no training split"
        )
    for row in sorted(rows, key=lambda row: (row.source, row.start_frame)):
        sources.setdefault(row.source, []).append(row)
    for source, pieces in sources.items():
        yield source, _join(root, pieces)


def _join(root: Root, pieces: list[ClipRow]) -> Episode:
    frames, logs, have = [], [], 0
    for row in pieces:
        known = have - row.start_frame  # of this piece, from the one before
        if known < 0:
            raise RecipeError(f"{root}: frames {have} to {row.start_frame - 1} of {row.source} are missing")
        frames.append(decode_clip(root.read_range(row.shard, row.offset, row.size), row.codec)[known:])
        data = root.read_range(row.shard, row.arrays_offset, row.arrays_size)
        logs.append({name: values[known:] for name, values in decode_arrays(data).items()})
        have = row.start_frame + row.num_frames
    if have < pieces[0].source_frames:
        raise RecipeError(
            f"{root}: frames {have} to {pieces[0].source_frames - 1} of {row.source} are missing"
        )
    action, reward, ends = (
        np.concatenate([part[name] for part in logs]) if name in logs[0] else np.zeros(have, bool)
        for name in ("action", "reward", "is_terminal")
    )
    if ends[:-1].any():
        raise RecipeError(f"{root}: {row.source} goes on after its end (is_terminal before the last frame)")
    image = np.ascontiguousarray(np.concatenate(frames).transpose(0, 3, 1, 2))
    return Episode(image, action, reward, terminated=bool(ends[-1]))
