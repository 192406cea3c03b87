"""What a run leaves in `.state/` so that the next one can go on, and how finished shards become a data set.

    .state/run.lock                     held while a run writes; released by the system however the run ends
    .state/plan.json                    configuration, source list's hash, library versions, shards of each split
    .state/plan-added-001.json          the same of what was added to the finished set, see `additions`
    .state/videos.json                  extent of every video of the plan, by split and id; -added-001 of an addition's
    .state/columns.json                 the user's own columns of the index, by name and source video
    .state/shards/train-00000-of-N.json one for every finished shard (see `worker.ShardState`)

`finalize` needs nothing but these files, so it can run after shards were written by many machines.
"""

import contextlib
import dataclasses
import hashlib
import json
import platform
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

import cwm_hub
from cwm_hub.command_line import how_many
from cwm_hub.config import to_dict
from cwm_hub.shards.arrays import Sums, describe_arrays
from cwm_hub.shards.extra_columns import Columns, add_columns
from cwm_hub.shards.index import INDEX, index_bytes, index_table
from cwm_hub.shards.manifest import FAILURES, Manifest, ShardRecord, failures_bytes, shard_name
from cwm_hub.shards.measures import MEASURES_VERSION
from cwm_hub.shards.storage import Root, lock
from dataprep.sharding.changes import refuse_changes
from dataprep.sharding.plan import SKIPS, Failure, Plan, ShardTask, count_reasons, extent
from dataprep.sharding.worker import OutputError, ShardState, output_errors, remove_leftovers

PLAN = ".state/plan.json"
VIDEOS = ".state/videos.json"
LOCK = ".state/run.lock"
STATES = ".state/shards"
COLUMNS = ".state/columns.json"
PLAN_FIELDS = frozenset(
    "plan_hash sources_hash videos config versions shards failures licence redistributable".split()
)


@dataclass(frozen=True)
class Origin:
    """What the manifest says of the data set beyond the configuration."""

    licence: str = "unknown"
    """Licence of the source videos, for manifest and card."""
    redistributable: bool = False
    """That licence lets others publish shards of them."""


@dataclass(frozen=True)
class Outcome:
    """What a finalised set holds, for the summary and the exit code."""

    manifest: Manifest
    videos: int
    """Source videos that gave at least one clip."""
    failures: int
    """Source videos that gave none, skips aside."""
    skips: int
    """Source videos passed over with nothing wrong: too short, or a second name of another file."""
    reasons: dict[str, int]
    """Failures and skips by reason."""
    rates: tuple[float, float]
    """Frames per second of the slowest and the fastest clip."""


