"""The plan depends on its input and nothing else, covers every video once, and says what it cannot use."""

import dataclasses

import pytest
from openers import raw_config

from dataprep.decode.frames import DecodeSettings
from dataprep.sharding.plan import Failure, Listing, SourceVideo, make_plan, printable


def listing_of(count: int, split: str = "train") -> Listing:
    return Listing(tuple(SourceVideo(f"{split}-{i}", f"/v/{i}", f"{i}.mp4", split) for i in range(count)))


def test_every_video_is_in_exactly_one_shard_of_its_split() -> None:
    listing = Listing(listing_of(10).sources + listing_of(3, "validation").sources)
    plan = make_plan(listing, raw_config(videos_per_shard=4))
    assert [(t.split, t.index, t.count) for t in plan] == [
        ("train", 0, 3), ("train", 1, 3), ("train", 2, 3), ("validation", 0, 1),
    ]  # fmt: skip
    dealt = [source for task in plan for source in task.sources]
    assert sorted(dealt, key=lambda s: s.id) == sorted(listing.sources, key=lambda s: s.id)
    assert all(source.split == task.split for task in plan for source in task.sources)
    assert max(len(t.sources) for t in plan.tasks[:3]) - min(len(t.sources) for t in plan.tasks[:3]) <= 1
    assert plan.tasks[1].file == "data/train-00001-of-00003.tar"
    assert plan.tasks[1].state_file == ".state/shards/train-00001-of-00003.json"


def test_the_order_of_the_listing_does_not_matter() -> None:
    listing = listing_of(20)
    turned = dataclasses.replace(listing, sources=listing.sources[::-1])
    assert make_plan(listing, raw_config()) == make_plan(turned, raw_config())


def test_the_deal_is_shuffled_by_the_seed() -> None:
    listing = listing_of(50)
    first, again, other = (make_plan(listing, raw_config(seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first.hash != other.hash
    order = [source.id for source in first.tasks[0].sources]
    assert order != sorted(order)
    assert order != [source.id for source in other.tasks[0].sources]


@pytest.mark.parametrize(
    "change",
    [{"bytes": 7}, {"path": "/elsewhere"}, {"label": 3}, {"label_text": "x"}, {"options": (("crop", 1),)}],
)
def test_the_hash_sees_what_decides_the_bytes(change: dict[str, object]) -> None:
    listing = listing_of(3)
    changed = Listing((dataclasses.replace(listing.sources[0], **change), *listing.sources[1:]))  # type: ignore[arg-type]
    same = make_plan(listing, raw_config()).hash == make_plan(changed, raw_config()).hash
    assert same == (change == {"path": "/elsewhere"})  # a moved input folder is the same work


def test_the_hash_sees_the_configuration() -> None:
    listing = listing_of(3)
    hashes = {
        make_plan(listing, config).hash
        for config in (raw_config(), raw_config(codec="jpeg"), raw_config(decode=DecodeSettings(size=16)))
    }
    assert len(hashes) == 3


def test_a_limit_takes_the_same_videos_of_each_split_every_time() -> None:
    listing = Listing(listing_of(10).sources + listing_of(10, "validation").sources)
    few = make_plan(listing, raw_config(limit=3))
    more = make_plan(listing, raw_config(limit=5))
    ids = [{source.id for task in plan for source in task.sources} for plan in (few, more)]
    assert [len(i) for i in ids] == [6, 10]
    assert ids[0] < ids[1]


def test_parts_of_one_file_are_dealt_together_and_in_order() -> None:
    """Files of 5, 3 and 3 parts, at most 4 to a shard: runs of 2, 3, 3 and 3."""
    parts = [(file, part) for file, count in (("a", 5), ("b", 3), ("c", 3)) for part in range(count)]
    sources = tuple(SourceVideo(f"{file}-{part}", f"/{file}", f"{file}/{part}") for file, part in parts)
    plan = make_plan(Listing(sources, share_files=True), raw_config(videos_per_shard=4))
    assert sorted(source.id for task in plan for source in task.sources) == sorted(s.id for s in sources)
    runs = [source.id for task in plan for source in task.sources]
    for run in (["a-0", "a-1"], ["a-2", "a-3", "a-4"], ["b-0", "b-1", "b-2"], ["c-0", "c-1", "c-2"]):
        assert runs[runs.index(run[0]) :][: len(run)] == run
        assert sum(any(source.id in run for source in task.sources) for task in plan) == 1
    few = make_plan(Listing(sources, share_files=True), raw_config(videos_per_shard=4, limit=5))
    assert [len(task.sources) for task in few] in ([3, 2], [2, 3])


@pytest.mark.parametrize(
    ("listing", "sentence"),
    [
        (Listing(()), "no video found"),
        (
            Listing((), (Failure("a", "link_loop"), Failure("b", "link_loop"), Failure("c", "unreadable"))),
            r"no video found that could be read \(2 link_loop, 1 unreadable\)",
        ),
        (Listing(listing_of(2).sources * 2), "2 source videos share their id"),
        (listing_of(1, "holdout"), "unknown split 'holdout', expected train, validation, test"),
    ],
)
def test_what_cannot_be_planned_is_a_sentence(listing: Listing, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_plan(listing, raw_config())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"codec": "vp9"}, "unknown codec 'vp9'"),
        ({"codec": "h264", "decode": DecodeSettings(size=65)}, "even size, got 65"),
        ({"codec": "jpeg", "decode": DecodeSettings(size=512)}, "holds 127 frames of 512 pixels"),
        ({"overlap_frames": 256}, "overlap_frames is at least 0 and below 256, got 256"),
        ({"limit": 0}, "limit is at least 1, got 0"),
        ({"videos_per_shard": 0}, "videos_per_shard is at least 1, got 0"),
    ],
)
def test_an_impossible_configuration_is_a_sentence(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        raw_config(**changes)


def test_paths_become_printable() -> None:
    assert printable("plain/ünïcode") == "plain/ünïcode"
    assert printable(b"latin1_\xe9.mp4".decode("utf-8", "surrogateescape")) == r"latin1_\xe9.mp4"
