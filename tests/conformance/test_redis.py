"""The Redis layer against the whole contract: on one shard and on several, on 7.0 and 6.2."""

from __future__ import annotations

import secrets
from functools import partial

import pytest
from redis_servers import Cluster, binaries

from channels_layers import RedisChannelLayer

SHARDS = (1, 2, 8)
IN_SHORT = {(1, "7.0"), (2, "7.0"), (8, "7.0"), (2, "6.2")}  # the others take as long again


def worlds():
    found = [(count, version) for version in binaries() for count in SHARDS]
    # Whatever versions there are, something of each is always tried.
    short = [world for world in found if world in IN_SHORT] or found
    return [
        pytest.param(w, marks=[] if w in short else pytest.mark.long, id=f"{w[0]}x{w[1]}")
        for w in found
    ]


@pytest.fixture(scope="session")
def clusters():
    found = {}

    def cluster_of(count, version):
        if (count, version) not in found:
            found[count, version] = Cluster(count, binaries()[version])
        return found[count, version]

    yield cluster_of
    for cluster in found.values():
        cluster.close()


@pytest.fixture(params=worlds())
def channel_layer_maker(request, clusters):
    hosts = clusters(*request.param).hosts
    return partial(RedisChannelLayer, hosts, f"test-{secrets.token_hex(4)}")


@pytest.mark.conformance(loops=["asyncio"], limit=60)
def test_the_redis_layer_keeps_the_contract(conformance_check):
    conformance_check()
