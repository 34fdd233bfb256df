"""The plug-in of the kit, also where the package is on the path but not installed."""

from channels_layers.testing import pytest_plugin


def pytest_configure(config):
    if not config.pluginmanager.is_registered(pytest_plugin):
        config.pluginmanager.register(pytest_plugin, "channels_layers")
