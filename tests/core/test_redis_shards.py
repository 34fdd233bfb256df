"""The hash ring of the shards: where a name belongs, and how few of them move."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels_layers.redis._shards import ShardRing

NAMES = [f"name-{number}" for number in range(2000)]
GOLDEN = [1, 1, 0, 1, 0, 0, 2, 2, 2, 0, 1, 1, 1, 2, 2, 0, 1, 2, 1, 2]
PROGRAM = """
import sys
from channels_layers.redis._shards import ShardRing
labels = sys.argv[1].split()
print(*(labels[ShardRing(labels).of(f"name-{number}")] for number in range(50)))
"""

# Making a ring of nine shards hashes 1440 points.
slow = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
places = st.tuples(st.integers(1, 255), st.integers(1, 65_535))
labels = st.lists(places, min_size=1, max_size=9, unique=True).map(
    lambda found: [f"10.0.0.{host}:{port}/0" for host, port in found]
)
texts = st.text("abXYZ019-_", min_size=1, max_size=20)


def owners(shards, names=NAMES):
    ring = ShardRing(shards)
    return [shards[ring.of(name)] for name in names]


@slow
@given(shards=labels, order=st.randoms(), names=st.lists(texts))
def test_the_order_of_the_hosts_does_not_matter(shards, order, names):
    shuffled = order.sample(shards, len(shards))
    assert owners(shards, names) == owners(shuffled, names)
    assert ShardRing(shards).fingerprint == ShardRing(shuffled).fingerprint


@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_name_belongs_to_the_same_shard_in_every_process(seed):
    shards = ["h1:6379/0", "h2:6379/0", "h3:6379/0"]
    command = [sys.executable, "-c", PROGRAM, " ".join(shards)]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
    )
    assert ran.stdout.split() == owners(shards, NAMES[:50])


def test_a_name_belongs_where_it_did_in_the_releases_before():
    shards = ["h1:6379/0", "h2:6379/0", "h3:6379/0"]
    assert [ShardRing(shards).of(name) for name in NAMES[:20]] == GOLDEN


@slow
@given(shards=labels.filter(lambda found: len(found) > 1))
def test_a_new_shard_takes_about_its_share_of_the_names_and_no_other_moves(shards):
    before, after = owners(shards[:-1]), owners(shards)
    moved = [now for was, now in zip(before, after, strict=True) if was != now]
    assert set(moved) == {shards[-1]}
    assert 0.4 < len(moved) * len(shards) / len(NAMES) < 2


@slow
@given(shards=labels)
def test_every_shard_has_about_its_share_of_the_names(shards):
    counts = Counter(owners(shards))
    for shard in shards:
        assert 0.4 < counts[shard] * len(shards) / len(NAMES) < 2


@slow
@given(shards=labels, names=st.lists(texts))
def test_what_is_remembered_is_what_is_found(shards, names):
    ring = ShardRing(shards)
    assert [ring.of(name) for name in names * 2] == [ring.of(name) for name in names] * 2
    assert all(0 <= ring.of(name) < len(shards) for name in names)


def test_what_is_remembered_has_a_bound(monkeypatch):
    monkeypatch.setattr("channels_layers.redis._shards._MOST_KNOWN", 10)
    shards = ["h1:6379/0", "h2:6379/0"]
    ring = ShardRing(shards)
    assert [shards[ring.of(name)] for name in NAMES] == owners(shards)
    assert len(ring._known) <= 10


@slow
@given(shards=labels, prefix=texts, client=texts, local=texts)
def test_all_channels_of_a_client_are_where_the_client_is(shards, prefix, client, local):
    ring = ShardRing(shards)
    assert ring.of_channel(f"{prefix}.{client}!{local}") == ring.of(client)
    assert ring.of_channel(f"{prefix}?{local}") == ring.of(f"{prefix}?{local}")
    assert ring.of_channel(prefix) is None


def test_one_shard_has_no_fingerprint_and_others_differ():
    rings = [[], ["a"], ["a", "b"], ["a", "c"]]
    assert [bool(ShardRing(shards).fingerprint) for shards in rings] == [False, False, True, True]
    assert len({ShardRing(shards).fingerprint for shards in rings[1:]}) == 3


@slow
@given(shards=labels, channel=texts, capacity=st.integers(1, 10_000))
def test_the_shares_of_a_channel_add_up_to_its_capacity(shards, channel, capacity):
    ring = ShardRing(shards)
    shares = [ring.share_of(channel, capacity, index) for index in range(len(shards))]
    assert sum(shares) == capacity
    assert max(shares) - min(shares) <= 1
