"""The classic bugs of session libraries, each planted in ours, and the scenarios that find it.

A scenario that finds none of them is a test that cannot fail; a bug that no scenario finds is one
that we could have as well. The mistakes are those that were seen in other libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

import minisession._committer
import minisession._context
import minisession._core.ledger
import minisession._core.plan
import minisession._core.settle
import minisession._core.view
import minisession._loader
from minisession._codec import decode, encode
from minisession._committer import Committer
from minisession._core.books import Books, CookieOrder, State
from minisession._core.change import Change, Outcome, Record, Touch
from minisession._core.journal import Journal, Life
from minisession._core.ledger import Ledger
from minisession._core.plan import Flight
from minisession._core.rules import Standing, standing
from minisession._core.session import Session
from minisession._core.view import View
from minisession._exchange import Exchange
from minisession._manager import SessionManager
from minisession.abc import Store
from minisession.errors import Conflict
from minisession.stores.memory import MemoryStore
from tests.races import ends, faulty_stores, logins, requests, writes
from tests.races.world import Scenario, World, pause
from tests.remote_store import RemoteStore

Plant = Callable[[pytest.MonkeyPatch], None]


def nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave our code as it is: the bug is in the store."""


@dataclass(frozen=True)
class Bug:
    """One mistake, where it is, and who must find it.

    Attributes:
        name: what is wrong.
        found_by: scenarios, each of which finds it.
        plant: puts the mistake into our code.
        stored: makes the store.
        connect: makes the connection of a process to the store.
    """

    name: str
    found_by: Sequence[Scenario]
    plant: Plant = nothing
    stored: Callable[[], MemoryStore] = MemoryStore
    connect: Callable[[MemoryStore], Store] = RemoteStore

    async def play(self, scenario: Scenario) -> None:
        """Run a scenario in a world with the faulty store in it."""
        stored = self.stored()
        await scenario(World(lambda: self.connect(stored), stored))


# --- whose session it is -------------------------------------------------------------------------


class GlobalVariable:
    """What looks like a ContextVar and is one for all."""

    def __init__(self) -> None:
        self._values: list[Session] = []

    def get(self) -> Session:
        if not self._values:
            raise LookupError
        return self._values[-1]

    def set(self, value: Session) -> None:
        self._values.append(value)

    def reset(self, token: object) -> None:
        self._values.pop()


def one_global_current_session(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(minisession._context, "_bound", GlobalVariable())


def requests_share_the_objects_they_load(patch: pytest.MonkeyPatch) -> None:
    objects: dict[bytes, Any] = {}

    def decode_once(items: Mapping[str, bytes]) -> dict[str, Any]:
        return {key: objects.setdefault(data, decode(data)) for key, data in items.items()}

    patch.setattr(minisession._core.view, "decode_many", decode_once)


def the_end_takes_writes_that_it_does_not_save(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "shut", lambda books: None)


# --- what is saved -------------------------------------------------------------------------------


def _takes(patch: pytest.MonkeyPatch, spoil: Callable[[Books], None]) -> None:
    """Have every hand-over of a journal spoiled before it happens."""
    take = Books.take

    def spoiled(books: Books, now: float, *, issuing: bool) -> Flight | None:
        if books.journal.segments and books.flight is None and books.life is not None:
            spoil(books)
        return take(books, now, issuing=issuing)

    patch.setattr(Books, "take", spoiled)


def the_whole_dictionary_is_saved(patch: pytest.MonkeyPatch) -> None:
    def spoil(books: Books) -> None:
        last = books.journal.segments[-1]
        last.clear, last.items = True, dict(books.view.encoded)

    _takes(patch, spoil)


def snapshots_are_merged(patch: pytest.MonkeyPatch) -> None:
    def spoil(books: Books) -> None:
        last = books.journal.segments[-1]
        last.items = {**books.view.encoded, **last.items}

    _takes(patch, spoil)


def a_read_saves_everything(patch: pytest.MonkeyPatch) -> None:
    shut = Books.shut

    def save_and_shut(books: Books) -> None:
        if books.state is State.LIVE and books.life is not None and books.view.encoded:
            books.journal.open_segment(books.life).items.update(books.view.encoded)
        shut(books)

    patch.setattr(Books, "shut", save_and_shut)


def what_is_written_during_a_commit_counts_as_saved(patch: pytest.MonkeyPatch) -> None:
    land = Committer.land

    def forget(
        committer: Committer, ledger: Ledger, flight: Flight, outcomes: Sequence[Outcome]
    ) -> None:
        ledger.journal = Journal()
        land(committer, ledger, flight, outcomes)

    patch.setattr(Committer, "land", forget)


def nested_changes_are_not_noticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "look", lambda books: None)


