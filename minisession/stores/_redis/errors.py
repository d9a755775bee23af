"""What the server says, in words that help: which server, what is wrong, what to do about it.

It owns the question whether a change may have been stored, and decides nothing else. What a server
refuses by one of the codes below was refused before the script began, so it is certainly not
stored; what was sent and not answered may have been.
"""

from __future__ import annotations

from coredis import exceptions as said

from minisession.errors import SaveOutcomeUnknown, StoreCorrupt, StoreError, StoreUnavailable

CODES: dict[type[Exception], str] = {
    said.AuthenticationFailureError: "WRONGPASS",
    said.AuthenticationRequiredError: "NOAUTH",
    said.AuthorizationError: "NOPERM",
    said.BusyLoadingError: "LOADING",
    said.ClusterCrossSlotError: "CROSSSLOT",
    said.ClusterDownError: "CLUSTERDOWN",
    said.MovedError: "MOVED",
    said.AskError: "ASK",
    said.NoScriptError: "NOSCRIPT",
    said.ReadOnlyError: "READONLY",
    said.TryAgainError: "TRYAGAIN",
    said.WrongTypeError: "WRONGTYPE",
}
"""The codes that coredis turns into types; of all others the text begins with the code."""

EXPLANATIONS = {
    "BUSY": "is busy with a script of somebody else. `SCRIPT KILL` ends it",
    "CLUSTERDOWN": "says that its cluster is down: a slot has no primary, or most nodes are out of"
    " reach. Look at `CLUSTER INFO`; it recovers by itself once a replica has taken over",
    "CROSSSLOT": "is part of a cluster. Name it with redis+cluster://",
    "LOADING": "is still loading its data. Wait",
    "MASTERDOWN": "is a replica that has lost its primary. Name the primary, or name Sentinel:"
    " redis+sentinel://host:26379/name",
    "MISCONF": "cannot write to its disk and takes no writes. Look at its log and free some space",
    "MOVED": "sends us to another server again and again. Is it part of a cluster? Then name it"
    " with redis+cluster://; otherwise wait until its slots have settled",
    "ASK": "sends us to another server again and again. Wait until its slots have settled",
    "NOAUTH": "wants a password. Name it: redis://user:password@host:6379/0",
    "NOPERM": "does not allow its user what the store needs. For the user `app` and the usual"
    " prefix: ACL SETUSER app ~minisession:* +@read +@write +@scripting +@connection"
    " +cluster|slots +role",
    "NOREPLICAS": "has fewer replicas in reach than its `min-replicas-to-write` asks for. Bring"
    " them back",
    "NOSCRIPT": "forgets scripts as soon as they are loaded. Who calls SCRIPT FLUSH so often?",
    "OOM": "has no memory left (`maxmemory`). Give it more, or shorten `cache_expire`; ending"
    " sessions works meanwhile",
    "READONLY": "is a replica. Name the primary, or name Sentinel:"
    " redis+sentinel://host:26379/name",
    "TRYAGAIN": "is moving this part of its cluster. Try again",
    "UNKILLABLE": "is busy with a script of somebody else that has written already. Wait, or ask"
    " whoever runs it",
    "WRONGPASS": "does not accept this user and password. Check them in the URL; characters such as"
    " ? @ : / must be percent-encoded there",
}
"""Of the codes with which a server refuses a command as a whole, before anything is done."""


class NotSent(Exception):
    """There was no connection to send a command on, so nothing was done. Says why."""


class Unanswered(Exception):
    """A command was sent, and no answer came. Says why."""


class Lost(Unanswered):
    """The connection was lost meanwhile; the next one may be better."""


def code_of(error: object) -> str:
    """Return the code of a server's error, such as READONLY; empty if no server said it."""
    if not isinstance(error, said.RedisError):
        return ""
    known = CODES.get(type(error))
    if known is not None:
        return known
    if not isinstance(error, said.ResponseError):
        return ""
    first = str(error).partition(" ")[0]
    return first if first.isupper() else "ERR"


def explain(error: Exception, server: str) -> StoreError:
    """Return the error that says which server, what is wrong, what to do, and what is certain.

    The server's own words are in it. They name users and commands; where they would quote
    arguments, they are cut.
    """
    if isinstance(error, NotSent):
        return StoreUnavailable(str(error))
    code = code_of(error)
    if code in EXPLANATIONS:
        words = f"{server} {EXPLANATIONS[code]}"
        return StoreUnavailable(f"{words} ({code}; nothing was stored)")
    if isinstance(error, Unanswered):
        return SaveOutcomeUnknown(f"{error}; it is not known what was stored")
    words = str(error).partition(", with args")[0][:200]
    return SaveOutcomeUnknown(
        f"{server} failed: {type(error).__name__}: {words}; it is not known what was stored"
    )


def unreadable(error: Exception, server: str) -> StoreError:
    """Return the error for whoever only wanted to read: nothing of theirs is in doubt."""
    if isinstance(error, Unanswered):
        return StoreUnavailable(str(error))
    if isinstance(error, said.WrongTypeError):
        return StoreCorrupt("what is stored is no hash")
    if code_of(error) in EXPLANATIONS or isinstance(error, NotSent):
        return StoreUnavailable(str(explain(error, server)).replace("; nothing was stored", ""))
    words = str(error).partition(", with args")[0][:200]
    return StoreUnavailable(f"{server} failed: {type(error).__name__}: {words}")
