"""The end of a run: all faults are repaired, everything must settle, and is then queried again and compared to the last
cent.

Callers repeat every request with its key; participants repeat every answer; probes ask for exactly what is left of each
limit and each refundable payment, and for one more; and the power is cut a last time.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from gateway.engine.model import LegKind
from gateway.engine.states import FINAL, State
from gateway.journal.conservation import compare, compare_holds
from hutong.gateway.v1 import payment_pb2 as pb
from verification.simulation.callers import name_of
from verification.simulation.participants import DONE
from verification.simulation.plan import ISSUERS, SECOND, Pay, Refund
from verification.simulation.streams import GIVEN_UP_US
from verification.simulation.witness import ORIGINALS
from verification.simulation.world import World

ROUNDS_MAX: Final = 4
"""Most repeats of a request that the gateway postpones, and one more for each request: a half-open circuit admits one
at a time, which may be refused."""
AT_ONCE: Final = 3
"""Requests sent together at the end: below the smallest bound of payments in flight."""
CIRCUITS_CLOSE_US: Final = 150 * SECOND
"""After this every open circuit lets a probe through."""
_PUT_OFF: Final = frozenset({"OVERLOADED", "ACQUIRER_UNAVAILABLE", "DEADLINE_PAST", "PAYMENT_IN_PROGRESS"})
_PATIENCE_US: Final = 30 * SECOND


def finish(world: World) -> None:
    """From the repairs to the verdict. Stops at the first violation."""
    for part in (
        _settle,
        _repeat_answers,
        _repeat_requests,
        _probe_limits,
        _probe_refunds,
        _close_window,
        _restart,
        _compare,
    ):
        if world.witness.violations or world.over:
            return
        part(world)


def _settle(world: World) -> None:
    """Rule 7: in the end everything is settled, and no caller is left without an answer."""
    world.run()
    witness = world.witness
    if witness.violations or world.over:
        return
    witness.after_tick()
    if world.in_flight:
        witness.complain("everything is settled in the end", f"left: {', '.join(world.in_flight)}")
    for node in world.nodes:
        for call in node.calls:
            witness.complain("each request has one answer", f"operation {call.op} is left without")
        for closing in node.closings:
            witness.complain("each request has one answer", f"the closing of window {closing.number} is left without")


def _repeat_answers(world: World) -> None:
    """Rule 15: repeated and reordered answers move no money."""
    before = _nets(world)
    world.network.repeat_answers()
    _settle(world)
    if _nets(world) != before:
        world.witness.complain("repeated answers move no money", "they changed what is posted")


def _nets(world: World) -> dict[tuple[bytes, int], int]:
    return {leg: net for leg, net in world.witness.claims.posted.items() if net}


def _ask(world: World, ops: list[int], *, other: bool) -> list[int]:
    """Sends operations until they are answered finally; returns those refused because of another payload."""
    witness, asked = world.witness, ops
    for _ in range(ROUNDS_MAX + len(ops)):
        for start in range(0, len(ops), AT_ONCE):
            for op in ops[start : start + AT_ONCE]:
                witness.refusals.pop(op, None)
                call = world.request(op, other)
                if call is not None:
                    call.time_left_us = _PATIENCE_US
                    world.submit(call)
            _settle(world)
        ops = [op for op in ops if witness.refusals.get(op, set()) & _PUT_OFF or _was_held(world, op)]
        if not ops or witness.violations:
            break
        world.let_pass(CIRCUITS_CLOSE_US)
    for op in ops:
        witness.complain("it works again after repairs", f"operation {op}: {sorted(witness.refusals.get(op, ()))}")
    return [op for op in asked if "IDEMPOTENCY_KEY_REUSED" in witness.refusals.get(op, ())]


def _was_held(world: World, op: int) -> bool:
    """Whether the last answer was that the funds are held. They no longer are, since time went on."""
    witness = world.witness
    payment_id = witness.payment_of.get(op)
    return payment_id is not None and payment_id not in witness.final and op not in witness.refusals


def _repeat_requests(world: World) -> None:
    """Rule 2: every caller sends its request again and gets the one answer, or the reason why there is none."""
    world.let_pass(CIRCUITS_CLOSE_US)
    for node in world.nodes:
        if node.link is not None:
            node.link.at_rest(node.clock.now_us())
    witness = world.witness
    for kind in (Pay, Refund):
        ops = [op for op, asked in witness.asked.items() if isinstance(asked, kind)]
        standing_otherwise = _ask(world, ops, other=False)
        if standing_otherwise:
            left = _ask(world, standing_otherwise, other=True)
            for op in left:
                witness.complain("a key has one payload", f"operation {op} is refused with both")
    for op, payment_id in witness.payment_of.items():
        if payment_id not in witness.final and not witness.violations:
            witness.complain("each request has one answer", f"operation {op} never got its final one")
        elif witness.refusals.get(op, set()) - {"IDEMPOTENCY_KEY_REUSED"}:
            witness.complain("each request has one answer", f"operation {op} stands and is refused")


def _final_state(world: World, op: int) -> State | None:
    body = world.witness.final.get(world.witness.payment_of.get(op, b""))
    return None if body is None else State(pb.CreatePaymentResponse.FromString(body).payment.state)


def _probe(world: World, template: Pay | Refund, amount_minor: int) -> State | None:
    """Sends a further request; None if it is refused."""
    witness = world.witness
    if world.plan.strays:
        world.let_pass(GIVEN_UP_US)  # legs whose answers went to another engine count until then
    op = max(witness.asked) + 1
    asked = dataclasses.replace(template, op=op, amount_minor=amount_minor, patience_us=_PATIENCE_US)
    witness.asked[op] = asked
    if isinstance(asked, Pay):
        world.add_pay(asked)
    _ask(world, [op], other=False)
    return _final_state(world, op)


def _probe_limits(world: World) -> None:
    """Rule 18: what payments that did not succeed had reserved is free again, to the cent, and no more."""
    witness = world.witness
    for counter, cap in enumerate(world.plan.caps):
        ops = [op for op, asked in witness.asked.items() if isinstance(asked, Pay) and asked.counter == counter]
        if not ops:
            continue
        held = sum(
            amount
            for op in ops
            if _final_state(world, op) is State.SUCCEEDED
            for amount in witness.taken(witness.payment_of[op])
        )
        template = Pay(0, 0, 0, ISSUERS[0], "merchant-0", None, counter, _PATIENCE_US, 0)
        if held < cap and _probe(world, template, cap - held) is not State.SUCCEEDED:
            witness.complain("holds are given back", f"limit {counter}: {held} of {cap} are used, the rest is refused")
        elif not witness.violations and _probe(world, template, 1) is not None:
            witness.complain("a limit is never exceeded", f"limit {counter} of {cap} let one more through")


def _probe_refunds(world: World) -> None:
    """Rule 5: what is left of a refunded payment can be refunded, and no more."""
    witness = world.witness
    refunds = [asked for asked in witness.asked.values() if isinstance(asked, Refund)]
    for of in sorted({refund.of for refund in refunds}):
        if _final_state(world, of) is not State.SUCCEEDED or witness.violations:
            continue
        payment = pb.CreatePaymentResponse.FromString(witness.final[witness.payment_of[of]]).payment
        given = sum(_refunded(world, refund) for refund in refunds if refund.of == of)
        left = payment.amount_minor - given
        template = Refund(0, 0, of, 0, _PATIENCE_US)
        if _probe(world, template, left + 1) is not None:
            witness.complain("refunds never exceed the payment", f"{left + 1} of {left} left were refunded")
        elif left and _probe(world, template, left) is not State.SUCCEEDED:
            witness.complain("refunds that fail free their amount", f"{left} left of operation {of} are refused")


def _refunded(world: World, refund: Refund) -> int:
    """The end of a refund, in minor units."""
    if _final_state(world, refund.op) is not State.SUCCEEDED:
        return 0
    body = world.witness.final[world.witness.payment_of[refund.op]]
    return int(pb.CreatePaymentResponse.FromString(body).payment.amount_minor)


def _close_window(world: World) -> None:
    """Rule 20: a last window takes all payments that no other window has."""
    number = world.witness.windows.last + 1
    world.close_window(number)
    _settle(world)
    if world.witness.windows.last != number and not world.witness.violations:
        world.witness.complain("it works again after repairs", f"window {number} is not closed")


def _restart(world: World) -> None:
    """Rules 11 and 12, a last time: nothing is in flight, and a power cut loses nothing."""
    world.cut_power()
    _settle(world)
    recovered = sum(node.recovered for node in world.nodes)
    if recovered:
        world.witness.complain("everything is settled in the end", f"{recovered} in flight after a restart")


def _compare(world: World) -> None:
    """Compares the journal with itself, the participants and the callers, payment by payment."""
    witness = world.witness
    reader = witness.reader
    for payment_id, body in witness.final.items():
        payment = pb.CreatePaymentResponse.FromString(body).payment
        refund = payment.kind == pb.PAYMENT_KIND_REFUND
        witness.check_truth(payment_id, State(payment.state), payment.issuer_id if refund else payment.acquirer_id)
    stored = {bytes(row[0]): row[1] for row in reader.execute("SELECT payment_id, state FROM payments")}
    world.result.payments = len(stored)
    known = {payment_id: op for op, payment_id in witness.payment_of.items()}
    for payment_id, state in stored.items():
        if payment_id not in known:
            witness.complain("one effect for one key", f"{payment_id.hex()} is nobody's payment")
        elif state not in FINAL or state != _final_state(world, known[payment_id]):
            witness.complain("final states never change", f"{payment_id.hex()} is {State(state).name}")
    for payment_id in known.keys() - stored.keys():
        witness.complain("nothing acknowledged is lost", f"operation {known[payment_id]}: its payment is gone")
    _compare_effects(world)
    _compare_spends(world)
    _compare_orders(world)
    for watcher in world.watchers:
        world.reading.watched(watcher)


def _compare_effects(world: World) -> None:
    witness = world.witness
    books: dict[tuple[str, bytes, str], int] = {}
    for participant in world.network.participants.values():
        for leg_id, line in participant.lines.items():
            money = line.contents is not None and line.kind in ORIGINALS - {LegKind.AUTHORISATION}
            done = money and line.state == DONE
            number = leg_id[16]
            if done != bool(witness.claims.posted.get((leg_id[:16], number), 0)):
                witness.complain(
                    "books agree", f"leg {leg_id.hex()} is {line.state} at {line.participant}, posted differently"
                )
            if done:
                key = (line.participant, leg_id[:16], "CNY")
                debit = number == 1 or line.kind is LegKind.CAPTURE
                amount = -line.amount_minor if debit else line.amount_minor
                books[key] = books.get(key, 0) + amount
    if not witness.violations:
        succeeded = {
            payment_id for op, payment_id in witness.payment_of.items() if _final_state(world, op) is State.SUCCEEDED
        }
        witness.windows.compare(succeeded, books)
    report = world.storage.examine()
    compare(report, {key: net for key, net in books.items() if net})
    compare_holds(report, _held(world))
    for finding in report.findings:
        witness.complain("the books are conserved", finding)


def _held(world: World) -> dict[tuple[str, bytes, str], int]:
    """(issuer, payment id, currency) -> what its books set aside."""
    return {
        (participant.name, leg_id[:16], "CNY"): held
        for participant in world.network.participants.values()
        for leg_id, line in participant.lines.items()
        if line.contents is not None and line.kind is LegKind.AUTHORISATION and not line.lied
        if (held := participant.held_minor(line))
    }


def _compare_spends(world: World) -> None:
    """Rule 19: a code that was used belongs to one payment."""
    witness = world.witness
    for number in {asked.code for asked in witness.asked.values() if isinstance(asked, Pay) and asked.code is not None}:
        users = [op for op, asked in witness.asked.items() if isinstance(asked, Pay) and asked.code == number]
        winners = [witness.payment_of[op] for op in users if op in witness.payment_of]
        losers = [op for op in users if "CODE_SPENT" in witness.refusals.get(op, ())]
        rows = witness.reader.execute("SELECT payment_id FROM spends WHERE spend = ?", (name_of("code", number),))
        if [row[0] for row in rows] != winners or (losers and not winners):
            witness.complain("one code has one winner", f"code {number} was won by {winners}, lost by {losers}")


def _compare_orders(world: World) -> None:
    """An order is one payment's, and who came second was told of it."""
    witness = world.witness
    pays = [asked for asked in witness.asked.values() if isinstance(asked, Pay)]
    for order in sorted({pay.order for pay in pays if pay.order is not None}):
        having = witness.having(order)
        asking = [pay.op for pay in pays if pay.order == order]
        made = [op for op in asking if op in witness.payment_of]
        losers = [op for op in asking if "ORDER_ALREADY_PAID" in witness.refusals.get(op, ())]
        if len(having) > 1 or (losers and not made):
            witness.complain("an order is paid once", f"order {order} is paid by {having}, refused to {losers}")
