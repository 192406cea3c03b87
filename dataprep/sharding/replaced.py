"""Videos that others of the same size have replaced since their clips were made, known by the ends of their files.

Of a video in a zip they are those of the stretch with its pictures: the zip may grow behind it. Folders of pictures are known by their names and sizes
alone, LeRobot's files by their episodes' lengths, and what is fetched from the Hub by its commit. The output may be remote.

The plan's hash tells another size, and no time: a copy of the videos on another machine is the same work there.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.shards.storage import Root
from dataprep.sharding.ledger import STATES, expected_states, read_state
from dataprep.sharding.plan import SourceVideo, stretch
from dataprep.sharding.recordings import digest_ends


def find_replaced(root: Root, plan: Mapping[str, Any], sources: Iterable[SourceVideo]) -> list[str]:
    """Paths of those whose file begins or ends otherwise than when a shard of the recorded `plan` was written from it.

    Only files are read that were touched since: written, copied, moved or linked there. Files keep their times when a folder is
    moved with them: two that changed places are not noticed.
    """
    by_id, there = {source.id: source for source in sources}, root.files(STATES)
    found: list[str] = []
    for name in (f"{STATES}/{name}" for _, name in expected_states(plan) if name in there):
        state = read_state(root, name)
        if state is None or not state.ends:
            continue
        # what `repair` takes back is of another plan, and of any time
        written = root.modified(name) if state.plan_hash == plan["plan_hash"] else 0.0
        mine = [(by_id[video], digest) for video, digest in state.ends.items() if video in by_id]
        found += [one.source_path for one, digest in mine if _is_another(one, digest, since=written)]
    return sorted(found)


def refuse_replaced(root: Root, plan: Mapping[str, Any], sources: Iterable[SourceVideo]) -> None:
    """Go on only where no video of the plan was replaced.

    Raises:
        ValueError: one was.
    """
    replaced = find_replaced(root, plan, sources)
    if replaced:
        are = how_many(len(replaced), "source video is another file", "source videos are other files")
        raise ValueError(
            f"{root} was begun otherwise: {are} of the same size ({replaced[0]}). "
            "Restore that, use --overwrite, or choose another --out"
        )


def _touched(path: Path) -> float:
    """When a file, or a link on the way to it, was last changed."""
    links = (place.lstat() for place in (path, *path.parents) if place.is_symlink())
    return max(status.st_ctime for status in (path.stat(), *links))


def _is_another(source: SourceVideo, digest: str, *, since: float) -> bool:
    try:
        return _touched(Path(source.path)) >= since and digest_ends(source.path, *stretch(source)) != digest
    except OSError:  # gone, which others say
        return False
