"""Who listens at a port of this machine."""

import os
import socket
from pathlib import Path

import psutil

LISTENING = "0A"
"""State of a listening socket in /proc/net/tcp."""

LOCAL_ADDRESSES = {"0100007F", "7F000001", "0" * 8, "0" * 32}
"""127.0.0.1 in either byte order, and any address, as written in /proc/net/tcp."""


def is_listening(host: str, port: int) -> bool:
    """Tell whether any program listens there."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def listening_process(port: int) -> int | None:
    """Return the process of this user that listens at a local port; None if it is not visible from here."""
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for connection in process.net_connections("tcp")
            ):
                return process.pid
        except psutil.Error:  # gone, or of another user
            continue
    return None


def other_users(port: int) -> set[int]:
    """Return the uids of other users, except root, that listen at a local port; empty on systems other than Linux."""
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    users = set()
    for row in (line.split() for table in tables for line in table.read_text().splitlines()[1:]):
        address, _, port_hex = row[1].rpartition(":")
        if row[3] == LISTENING and address in LOCAL_ADDRESSES and int(port_hex, 16) == port:
            users.add(int(row[7]))
    return users - {os.getuid(), 0}
