"""A collection behind `mmsearch serve`, asked as an `Engine` is asked."""

from mmsearch.client.client import Client

__all__ = ["Client"]
