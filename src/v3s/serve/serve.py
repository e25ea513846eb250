"""``v3s serve``: a collection of vectors as a live page in the browser."""

import asyncio
import errno
import ipaddress
import logging
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import torch
from rich.console import Console

from v3s.backbones.device import DeviceOptions, choose_compute
from v3s.features.encoder import Encoder
from v3s.files.text import counted, say
from v3s.options import import_extra
from v3s.vectors.collection import open_vectors
from v3s.vectors.query import open_query_encoder


@dataclass(frozen=True, kw_only=True)
class ServeConfig(DeviceOptions):
    """Look at a collection in the browser: search by a click, play, filter, and label spans with the keyboard.

    Labels are kept in the folder of the vectors: labels/labels.csv is a list that v3s probe and v3s finetune take. The
    page is shown to this machine only; with --host, whoever knows the printed address may use it.

    Attributes:
        vectors: Folder of the vectors that v3s embed wrote.
        port: Port of the page's address; 0 takes a free one.
        host: Name or address of this machine to listen on; 0.0.0.0 is all of them.

    More options:
        backbone: The network that computed these vectors, which a search by a stretch of a video needs. Default: the
            one that v3s embed used.
    """

    vectors: Annotated[str, "VECTORS"]
    port: int = 8000
    host: str = "127.0.0.1"
    backbone: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port is {self.port}; it must be from 0 to 65535")


def serve(config: ServeConfig, *, console: Console | None = None) -> None:
    """Show a collection until the process is stopped.

    Args:
        config: the vectors, and where to listen.
        console: where to print the address; the terminal by default.

    Raises:
        ValueError: the vectors or their labels are missing or damaged, the port is in use, or starlette or uvicorn is
            not installed.
    """
    console = console or Console()
    for package in ("starlette", "uvicorn"):
        import_extra(package, "serve", "v3s serve")
    import uvicorn

    from v3s.serve.app import make_app
    from v3s.serve.catalogue import read_catalogue
    from v3s.serve.decoders import Previews
    from v3s.serve.desk import Desk
    from v3s.serve.guard import LOOPBACK, Guard, in_address, own_hosts
    from v3s.serve.learning import load_optimiser
    from v3s.serve.marks import Marks

    vectors = open_vectors(config.vectors)
    torch.set_num_threads(1)  # the other processors decode: threads would wait for each other at every step
    with listen_on(config.host, config.port) as listening:
        port = listening.getsockname()[1]
        previews = Previews()
        previews.start()
        try:
            catalogue = read_catalogue(vectors)
            marks = Marks(catalogue)
            load_optimiser()
            if marks.notice:
                say(console, marks.notice)

            def open_encoder() -> Encoder:
                return open_query_encoder(vectors, config.backbone, choose_compute(config.device, config.precision))

            is_local = config.host in LOOPBACK
            token = None if is_local else secrets.token_urlsafe(16)
            hosts = own_hosts(port) if is_local else None
            app = Guard(make_app(Desk(catalogue, marks, previews, open_encoder)), hosts=hosts, token=token)
            address = f"http://{in_address(name_for_others(config.host, listening))}:{port}/"
            lines = [f"{counted(len(catalogue), 'span')} of {config.vectors}; stop with Ctrl-C"]
            if listens_everywhere(listening):
                lines.append("if this address does not open on another machine, put this machine's name in its place:")
            lines.append(address + (f"?token={token}" if token else ""))
            options = uvicorn.Config(
                app, log_level="error", access_log=False, server_header=False, proxy_headers=False, ws="none",
                lifespan="off", timeout_graceful_shutdown=2,
            )  # fmt: skip

            async def answer() -> None:  # the address is said where Ctrl-C already ends the loop
                say(console, *lines)
                await server.serve(sockets=[listening])

            server, log = uvicorn.Server(options), logging.getLogger("uvicorn.error")

            def is_fault(record: logging.LogRecord) -> bool:  # answers that Ctrl-C cuts off are none
                return not server.should_exit

            log.addFilter(is_fault)
            try:
                with suppress(KeyboardInterrupt):
                    asyncio.run(answer())
            finally:
                log.removeFilter(is_fault)
        finally:
            previews.stop()


def listens_everywhere(listening: socket.socket) -> bool:
    """Whether a socket listens at all addresses of this machine."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_unspecified


def name_for_others(host: str, listening: socket.socket) -> str:
    """The host to open, also from another machine: of all addresses the one that this machine reaches others from."""
    if not listens_everywhere(listening):
        return host
    try:
        with socket.socket(listening.family, socket.SOCK_DGRAM) as asking:  # which sends nothing: it asks for a route
            asking.connect(("2001:db8::1" if listening.family == socket.AF_INET6 else "192.0.2.1", 9))
            name: str = asking.getsockname()[0]
    except OSError:
        return socket.gethostname()  # without a route
    return name


def listen_on(host: str, port: int) -> socket.socket:
    """Listen on a port.

    Raises:
        ValueError: it is in use, or this machine does not have this name or address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ValueError(f"host is {host!r}, which is not a name or address of a machine ({error.strerror})") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(
                f"host is {host!r}, which is not an address of this machine; give one of its addresses, or 0.0.0.0 "
                "for all"
            ) from error
        raise ValueError(
            f"port is {port}, which cannot be listened on at {host} ({error.strerror}); give another one with "
            "--port, or --port 0 for any free one"
        ) from error
    return listening