@contextlib.contextmanager
def run_lock(root: Root, part: str = "") -> Iterator[None]:
    """Keep a second run off this output; parts of a `--shard-range` run exclude only a whole run and their like.

    A remote root has no lock, nor have some network file systems: there, one run at a time is the caller's promise.

    Raises:
        ValueError: another run is writing there.
        OutputError: the folder cannot be written.
    """
    home = root.home
    if home is None:
        yield
        return
    with contextlib.ExitStack() as held:
        try:
            (home / LOCK).parent.mkdir(parents=True, exist_ok=True)
            _lock(held, home / LOCK, shared=bool(part))
            if part:
                _lock(held, home / f"{LOCK}-{part}")
        except BlockingIOError as error:
            raise ValueError(
                f"another run is writing to {root}: wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise OutputError(error.errno, f"cannot write to {root}: {error.strerror}") from error
        yield


def _lock(held: contextlib.ExitStack, path: Path, *, shared: bool = False) -> None:
    lock(held.enter_context(path.open("ab")), shared=shared)


def library_versions() -> dict[str, str]:
    """Versions of what decides the bytes of shards and index."""
    names = ("av", "numpy", "pillow")
    ours = {"cwm-hub": cwm_hub.__version__, "measures": MEASURES_VERSION}
    return ours | {"python": platform.python_version()} | {n: version(n) for n in names}


def begin(
    root: Root,
    plan: Plan,
    origin: Origin,
    columns: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    addition: int = 0,
) -> None:
    """Record the plan in an empty output, or check that it is the one recorded there; `columns` may be new ones.

    Args:
        root: the output.
        plan: of the run, its shards numbered after those that are there.
        origin: of the videos.
        columns: the user's own, of the index; those of an addition are put beside the set's.
        addition: number of the addition, 0 for what the set began with.

    Raises:
        ValueError: the output holds other work; the sentence names what differs.
    """
    record = _record(plan, origin, numbered_on=addition > 0)
    name = of_addition(PLAN, addition)
    before = read_plan(root, name)
    if before is None and not addition and root.files("data"):
        raise ValueError(f"{root}/data already holds files that no recorded run wrote: choose another --out")
    if before is not None and before != record:
        refuse_changes(root, before, record)
    with output_errors(root):
        if before is None:
            root.write(of_addition(VIDEOS, addition), _extents(plan))
            root.write(name, json.dumps(record, indent=1).encode())
        if columns is not None:
            has_additions = addition or read_plan(root, of_addition(PLAN, 1)) is not None
            old = _read_columns(root) if has_additions else {}
            names = dict.fromkeys([*old, *columns])
            both = {name: {**old.get(name, {}), **columns.get(name, {})} for name in names}
            root.write(COLUMNS, json.dumps(both).encode())


def of_addition(name: str, number: int) -> str:
    """The file `name` as addition `number` has it, counted from 1; 0 is the set's beginning."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-added-{number:03d}{dot}{suffix}" if number else name


def _extents(plan: Plan) -> bytes:
    by_split: dict[str, dict[str, int]] = {}
    for source in plan.sources:
        by_split.setdefault(source.split, {})[source.id] = extent(source)
    return json.dumps(by_split, separators=(",", ":")).encode()


def read_extents(root: Root, number: int) -> dict[str, dict[str, int]] | None:
    """Extents of the videos of addition `number`, 0 being the beginning, by split and id; None where none are recorded."""
    return _read_nested(root, of_addition(VIDEOS, number))


def _read_nested(root: Root, name: str) -> dict[str, dict[str, Any]] | None:
    """A json object of objects; None where there is no such file."""
    try:
        values = json.loads(root.read(name))
    except FileNotFoundError:
        return None
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise ValueError(f"{root}/{name} is damaged: use --overwrite or another --out")
    return values


def _record(plan: Plan, origin: Origin, *, numbered_on: bool) -> dict[str, Any]:
    """The plan as json holds it; of an addition also the number of its first shard of each split."""
    record = {
        "plan_hash": plan.hash,
        "sources_hash": plan.sources_hash,
        "videos": plan.videos,
        "config": to_dict(plan.config),
        "versions": library_versions(),
        "shards": dict(Counter(task.split for task in plan)),
        "failures": [dataclasses.astuple(failure) for failure in plan.listed_failures],
        "licence": origin.licence,
        "redistributable": origin.redistributable,
    }
    if numbered_on:
        record["firsts"] = {task.split: task.index for task in reversed(plan.tasks)}
    return json.loads(json.dumps(record))


def unfinished(root: Root, tasks: Sequence[ShardTask], plan_hash: str) -> list[ShardTask]:
    """The tasks without a commit marker, or whose tar is gone or has another size than the marker says.

    Temporary files that killed workers left of these tasks are removed.
    """
    states, tars = root.files(STATES), root.files("data")
    remove_leftovers(root, tasks)
    return [task for task in tasks if not _is_done(root, task, plan_hash, states, tars)]


def clear(root: Root) -> None:
    """Remove an earlier run's work (`data`, `meta`, `.state` of a local root), for `--overwrite`.

    Raises:
        ValueError: the folder was not written by a run of this tool, or is remote.
    """
    home = root.home
    if home is None:
        raise ValueError("--overwrite works on local outputs only: remove the remote files yourself")
    held = [path.name for path in home.iterdir() if path.name != ".state"] if home.exists() else []
    if held and not (home / PLAN).is_file():  # .state alone: of this run's own lock
        raise ValueError(f"{root} holds files that no run of cwm-dataprep wrote: nothing was removed")
    for part in ("data", "meta", ".state"):
        shutil.rmtree(home / part, ignore_errors=True)


def finalize(root: Root) -> Outcome:
    """Merge the state files into manifest, index and failures list.

    Raises:
        ValueError: no run was recorded, shards are missing, or no video could be used.
        OutputError: the output cannot be written.
    """
    plan, *added = read_plans(root)
    splits: dict[str, list[ShardRecord]] = {}
    failures = [Failure(*values) for one in (plan, *added) for values in one["failures"]]
    tables: list[pa.Table] = []
    sums: dict[str, list[Sums]] = {}
    sources: set[str] = set()
    paths: set[str] = set()
    for split, state in (found for one in (plan, *added) for found in read_states(root, one)):
        failures.extend(state.failures)
        if state.record is not None:
            splits.setdefault(split, []).append(state.record)
            tables.append(index_table(state.rows))
            sums.setdefault(split, []).append(state.sums)
            sources.update(row.source for row in state.rows)
            paths.update(row.source_path for row in state.rows)
    newest = {
        failure.source_path: failure for failure in failures if failure.source_path not in paths or not added
    }
    failures = sorted(newest.values() if added else failures, key=lambda failure: failure.source_path)
    reasons = Counter(failure.reason for failure in failures)
    with output_errors(root):
        if home := root.home:  # what a run that was killed here left
            for name in (FAILURES, PLAN):
                for path in (home / name).parent.glob(".tmp-*"):
                    path.unlink(missing_ok=True)
        root.write(FAILURES, failures_bytes(dataclasses.asdict(failure) for failure in failures))
        if not sources:
            raise ValueError(f"no video could be used: {count_reasons(reasons)}; see {root}/{FAILURES}")
        index = pa.concat_tables(tables)
        root.write(INDEX, index_bytes(add_columns(index, _read_columns(root))))
        manifest = Manifest(
            name=plan["config"]["name"],
            codec=plan["config"]["codec"],
            image_size=plan["config"]["decode"]["size"],
            splits={split: tuple(records) for split, records in splits.items()},
            config=plan["config"]
            | describe_arrays(sums, plan["config"]["source"].get("arrays", {}))
            | ({"additions": [_addition(one) for one in added]} if added else {}),
            versions=plan["versions"],
            plan_hash=_joint_hash([plan, *added]),
            licence=plan["licence"],
            redistributable=plan["redistributable"],
        )
        manifest.save(root)
    skips = sum(reasons[reason] for reason in SKIPS)
    rates = index.column("fps").to_pylist()
    return Outcome(
        manifest, len(sources), len(failures) - skips, skips, dict(reasons), (min(rates), max(rates))
    )


def _addition(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of a later run."""
    return {name: plan[name] for name in ("plan_hash", "videos", "versions")} | {
        "source": plan["config"]["source"]
    }


def _joint_hash(plans: Sequence[Mapping[str, Any]]) -> str:
    """The hash of the one plan, or of all."""
    hashes = [plan["plan_hash"] for plan in plans]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def read_plans(root: Root) -> list[dict[str, Any]]:
    """The recorded plan, and those of every addition after it.

    Raises:
        ValueError: there is none, or one is damaged.
    """
    first = read_plan(root)
    if first is None:
        raise ValueError(f"{root} holds no recorded run: it has no {PLAN}")
    plans = [first]
    while (added := read_plan(root, of_addition(PLAN, len(plans)))) is not None:
        plans.append(added)
    return plans


def read_origin(root: Root, number: int) -> Origin:
    """What is recorded of the videos of addition `number`, 0 being the beginning."""
    plan = read_plans(root)[number]
    return Origin(plan["licence"], plan["redistributable"])


def read_plan(root: Root, name: str = PLAN) -> dict[str, Any] | None:
    """One of them, None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        plan = json.loads(root.read(name))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError):
        plan = None
    if not isinstance(plan, dict) or plan.keys() - {"firsts"} != PLAN_FIELDS:
        raise ValueError(f"{root}/{name} is damaged: use --overwrite or another --out")
    return plan


def _read_columns(root: Root) -> Columns:
    return _read_nested(root, COLUMNS) or {}


def read_state(root: Root, name: str) -> ShardState | None:
    """None where it is damaged: the shard counts as not written."""
    try:
        return ShardState.from_json(root.read(name))
    except (ValueError, KeyError, TypeError):
        return None


def expected_states(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(split, name of the commit marker) of every shard of a recorded plan."""
    firsts = plan.get("firsts", {})
    return [
        (split, Path(shard_name(split, i, firsts.get(split, 0) + n)).stem + ".json")
        for split, n in plan["shards"].items()
        for i in range(firsts.get(split, 0), firsts.get(split, 0) + n)
    ]


def read_states(root: Root, plan: dict[str, Any]) -> Iterator[tuple[str, ShardState]]:
    """(split, commit marker) of every shard of a recorded plan.

    Raises:
        ValueError: one is missing, damaged, of another plan, or taken back by a repair that was interrupted.
    """
    present, expected = root.files(STATES), expected_states(plan)
    missing = [name.removesuffix(".json") for _, name in expected if name not in present]
    if missing:
        raise ValueError(
            f"{len(missing)} of {how_many(len(expected), 'shard is', 'shards are')} not written yet ({missing[0]}, ...): "
            "run the same command again, or the missing part of the shard range"
        )
    for split, name in expected:
        state = read_state(root, f"{STATES}/{name}")
        if state is None:
            raise ValueError(
                f"{root}/{STATES}/{name} is damaged: run the same command again, it mends the shard"
            )
        if not state.plan_hash:
            raise ValueError(
                f"a repair of {root} was interrupted at {name.removesuffix('.json')}: "
                f"cwm-dataprep verify {shlex.quote(str(root))} --repair ends it"
            )
        if state.plan_hash != plan["plan_hash"]:
            raise ValueError(
                f"{root}/{STATES}/{name} belongs to another plan: use --overwrite or another --out"
            )
        yield split, state


def _is_done(
    root: Root, task: ShardTask, plan_hash: str, states: dict[str, int], tars: dict[str, int]
) -> bool:
    if Path(task.state_file).name not in states:
        return False
    state = read_state(root, task.state_file)
    if state is None or state.plan_hash != plan_hash:
        return False
    return state.record is None or tars.get(Path(task.file).name) == state.record.bytes
