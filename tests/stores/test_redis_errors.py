"""What the server's errors become: who is meant, what to do, and whether anything was stored."""

from __future__ import annotations

import pytest
from coredis import exceptions as said
from coredis.parser import Parser

from minisession.errors import SaveOutcomeUnknown, StoreCorrupt, StoreError, StoreUnavailable
from minisession.stores._redis.errors import Lost, NotSent, Unanswered, explain, unreadable

SERVER = "Redis at host:6379"

REFUSALS = [
    ("READONLY You can't write against a read only replica.", "is a replica", "redis+sentinel://"),
    ("LOADING Redis is loading the dataset in memory", "is still loading", "Wait"),
    ("OOM command not allowed when used memory > 'maxmemory'.", "no memory left", "maxmemory"),
    ("MASTERDOWN Link with MASTER is down", "has lost its primary", "redis+sentinel://"),
    ("CLUSTERDOWN The cluster is down", "cluster is down", "CLUSTER INFO"),
    ("CROSSSLOT Keys in request don't hash to the same slot", "part of a cluster", "redis+cluster"),
    ("TRYAGAIN Multiple keys request during rehashing of slot", "is moving", "Try again"),
    ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write", "Bring them back"),
    ("NOPERM User app has no permissions to run 'evalsha'", "does not allow", "ACL SETUSER"),
    ("NOAUTH HELLO must be called with the client already", "wants a password", "user:password"),
    ("WRONGPASS invalid username-password pair", "does not accept", "percent-encoded"),
    ("BUSY Redis is busy running a script.", "is busy with a script", "SCRIPT KILL"),
    ("UNKILLABLE Sorry the script already executed writes.", "is busy with a script", "Wait"),
    ("MISCONF Redis is configured to save RDB snapshots", "cannot write to its disk", "free some"),
    ("NOSCRIPT No matching script.", "forgets scripts", "SCRIPT FLUSH"),
    ("MOVED 1 127.0.0.1:7000", "to another server", "redis+cluster://"),
    ("ASK 1 127.0.0.1:7000", "to another server", "slots have settled"),
]


def error(line: str) -> Exception:
    """The exception that the client makes of a line of the server."""
    return Parser().parse_error(line)


@pytest.mark.parametrize(("line", "what", "advice"), REFUSALS)
def test_what_the_server_refuses_is_certainly_not_stored(line: str, what: str, advice: str) -> None:
    refusal = explain(error(line), SERVER)

    assert type(refusal) is StoreUnavailable
    message = str(refusal)
    assert message.startswith(f"{SERVER} ")
    assert what in message
    assert advice in message
    assert message.endswith(f" ({line.split()[0]}; nothing was stored)")


@pytest.mark.parametrize(("line", "what", "advice"), REFUSALS)
def test_who_only_reads_is_told_the_same_and_nothing_of_storing(
    line: str, what: str, advice: str
) -> None:
    refusal = unreadable(error(line), SERVER)

    assert type(refusal) is StoreUnavailable
    assert what in str(refusal)
    assert "nothing was stored" not in str(refusal)


@pytest.mark.parametrize(
    ("failure", "written", "read"),
    [
        (NotSent("no way"), StoreUnavailable("no way"), StoreUnavailable("no way")),
        (
            Unanswered("silence"),
            SaveOutcomeUnknown("silence; it is not known what was stored"),
            StoreUnavailable("silence"),
        ),
        (
            Lost("gone"),
            SaveOutcomeUnknown("gone; it is not known what was stored"),
            StoreUnavailable("gone"),
        ),
        (
            error("ERR ACL failure in script: no"),
            SaveOutcomeUnknown(
                f"{SERVER} failed: ResponseError: ACL failure in script: no;"
                " it is not known what was stored"
            ),
            StoreUnavailable(f"{SERVER} failed: ResponseError: ACL failure in script: no"),
        ),
        (
            error("WHAT is this"),
            SaveOutcomeUnknown(
                f"{SERVER} failed: ResponseError: WHAT is this; it is not known what was stored"
            ),
            StoreUnavailable(f"{SERVER} failed: ResponseError: WHAT is this"),
        ),
        (
            error("WRONGTYPE Operation against a key holding the wrong kind of value"),
            SaveOutcomeUnknown(
                f"{SERVER} failed: WrongTypeError: Operation against a key holding the wrong kind"
                " of value; it is not known what was stored"
            ),
            StoreCorrupt("what is stored is no hash"),
        ),
    ],
)
def test_what_was_sent_and_not_refused_may_be_stored(
    failure: Exception, written: StoreError, read: StoreError
) -> None:
    for came, expected in (
        (explain(failure, SERVER), written),
        (unreadable(failure, SERVER), read),
    ):
        assert (type(came), str(came)) == (type(expected), str(expected))


def test_arguments_that_the_server_quotes_are_not_shown() -> None:
    quoted = error("ERR unknown command 'EVALSHA', with args beginning with: 'abc' 'hush'")

    assert isinstance(quoted, said.UnknownCommandError)
    assert "hush" not in str(explain(quoted, SERVER))
    assert "hush" not in str(unreadable(quoted, SERVER))