def a_replaced_value_goes_on_being_watched(patch: pytest.MonkeyPatch) -> None:
    show = View.show
    changed_inside = View.changed_inside
    first: dict[tuple[int, str], Any] = {}

    def remember(view: View, encoded: dict[str, bytes]) -> None:
        show(view, encoded)
        first.update({(id(view), key): value for key, value in view.values.items()})

    def look_at_the_first(view: View, max_size: int) -> Any:
        changes, error = changed_inside(view, max_size)
        for key in view.exposed:
            changes[key] = encode(first.get((id(view), key), view.values[key]), key)
        return changes, error

    patch.setattr(View, "show", remember)
    patch.setattr(View, "changed_inside", look_at_the_first)


def a_refresh_forgets_what_is_unsaved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Books, "_with_what_is_unsaved", lambda books, stored: dict(stored))


def a_refused_write_is_forgotten_in_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(minisession._core.settle, "_missed", lambda books, leg, error: [])


async def _ask_unshielded(committer: Committer, changes: Sequence[Change]) -> Sequence[Outcome]:
    return await committer._store.commit(changes, committer._clock())


def a_commit_is_not_shielded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Committer, "ask", _ask_unshielded)


# --- update --------------------------------------------------------------------------------------


def an_update_gets_and_then_sets(patch: pytest.MonkeyPatch) -> None:
    async def get_then_set(
        manager: SessionManager, ledger: Ledger, key: str, fn: Callable[[Any], Any], default: Any
    ) -> Any:
        ledger.require_ready()
        value = fn(ledger.view.values.get(key, default))
        await pause()
        ledger.put(key, value)
        await manager.save(ledger)
        return value

    patch.setattr(SessionManager, "update", get_then_set)


def an_update_does_not_try_again(patch: pytest.MonkeyPatch) -> None:
    propose = SessionManager._propose

    async def once(*args: Any) -> Flight:
        flight = await propose(*args)
        flight.error = None if isinstance(flight.error, Conflict) else flight.error
        return flight

    patch.setattr(SessionManager, "_propose", once)


# --- what ends, and what is replaced -------------------------------------------------------------


def a_logout_deletes_only_the_cookie(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "destroy", Journal.forget)


def after_a_logout_the_id_is_used_again(patch: pytest.MonkeyPatch) -> None:
    destroy = Ledger.destroy

    def destroy_and_keep(ledger: Ledger) -> None:
        life = ledger.life
        destroy(ledger)
        if life is not None and life.secret is not None:
            ledger.adoptable = (life.handle, life.secret)

    patch.setattr(Ledger, "destroy", destroy_and_keep)


def the_replaced_secret_goes_on_working(patch: pytest.MonkeyPatch) -> None:
    def lenient(record: Record, secret: bytes, arrived: float) -> Standing:
        return Standing.CURRENT if record.previous == secret else standing(record, secret, arrived)

    patch.setattr(minisession._loader, "standing", lenient)


def a_touch_counts_before_it_is_stored(patch: pytest.MonkeyPatch) -> None:
    touch = Books.touch

    def book(books: Books, now: float) -> Touch | None:
        due = touch(books, now)
        if due is not None and books.life is not None:
            books.life.expires = due.expires
        return due

    patch.setattr(Books, "touch", book)


