"""Encoded data at a URL: small files mirrored, shards fetched ahead into a bounded cache, and the way back."""

from lwd.data.remote.folder import RemoteFolder
from lwd.data.remote.mirror import Mirror
from lwd.data.remote.shards import RemoteShards

__all__ = ["Mirror", "RemoteFolder", "RemoteShards"]
