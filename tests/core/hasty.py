"""Containers to which another thread does something at just the wrong moment."""

from __future__ import annotations


def interrupted(container, event, *, before=None, after=None):
    """Return a copy of `container` where `event` happens once, beside one of its operations."""
    operation = before or after
    usual = getattr(type(container), operation)
    events = [event]

    def method(self, *args):
        chance = events.pop() if events else None
        if chance is not None and before:
            chance(self)
        result = usual(self, *args)
        if chance is not None and after:
            chance(self)
        return result

    return type("Interrupted", (type(container),), {operation: method})(container)
