"""`Courier`: brings commands to the servers that hold their keys, wherever those have moved.

It owns redirections (MOVED, ASK), scripts that a server has forgotten, the confirmations that the
URL asks for, and the repetition of reads whose connection was lost. It sends a command again only
where the server has certainly not done it; the order of one session's changes is safe because
there is at most one of them on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio
from coredis.exceptions import AskError, MovedError, NoScriptError, UnknownCommandError

from minisession.errors import StoreError, StoreUnavailable

from .errors import Lost, NotSent, Unanswered, code_of, explain, unreadable
from .link import Command, Reply
from .nodes import Node, Nodes
from .scripts import SCRIPTS
from .url import Place

MAX_ROUNDS = 5  # of redirections; a cluster that moves slots needs two
CONFIRM_TIMEOUT = 2000  # milliseconds that WAIT and WAITAOF wait, less than an answer may take
ASKING = Command(b"", (b"ASKING",))
LOADS = [Command(b"", (b"SCRIPT LOAD", script.text)) for script in SCRIPTS]
LOOK_ANEW = {"READONLY", "MASTERDOWN", "CLUSTERDOWN", "MOVED"}
"""Codes that say that this server is not, or no longer, the one to ask."""

Way = Literal["reads", "commits"]


@dataclass(slots=True)
class _Errand:
    """One command on its way through the cluster."""

    command: Command
    node: Node | None = None
    asking: bool = False
    forgotten: bool = False
    """The server has forgotten the script."""
    server: str = "Redis"
    reply: Reply = None


class Courier:
    """Asks the right servers, and asks on where they send it."""

    def __init__(self, nodes: Nodes, place: Place) -> None:
        self._nodes = nodes
        self._confirmation = _confirmation(place)

    async def read_one(self, command: Command) -> Reply:
        """Do what `read` does for one command, with as little around it as can be: every load."""
        errand = _Errand(command)
        for node in self._grouped((errand,)):
            (errand.reply,) = await node.reads.ask((command,))
            if not isinstance(errand.reply, Exception):
                return errand.reply
            self._look_into(node, [errand])
            if self._goes_on(errand):
                await self._run([errand], "reads")
        return (await self._read([errand]))[0]

    async def read(self, commands: Sequence[Command]) -> list[Reply]:
        """Ask what changes nothing; return values, or the `StoreError` that a command met.

        What was lost on the way is asked for once more.
        """
        errands = [_Errand(command) for command in commands]
        await self._run(errands, "reads")
        return await self._read(errands)

    async def _read(self, errands: list[_Errand]) -> list[Reply]:
        lost = [_reset(errand) for errand in errands if isinstance(errand.reply, Lost)]
        if lost:
            await self._run(lost, "reads")
        return [_said(errand, unreadable) for errand in errands]

    async def write(self, commands: Sequence[Command]) -> list[Reply]:
        """Ask for changes; return values, or the `StoreError` that a command met."""
        errands = [_Errand(command) for command in commands]
        await self._run(errands, "commits")
        return [_said(errand, explain) for errand in errands]

    async def read_from(self, node: Node, words: tuple[bytes, ...]) -> Reply:
        """Ask one server something that belongs to no key."""
        (reply,) = await node.reads.ask([Command(b"", words)])
        return unreadable(reply, node.name) if isinstance(reply, Exception) else reply

    async def try_confirmation(self) -> None:
        """Ask every server for the confirmation that the URL asks for, to see that it can give it.

        Raises:
            StoreUnavailable: it cannot, whatever is written; says why.
        """
        for node in self._nodes.all():
            for command, reply in zip(
                self._confirmation, await node.commits.ask(self._confirmation), strict=True
            ):
                if isinstance(reply, Exception):
                    raise _no_confirmation(command, reply, node.name)

    async def _run(self, errands: list[_Errand], way: Way) -> None:
        left = errands
        for _ in range(MAX_ROUNDS):
            groups = self._grouped(left)
            if len(groups) == 1:
                ((node, group),) = groups.items()
                await self._visit(node, group, way)
            else:
                async with anyio.create_task_group() as tasks:
                    for node, group in groups.items():
                        tasks.start_soon(self._visit, node, group, way)
            left = [errand for errand in left if self._goes_on(errand)]
            if not left:
                break

    def _grouped(self, errands: Sequence[_Errand]) -> dict[Node, list[_Errand]]:
        groups: dict[Node, list[_Errand]] = {}
        for errand in errands:
            try:
                node = errand.node or self._nodes.node_of(errand.command.key)
            except NotSent as error:
                errand.reply = error
                self._nodes.suspect(None, said=False)
            else:
                errand.node = node
                errand.server = node.name
                groups.setdefault(node, []).append(errand)
        return groups

    async def _visit(self, node: Node, errands: list[_Errand], way: Way) -> None:
        """Send the commands that are for one server as one pipeline, and note its replies."""
        pipeline = list(LOADS) if any(errand.forgotten for errand in errands) else []
        places = []
        for errand in errands:
            if errand.asking:
                pipeline.append(ASKING)
            places.append(len(pipeline))
            pipeline.append(errand.command)
        if way == "commits":
            pipeline += self._confirmation
        link = node.reads if way == "reads" else node.commits
        replies = await link.ask(pipeline)
        for errand, place in zip(errands, places, strict=True):
            errand.reply = replies[place]
        self._look_into(node, [each for each in errands if isinstance(each.reply, Exception)])
        if way == "commits":
            self._confirm(errands, replies[len(pipeline) - len(self._confirmation) :])

    def _look_into(self, node: Node, failed: list[_Errand]) -> None:
        """Have a server looked for anew that is not the right one, or is not there."""
        if any(code_of(errand.reply) in LOOK_ANEW for errand in failed):
            self._nodes.suspect(node, said=True)
        elif any(isinstance(errand.reply, NotSent | Unanswered) for errand in failed):
            self._nodes.suspect(node, said=False)

    def _confirm(self, errands: list[_Errand], confirmations: Sequence[Reply]) -> None:
        """Doubt what fewer servers than asked have confirmed."""
        for command, came in zip(self._confirmation, confirmations, strict=True):
            asked = [int(word) for word in command.words[1:-1]]
            counts = came if isinstance(came, list) else [came]
            if any(
                not isinstance(n, int) or n < least for n, least in zip(counts, asked, strict=False)
            ):
                for errand in errands:
                    if not isinstance(errand.reply, Exception):
                        errand.reply = Unanswered(
                            f"{errand.server}: {command.words[0].decode()} asks for {asked} and"
                            f" got {came} within {CONFIRM_TIMEOUT / 1000:g} s"
                        )

    def _goes_on(self, errand: _Errand) -> bool:
        """Tell whether a command is to be sent again, and prepare it for that."""
        reply, node = errand.reply, errand.node
        if node is None or not isinstance(reply, AskError | NoScriptError):
            return False
        errand.forgotten = isinstance(reply, NoScriptError)
        errand.asking = isinstance(reply, AskError) and not isinstance(reply, MovedError)
        if isinstance(reply, AskError):
            errand.node = self._nodes.named(reply.host, reply.port, node)
        return True


def _reset(errand: _Errand) -> _Errand:
    errand.node = None
    return errand


def _said(errand: _Errand, say: Callable[[Exception, str], StoreError]) -> Reply:
    return say(errand.reply, errand.server) if isinstance(errand.reply, Exception) else errand.reply


def _no_confirmation(command: Command, reply: Exception, server: str) -> StoreUnavailable:
    name = command.words[0].decode()
    if name == "WAITAOF" and isinstance(reply, UnknownCommandError):
        what = f"{server} is too old. {name} needs Redis 7.2 or newer, or Valkey"
    else:
        what = str(unreadable(reply, server))
    return StoreUnavailable(f"{name} is refused: {what}")


def _confirmation(place: Place) -> list[Command]:
    timeout = b"%d" % CONFIRM_TIMEOUT
    commands = []
    if place.replicas:
        commands.append(Command(b"", (b"WAIT", b"%d" % place.replicas, timeout)))
    if place.synced is not None:
        here, there = place.synced
        commands.append(Command(b"", (b"WAITAOF", b"%d" % here, b"%d" % there, timeout)))
    return commands
