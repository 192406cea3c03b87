"""New videos, and those that failed before, for a set that is finished: new shards beside the old, whose bytes stay.

    base     train-00000-of-00002, train-00001-of-00002
    added    train-00002-of-00003                         numbered on: every reader takes it for the same split

An addition is a run like the first, with a plan of its own (`.state/plan-added-001.json`); killed, it goes on when the
same command is given again, with the videos that it had, and until it has ended the set is what it was before. It is listed in the manifest's
configuration, under `additions`. What of it is lost is written again from the videos that it had (`--mend`), whatever
was added since.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cwm_hub.command_line import how_many
from cwm_hub.config import to_dict
from cwm_hub.shards.index import read_index_table
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.storage import Root
from dataprep.sharding.changes import refuse_other_options
from dataprep.sharding.ledger import (
    STATES,
    library_versions,
    read_extents,
    read_plans,
    read_state,
    read_states,
)
from dataprep.sharding.plan import (
    SKIPS,
    SPLITS,
    Failure,
    Listing,
    Plan,
    ShardConfig,
    ShardTask,
    SourceVideo,
    extent,
    make_plan,
)
from dataprep.sharding.replaced import find_replaced


@dataclass(frozen=True)
class Addition:
    """What is to be done to a finished set."""

    number: int
    """Counted from 1."""
    plan: Plan | None
    """None: there is nothing to add."""
    notes: tuple[str, ...]
    """What is left alone, and what of it is not as it was."""


def settled_splits(root: Root) -> dict[str, str]:
    """Split of every video of a finished set, by its path: what belongs to it later follows."""
    table = read_index_table(root).select(["source_path", "split"])
    return dict(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))


def plan_addition(
    root: Root, listing: Listing, config: ShardConfig, *, append: bool, retry_failures: bool
) -> Addition:
    """Choose what is new of the listing (`append`), and what failed before (`retry_failures`).

    Raises:
        ValueError: the set is not finished, or was made with other options.
    """
    manifest, plans = Manifest.load(root), read_plans(root)
    refuse_other_options(root, plans[0]["config"], to_dict(config))
    number = len(manifest.config.get("additions", [])) + 1
    for one in plans[:number]:
        deque(read_states(root, one), maxlen=0)  # what finalising refuses is refused before the work
    there = _paths(root)
    before = _extents(root, len(plans))
    reasons = {failure["source_path"]: failure["reason"] for failure in read_failures(root)}
    failed, chosen = [], []
    for source in listing.sources:
        reason = reasons.get(source.source_path)
        is_another = before.get(source.id, extent(source)) != extent(source)
        if reason is not None and (reason not in SKIPS or is_another):  # too short, and another file now
            failed.append(source)
            chosen += [source] if retry_failures else []
        elif append and reason is None and source.id not in there:
            chosen.append(source)
    notes = (
        f"{how_many(sum(source.id in there for source in listing.sources), 'video')} are in {root} and left alone",
        *_failed_before(0 if retry_failures else len(failed)),
        *_changed(root, plans, there, before, listing.sources),
    )
    if number < len(plans):
        begun = plan_again(root, listing, config, number, set())
        later = len({source.id for source in chosen} - {source.id for source in begun.sources})
        on = f"an addition of {how_many(len(begun.sources), 'video')} was begun and goes on"
        then = f"; {how_many(later, 'more video')} can be added when it has ended: give the command again"
        return Addition(number, begun, (*notes, on + (then if later else "")))
    if not chosen:
        return Addition(number, None, notes)
    versions = [v["measures"] for v in (plans[0]["versions"], library_versions())]
    if versions[0] != versions[1]:
        measured = f"{root} was measured by version {versions[0]}, what is added is by version {versions[1]}"
        notes += (f"{measured}: its columns for filters (motion, moving, cuts, ...) may differ",)
    failures = tuple(failure for failure in listing.failures if append and failure.source_path not in reasons)
    plan = make_plan(replace(listing, sources=tuple(chosen), failures=failures), config)
    splits = Counter(source.split for source in chosen)
    added = f"{how_many(len(chosen), 'video')} to be added: {', '.join(f'{splits[split]} to {split}' for split in SPLITS if splits[split])}"
    return Addition(number, _number_on(plan, plans[:number]), (*notes, added))


def plan_again(
    root: Root, listing: Listing, config: ShardConfig, number: int, retried: Collection[str]
) -> Plan:
    """The plan of addition `number` (0: of the beginning) from the videos that it had, whatever is listed beside them.

    `retried` are `added_later`: they may have been mended since.

    Raises:
        ValueError: there is no such addition, or its videos were not recorded.
    """
    plans = read_plans(root)
    if not 0 <= number < len(plans):
        raise ValueError(f"{root} has {how_many(len(plans) - 1, 'addition')}: there is no number {number}")
    recorded = read_extents(root, number)
    if recorded is None and number:
        raise ValueError(f"{root}: which videos addition {number} had was not recorded: make the set anew")
    split = {
        video: (name, size) for name, videos in (recorded or {}).items() for video, size in videos.items()
    }
    had = []
    for source in listing.sources:
        if recorded is None:
            had.append(source)
        elif source.id in split:
            name, size = split[source.id]
            is_mended = source.id in retried and extent(source) == source.bytes
            had.append(replace(source, split=name, bytes=size if is_mended else source.bytes))
    failures = tuple(Failure(*values) for values in plans[number]["failures"])
    plan = make_plan(replace(listing, sources=tuple(had), failures=failures), config)
    return _number_on(plan, plans[:number])


def left_out(root: Root, tasks: Iterable[ShardTask], retried: Collection[str]) -> dict[str, Failure]:
    """Videos that gave no clip when these shards were written, by id.

    A shard that is written again has none of them either: a video that was mended since is in the addition that tried it
    again. Without a commit marker only those are known (`retried`: `added_later`).
    """
    there, found = root.files(STATES), {}
    for task in tasks:
        state = read_state(root, task.state_file) if Path(task.state_file).name in there else None
        failed = {failure.source_path: failure for failure in state.failures} if state else {}
        for source in task.sources:
            if source.source_path in failed:
                found[source.id] = failed[source.source_path]
            elif source.id in retried:
                found[source.id] = Failure(source.source_path, "retried", "a later addition has it")
    return found


def added_later(root: Root, number: int) -> set[str]:
    """Ids of the videos of every addition after this one."""
    later = range(number + 1, len(read_plans(root)))
    return {video for one in later for videos in (read_extents(root, one) or {}).values() for video in videos}


def _number_on(plan: Plan, before: Iterable[Mapping[str, Any]]) -> Plan:
    """The plan with its shards numbered after those of the recorded plans `before` it."""
    firsts = Counter[str]()
    for one in before:
        firsts.update(one["shards"])
    tasks = [
        replace(task, index=task.index + firsts[task.split], count=task.count + firsts[task.split])
        for task in plan.tasks
    ]
    return replace(plan, tasks=tuple(tasks))


def _paths(root: Root) -> dict[str, str]:
    """Path of every video that is in the set, by its id."""
    table = read_index_table(root)
    return dict(zip(*(table.column(name).to_pylist() for name in ("source", "source_path")), strict=True))


def _extents(root: Root, plans: int) -> dict[str, int]:
    """Extent of every video that this many plans had, by its id, the newest one's."""
    before: dict[str, int] = {}
    for number in range(plans):
        for videos in (read_extents(root, number) or {}).values():
            before.update(videos)
    return before


