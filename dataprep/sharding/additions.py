"""New videos, and those that failed before, for a set that is finished: new shards beside the old, whose bytes stay.

    base     train-00000-of-00002, train-00001-of-00002
    added    train-00002-of-00003                         numbered on: every reader takes it for the same split

An addition is a run like the first, with a plan of its own (`.state/plan-added-001.json`); killed, it goes on when the
same command is given again, and until it has ended the set is what it was before. It is listed in the manifest's
configuration, under `additions`.
"""

from collections import Counter
from dataclasses import dataclass, replace

from cwm_hub.config import to_dict
from cwm_hub.shards.index import read_index_table
from cwm_hub.shards.manifest import Manifest, read_failures
from cwm_hub.shards.storage import Root
from dataprep.sharding.changes import refuse_other_options
from dataprep.sharding.ledger import read_plans
from dataprep.sharding.plan import SKIPS, Listing, Plan, ShardConfig, make_plan


@dataclass(frozen=True)
class Addition:
    """What is to be done to a finished set."""

    number: int
    """Counted from 1."""
    plan: Plan | None
    """None: there is nothing to add."""
    left_alone: int
    """Videos of the listing that are in the set."""


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
    there = set(read_index_table(root).column("source").to_pylist())
    reasons = {failure["source_path"]: failure["reason"] for failure in read_failures(root)}
    chosen = []
    for source in listing.sources:
        reason = reasons.get(source.source_path)
        is_new = append and source.id not in there and reason is None
        if is_new or (retry_failures and reason is not None and reason not in SKIPS):
            chosen.append(source)
    left_alone = sum(source.id in there for source in listing.sources)
    if not chosen:
        return Addition(number, None, left_alone)
    failures = tuple(failure for failure in listing.failures if append and failure.source_path not in reasons)
    plan = make_plan(replace(listing, sources=tuple(chosen), failures=failures), config)
    firsts = Counter[str]()
    for before in plans[:number]:
        firsts.update(before["shards"])
    tasks = [
        replace(task, index=task.index + firsts[task.split], count=task.count + firsts[task.split])
        for task in plan.tasks
    ]
    return Addition(number, replace(plan, tasks=tuple(tasks)), left_alone)
