"""What a layer promises beyond the contract's core, as data that tests can read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantees:
    """The promises of one kind of layer; the conformance kit holds it to them.

    Attributes:
        shared: Two layers made with the same settings are two clients of one prefix and
            reach each other. False: each layer object is a world of its own.
        cross_process: As `shared`, also from different processes of one machine.
        ordered_channels: A normal channel keeps the order of one writer. False: order is
            kept per shard only.
        trio: Works under trio as well as under asyncio.
    """

    shared: bool = False
    cross_process: bool = False
    ordered_channels: bool = True
    trio: bool = True
