"""What every endpoint shares: settings, connections, health and HTTP."""

__version__ = "0.1.0"
