"""Translate speech from a microphone, or a file, to subtitles in a browser.

Open the address that it prints. Browsers let a page use the microphone only at localhost or over https. Ctrl-C ends the
server.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mla_fairseq.cli.options import Help, add_detector, add_user_dir, at_least, import_user_dir, printable, run_command
from mla_fairseq.errors import needs

if TYPE_CHECKING:
    import socket

    from mla_fairseq.live.model import Model
    from mla_fairseq.live.service import Service
    from mla_fairseq.live.worker import Worker

log = logging.getLogger(__name__)

HIGHEST_PORT = 65_535
ALL = ("", "0.0.0.0", "::")  # addresses of all networks
FROM_DATA = "(default: that of the manifests in --data)"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-live``."""
    parser = argparse.ArgumentParser(prog="mla-live", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of fairseq-train")
    add("--data", type=Path, required=True, metavar="DIR", help="prepared data folder of the model")
    add("--config-yaml", default="config_st.yaml", metavar="FILE", help="data configuration in that folder")
    add_user_dir(parser)
    add("--policy", metavar="NAME", help="policy of clients that choose none (default: the one that suits the model)")
    add("--number", type=int, metavar="N", help="its number, such as k of wait-k (default: that of the policy)")
    add("--tgt-lang", type=printable, metavar="LANG", help=f"target language {FROM_DATA}")
    add("--source-lang", type=printable, metavar="LANG", help=f"source language {FROM_DATA}")
    add_detector(parser)
    add("--pause", type=float, default=0.16, metavar="S", help="shortest pause that ends a stretch of speech, in s")
    add("--longest", type=float, default=30.0, metavar="S", help="longest stretch, in s")
    add("--device", default="cpu", help="torch device")
    add("--host", type=printable, default="localhost", help="address to listen on; others than localhost are reachable")
    add("--port", type=port, default=8800, metavar="N", help="port to listen on")
    add("--clients", type=at_least(1), default=8, metavar="N", help="clients at once")
    add("--idle", type=at_least(1), default=60, metavar="S", help="seconds without audio that end a client's stream")
    help_ = "address of the page at a reverse proxy, such as https://example.org; may be given again (default: none)"
    add("--origin", action="append", default=[], type=address, metavar="URL", help=help_)
    return parser


def port(text: str) -> int:
    """Return the number of a port, as the type of a flag; the system would take 70000 for 4464.

    Raises:
        ArgumentTypeError: it is not one.
    """
    if (number := at_least(1)(text)) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is above {HIGHEST_PORT}")
    return number


def address(text: str) -> str:
    """Return the address of a page, as the type of a flag.

    Raises:
        ArgumentTypeError: it has no host, or is more than an origin.
    """
    if not re.fullmatch(r"https?://[^/\s?#]+/?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as https://example.org")
    return text


def load(args: argparse.Namespace) -> Model:
    """Return the model with the defaults of its clients.

    Raises:
        ValueError: a flag does not suit the model, or a file is wrong.
    """
    import torch

    from mla_fairseq.live.model import Model
    from mla_fairseq.streaming import Translator
    from mla_fairseq.streaming.detectors import named_detector

    import_user_dir(args.user_dir)
    torch.set_num_threads(1)  # clients share the cores: one thread for each push
    translator = Translator.load(args.checkpoint, args.data, args.config_yaml)
    translator.to(args.device)
    detector = named_detector(args.detector, translator.has_boundary)
    model = Model(translator, *describe(args), None, detector, args.pause, args.longest)
    choice = {"policy": args.policy, "number": args.number, "tgt_lang": args.tgt_lang}
    try:
        model = replace(model, setting=model.choose(choice, model.default))
    except ValueError as error:  # it begins with the name of the value
        raise ValueError(f"--{error}".replace("tgt_lang", "tgt-lang", 1)) from error
    model.begin(model.default)  # reports limits that are not possible now, not to the first client
    return model


def describe(args: argparse.Namespace) -> tuple[str, str, str]:
    """Return the name of the model, its source language and its target language; a language may be empty."""
    from mla_fairseq.streaming.languages import manifest_languages

    checkpoint = args.checkpoint.resolve()
    source, target = (next(iter(known)) if len(known) == 1 else "" for known in manifest_languages(args.data))
    return f"{checkpoint.parent.name}/{checkpoint.stem}", args.source_lang or source, args.tgt_lang or target


async def serve(args: argparse.Namespace, service: Service, sockets: list[socket.socket]) -> None:
    """Serve until Ctrl-C, or the signal that ends services."""
    from mla_fairseq.live import server

    stopped = asyncio.Event()
    http = server.serve(service, sockets)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if not service.local:
        log.warning("others can connect now; browsers on other machines need https for a microphone")
    print(f"open http://{shown(args.host)}:{args.port}", flush=True)
    await stopped.wait()
    http.stop()
    service.stop()


def shown(host: str) -> str:
    """Return a host as it is in an address that a browser on this machine opens, with its microphone."""
    if host in ALL:
        return "localhost"
    return f"[{host}]" if ":" in host else host  # IPv6


def run(args: argparse.Namespace) -> None:
    """Load the model and serve it.

    Raises:
        ValueError: a flag or a file is wrong.
        UserError: tornado is not installed.
        SystemExit: the server was stopped.
    """
    with needs("live"):
        from mla_fairseq.live.server import listen
    from mla_fairseq.live.service import LOCAL, Service

    sockets = listen(args.host, args.port)  # reports a port that is taken before the model is loaded
    model = load(args)
    workers = start_workers(args, model)
    service = Service(model, args.clients, args.idle, args.origin, args.host in LOCAL, workers)
    try:
        asyncio.run(serve(args, service, sockets))
    finally:
        for worker in workers:
            worker.stop()
    raise SystemExit("stopped")


def start_workers(args: argparse.Namespace, model: Model) -> list[Worker]:
    """Return what translates: a process for each core, or a thread if the device cannot be used by such processes."""
    from mla_fairseq.live.worker import Worker

    if args.device != "cpu" or sys.platform != "linux":
        return [Worker(model, process=False)]
    return [Worker(model) for _ in range(min(os.cpu_count() or 1, args.clients))]


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-live``."""
    run_command(build_parser(), run, argv)