def _failed_before(videos: int) -> Iterable[str]:
    if videos:
        yield f"{how_many(videos, 'video')} failed before and {'is' if videos == 1 else 'are'} left alone: --retry-failures tries again"


def _changed(
    root: Root,
    plans: Sequence[Mapping[str, Any]],
    there: Mapping[str, str],
    before: Mapping[str, int],
    listed: Sequence[SourceVideo],
) -> Iterable[str]:
    """A sentence on the videos of the set that are other files now, or not listed any more; their clips stay."""
    now = {source.id: extent(source) for source in listed}
    others = {there[v] for v in there if v in now and before.get(v, now[v]) != now[v]}
    replaced = sorted(others.union(*(find_replaced(root, plan, listed) for plan in plans)))
    gone = sorted(path for video, path in there.items() if video not in now)
    said = (
        [f"{how_many(len(replaced), 'video')} of {root} changed since ({_first(replaced)})"]
        if replaced
        else []
    )
    if gone:
        said.append(
            f"{how_many(len(gone), 'video')} of {root} {'are' if len(gone) > 1 else 'is'} not listed any more ({_first(gone)})"
        )
    if said:
        yield f"{' and '.join(said)}: their clips stay as they were made; another --out makes a set of what is there now"
    if not before:
        yield f"{root} was made by a version that did not record its videos' sizes: a replaced one is not noticed"


def _first(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]}, ..."