def activity_moves_the_absolute_end(patch: pytest.MonkeyPatch) -> None:
    def idle_end(life: Life, config: Any, now: float) -> float:
        return float(now + config.idle)

    patch.setattr(minisession._core.plan, "deadline", idle_end)


# --- what an answer says -------------------------------------------------------------------------


def every_answer_sets_the_cookie(patch: pytest.MonkeyPatch) -> None:
    order: Callable[[Books], CookieOrder] = vars(Books)["cookie_order"].fget

    def always(books: Books) -> CookieOrder:
        return CookieOrder.SET if books.state is State.LIVE else order(books)

    patch.setattr(Books, "cookie_order", property(always))


def an_answer_does_not_wait_for_the_store(patch: pytest.MonkeyPatch) -> None:
    async def hurry(exchange: Exchange) -> None:
        exchange.ledger.confirmed = exchange.ledger.journal.issuing is not None

    patch.setattr(Exchange, "_settle_up_for_the_start", hurry)


def the_headers_are_never_sealed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "_refuse_if_sealed", lambda ledger, what: None)


BUGS = [
    Bug(
        "one global current session",
        [requests.requests_of_three_users, requests.child_tasks_and_threads_of_two_users],
        one_global_current_session,
    ),
    Bug(
        "requests share the objects they load",
        [writes.a_change_that_is_taken_back],
        requests_share_the_objects_they_load,
    ),
    Bug(
        "the end takes writes that it does not save",
        [requests.a_task_that_outlives_its_request],
        the_end_takes_writes_that_it_does_not_save,
    ),
    Bug(
        "the whole dictionary is saved",
        [
            writes.two_writers_of_different_keys,
            writes.writers_of_different_keys_in_two_processes,
            requests.what_an_answer_acknowledges,
        ],
        the_whole_dictionary_is_saved,
    ),
    Bug(
        "snapshots are merged",
        [writes.a_drop_beside_a_write, writes.a_clear_beside_a_write],
        snapshots_are_merged,
    ),
    Bug(
        "a change is stored key by key",
        [writes.two_writers_of_one_key],
        stored=faulty_stores.WritesKeyByKey,
    ),
    Bug("a read saves everything", [writes.a_reader_beside_a_writer], a_read_saves_everything),
    Bug(
        "what is written during a commit counts as saved",
        [writes.the_flusher_beside_the_end_of_the_exchange],
        what_is_written_during_a_commit_counts_as_saved,
    ),
    Bug(
        "nested changes are not noticed",
        [
            writes.a_nested_change_beside_a_put_of_another_request,
            requests.a_write_while_the_headers_leave,
        ],
        nested_changes_are_not_noticed,
    ),
    Bug(
        "a replaced value goes on being watched",
        [writes.a_nested_change_beside_a_put_of_the_same_request],
        a_replaced_value_goes_on_being_watched,
    ),
    Bug(
        "a refresh forgets what is unsaved",
        [writes.a_refresh_beside_a_writer, writes.a_refresh_beside_a_sibling],
        a_refresh_forgets_what_is_unsaved,
    ),
    Bug(
        "a refused write is forgotten in silence",
        [writes.a_store_that_fails_in_the_middle_of_a_batch],
        a_refused_write_is_forgotten_in_silence,
    ),
    Bug(
        "a commit is not shielded",
        [writes.a_commit_that_is_cancelled],
        a_commit_is_not_shielded,
        connect=faulty_stores.CommitsInTheCallersTask,
    ),
    Bug(
        "an update gets and then sets",
        [
            writes.counters_in_two_processes,
            writes.counters_in_a_first_visit,
            writes.a_counter_beside_a_put,
        ],
        an_update_gets_and_then_sets,
    ),
    Bug(
        "an update does not try again",
        [writes.counters_in_two_processes],
        an_update_does_not_try_again,
    ),
    Bug(
        "a compare-and-set does not compare",
        [
            writes.counters_in_two_processes,
            writes.a_counter_beside_a_put,
        ],
        stored=faulty_stores.SetsWithoutComparing,
    ),
    Bug(
        "a write creates what has ended",
        [
            ends.a_writer_beside_a_logout,
            ends.a_writer_beside_a_revocation_elsewhere,
            ends.a_counter_beside_a_logout,
            ends.a_websocket_beside_a_logout,
        ],
        stored=faulty_stores.UpsertsWhatIsGone,
    ),
    Bug(
        "a check, and then the act",
        [ends.a_writer_beside_a_logout, logins.a_logout_beside_a_login],
        stored=faulty_stores.ChecksThenActs,
    ),
    Bug(
        "what is expired lives until it is swept",
        [ends.a_writer_beside_the_expiry],
        stored=faulty_stores.IgnoresExpiry,
    ),
    Bug(
        "a touch revives",
        [ends.a_touch_beside_the_expiry, ends.readers_beside_a_logout],
        stored=faulty_stores.RevivesAtATouch,
    ),
    Bug(
        "a touch counts before it is stored",
        [ends.a_touch_that_the_store_refuses],
        a_touch_counts_before_it_is_stored,
    ),
    Bug(
        "a stale cache",
        [ends.readers_beside_a_logout],
        connect=faulty_stores.ReadsThroughACache,
    ),
    Bug(
        "a logout deletes only the cookie",
        [ends.two_logouts, requests.a_logout_while_the_headers_leave],
        a_logout_deletes_only_the_cookie,
    ),
    Bug(
        "after a logout the id is used again",
        [ends.a_logout_with_a_last_message_beside_a_slow_request],
        after_a_logout_the_id_is_used_again,
    ),
    Bug(
        "activity moves the absolute end",
        [ends.activity_beside_the_absolute_end],
        activity_moves_the_absolute_end,
    ),
    Bug(
        "a login writes, and then replaces the id",
        [logins.a_login_beside_a_reader_with_the_old_id],
        stored=faulty_stores.RegeneratesOneByOne,
    ),
    Bug(
        "a login is cancelled between its steps",
        [logins.a_login_that_is_cancelled],
        a_commit_is_not_shielded,
        stored=faulty_stores.RegeneratesOneByOne,
        connect=faulty_stores.CommitsInTheCallersTask,
    ),
    Bug(
        "a login copies the session, and then replaces it",
        [
            logins.a_login_beside_a_slow_request,
            logins.a_save_beside_a_regenerate_elsewhere,
            logins.a_logout_beside_a_login,
        ],
        stored=faulty_stores.RegeneratesByCopying,
    ),
    Bug(
        "the replaced secret goes on working",
        [logins.a_login_beside_a_reader_with_the_old_id],
        the_replaced_secret_goes_on_working,
    ),
    Bug(
        "a change counts whatever its epoch",
        [
            logins.a_login_clicked_twice,
            logins.two_regenerates,
            logins.a_late_writer_of_what_the_login_wrote,
        ],
        stored=faulty_stores.CountsEveryEpoch,
    ),
    Bug(
        "a late change counts by halves",
        [logins.a_late_writer_of_what_the_login_wrote],
        stored=faulty_stores.TakesHalvesOfLateWrites,
    ),
    Bug(
        "the grace has no end",
        [logins.the_old_id_in_its_grace, logins.a_write_beside_the_end_of_the_grace],
        stored=faulty_stores.GivesGraceForEver,
    ),
    Bug(
        "every answer sets the cookie",
        [logins.a_login_beside_a_slow_request],
        every_answer_sets_the_cookie,
    ),
    Bug(
        "an answer does not wait for the store",
        [requests.what_an_answer_acknowledges, requests.two_first_visits],
        an_answer_does_not_wait_for_the_store,
    ),
    Bug(
        "the headers are never sealed",
        [
            requests.a_first_write_while_the_headers_leave,
            requests.a_login_while_the_headers_leave,
        ],
        the_headers_are_never_sealed,
    ),
]
