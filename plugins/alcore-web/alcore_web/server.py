"""The server of ``alcore dash``: on this machine alone."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn

from alcore.errors import UsageError
from alcore_web.app import create_app
from alcore_web.guard import Guard
from alcore_web.runs import Runs


def serve(root: Path, *, host: str, port: int, browser: bool, tell: Callable[[str], None]) -> None:
    """Serve the pages of a folder of runs until the process is asked to end, which raises `KeyboardInterrupt`.

    Parameters
    ----------
    root
        The folder.
    host
        An address of this machine that others can't reach: ``127.0.0.1``, ``localhost`` or ``::1``.
    port
        The port; any that is free where it is 0.
    browser
        Whether to open a browser, where this process has a screen to open it on.
    tell
        Is given the address with the token, once it answers.

    Raises
    ------
    UsageError
        If others could reach the address, or the port is taken.
    """
    with contextlib.closing(bound(host, port)) as listening:
        port = listening.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        names = {f"{host}:{port}" for host in (name, "localhost", "127.0.0.1")}
        runs = Runs(root)
        threading.Thread(target=runs.rows, daemon=True).start()  # so that the first page is there at once
        guard = Guard(create_app(runs), hosts=names, port=port)
        config = uvicorn.Config(
            guard, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1,
            lifespan="off", proxy_headers=False, ws="none",
        )  # fmt: skip
        address = f"http://{name}:{port}/?token={guard.token}"
        tell(address)
        if browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
        uvicorn.Server(config).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket; the parameters and errors are those of `serve`."""
    address = "127.0.0.1" if host == "localhost" else host
    if not _is_loopback(address):
        raise UsageError(
            f"--host {host}: the page answers on this machine alone (127.0.0.1, localhost or ::1), since it shows data "
            "and has no users with passwords. To look at it from elsewhere, forward the port by ssh: start "
            "`alcore dash --no-browser --port 8765` here, run `ssh -L 8765:localhost:8765 THIS-MACHINE` there, and "
            "open the address that is printed here in the browser there."
        )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen()  # so that who opens the address at once waits, and another server can't take the port
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else "it is no port"
        raise UsageError(
            f"--port {port}: {address}:{port} can't be listened on: {reason}. Give another port from 1024 to 65535, or "
            "--port 0 for any that is free."
        ) from error
    return listening


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _has_screen() -> bool:
    """Return whether a browser would open a window, and not take over this terminal."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
