"""`cwm-hub app`: a page on this machine to look at a model. Torch is imported when it runs, not for its options."""

import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

EXAMPLES = ("cwm-hub app", "cwm-hub app owner/contextwm-mine --port 8000")


def add_arguments(parser: "argparse.ArgumentParser") -> None:
    """Add this sub-command's options."""
    known = "video world model: embedded name, directory or owner/name (default: contextwm-tiny)"
    parser.add_argument("model", metavar="MODEL", nargs="?", default="contextwm-tiny", help=known)
    parser.add_argument("--port", type=int, help="of the page (default: the first free one from 7860)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine)")


def run(args: "argparse.Namespace") -> Iterator[str]:
    """A line with the page's address; the page is there until the process is interrupted.

    Args:
        args: the options above by name.

    Raises:
        ValueError: no such model, one of another kind, or an address or a port at which this machine cannot listen.
    """
    _check_listening(args.host, args.port or 0)
    from cwm_hub.hub.space.page import LARGEST_UPLOAD, make_page

    page = make_page(args.model)
    where = {"server_name": args.host, "server_port": args.port, "max_file_size": LARGEST_UPLOAD}
    _, address, _ = page.launch(**where, prevent_thread_lock=True, quiet=True, ssr_mode=False)
    try:
        yield f"{args.model} is at {address} (Ctrl-C ends it)"
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _check_listening(host: str, port: int) -> None:
    """Refuses what the page's server would wait for without a word."""
    try:
        place = (host.strip("[]"), port)  # IPv6 is written in brackets
        family = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)[0][0]
        socket.create_server(place, family=family).close()
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot listen at {host}, port {port or 'any'}: {reason}") from error
