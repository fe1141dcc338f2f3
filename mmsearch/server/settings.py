"""What a server may be told, with reasons for the numbers; what would not be safe cannot be told."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field

from mmsearch.errors import UsageError
from mmsearch.settings import Limits

API = "/api/v1"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 12
_PLAIN = re.compile(r"[\x21-\x7e][\x20-\x7e]*[\x21-\x7e]")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f]*(:[0-9A-Fa-f.]*){2,}\]?")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """host, port: where it listens. token: what clients must show; None: nothing, for loopback alone.
    allow_hosts: other names that it answers to. cors: origins whose pages may use it.
    limits: what one picture may cost, of files and uploads alike.

    max_body_megabytes: of a request without a picture: a query of 500 terms has a tenth of it.
    max_upload_megabytes: of a picture; cameras stay below. uploads_megabytes: kept in memory, all together.
    request_seconds: until the answer begins; the slowest picture URL takes 20. stall_seconds: how long a client may
    read or send nothing. rate: requests a second of one client, 0: any number; a page of thumbnails is 100 at once.
    watch: follow the folders of all collections; poll: as for `Engine.watch`.
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
    watch: bool = False
    poll: bool | None = None
    workers: int = min(32, 4 * (os.cpu_count() or 1))

    def __post_init__(self) -> None:
        if self.token is None and not self.loopback:
            raise UsageError(f"{self.host} is an address that others reach; it needs a token.")
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not _PLAIN.fullmatch(self.token)):
            raise UsageError(f"A token has {SHORTEST_TOKEN} characters at least, all of them plain ASCII.")
        for origin in self.cors:
            if not _ORIGIN.fullmatch(origin):
                raise UsageError(f"{origin!r} is no origin; write it as in https://app.example, without a path.")
        for name in self.allow_hosts:
            if not _HOST.fullmatch(name):
                raise UsageError(f"{name!r} is no name of a host; write it as in nas.local, without a port.")

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
