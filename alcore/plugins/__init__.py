"""What is installed: the registry of plugins, the parameters of their factories, and the listeners of a run."""

from alcore.plugins.registry import KINDS, Offer, Plugin, Registry, registry, remedy, resolve

__all__ = ["KINDS", "Offer", "Plugin", "Registry", "registry", "remedy", "resolve"]
