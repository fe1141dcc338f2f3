"""What a server may be told, with reasons for the numbers. Plain data."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field

from mmsearch.settings import Limits

API = "/api/v1"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """host, port: where it listens. token: what clients must show; None: nothing, for loopback alone.
    allow_hosts: other names that it answers to. cors: origins whose pages may use it.
    limits: what one picture may cost, of files and uploads alike.

    max_body_megabytes: of a request without a picture: a query of 500 terms has a tenth of it.
    max_upload_megabytes: of a picture; cameras stay below. uploads_megabytes: kept in memory, all together.
    request_seconds: until the answer begins; the slowest picture URL takes 20. stall_seconds: how long a client may
    read or send nothing. rate: requests a second of one client, 0: any number; a page of thumbnails is 100 at once.
    workers: threads that search and decode; more of them than cores, since they also wait for disks.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    max_body_megabytes: float = 1.0
    max_upload_megabytes: float = 64.0
    uploads_megabytes: float = 256.0
    request_seconds: float = 60.0
    stall_seconds: float = 30.0
    rate: int = 200
    workers: int = min(32, 4 * (os.cpu_count() or 1))

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a host that is listened on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
