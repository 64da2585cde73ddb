"""Draws a run from a seed: the workload, the faults, and the share of messages that something happens to."""

from __future__ import annotations

import dataclasses
import random

from gateway.engine.transitions import Timing
from gateway.links.windows import FRAME_LEGS_MAX, WINDOW
from verification.simulation.plan import (
    DAY,
    DISK_MODES,
    HOUR,
    ISSUERS,
    PARTICIPANTS,
    SECOND,
    SERVER_MODES,
    Again,
    Cancel,
    Capture,
    ClockJump,
    CloseWindow,
    Crash,
    DiskFault,
    Down,
    Item,
    Pause,
    Pay,
    Plan,
    Read,
    Refund,
    SecondStream,
    ServerClockJump,
    Slow,
    StreamBreak,
    StreamStall,
    TornCommit,
    Watch,
    WentBack,
)


def draw(seed: int) -> Plan:
    """The run of a seed."""
    rng = random.Random(seed)
    span_us = rng.choice((1, 5, 20, 40)) * SECOND
    heal_us = span_us + rng.randint(5, 60) * SECOND
    caps = tuple(rng.randint(2_000, 9_000) for _ in range(2))
    storm = rng.choice((0.0, 0.05, 0.15, 0.4))
    pays = _payments(rng, span_us, len(caps))
    refunds = _refunds(rng, pays, heal_us)
    pays, refunds = _orders(random.Random(f"{seed} orders"), pays, refunds, heal_us)
    items: list[Item] = [*pays, *refunds, *_others(rng, pays, refunds, heal_us)]
    nodes = rng.choice((1, 1, 2))
    items.extend(_captures(rng, pays))
    items.extend(_faults(rng, heal_us, nodes))
    items.extend(_closings(random.Random(f"{seed} windows"), heal_us))
    items = _readers(seed, items, pays, heal_us)
    streams = random.Random(f"{seed} streams")
    items.extend(_streams(streams, pays, heal_us))
    return Plan(
        seed=seed,
        nodes=nodes,
        timing=Timing(
            leg_timeout_us=rng.choice((500_000, 1_000_000, 5_000_000)),
            inquiry_us=rng.choice((300_000, 1_000_000, 3_000_000)),
            inquiries_max=rng.choice((0, 1, 3)),
            reversal_us=rng.choice((300_000, 1_000_000)),
            reversal_max_us=rng.choice((5_000_000, 60_000_000)),
            capture_us=random.Random(f"{seed} captures").choice((200_000, 2_000_000, Timing().capture_us)),
        ),
        in_flight_max=rng.choice((4, 1000, 1000, 1000)),
        caps=caps,
        weather={name: rng.choice((0.0, storm, storm, min(1.0, storm * 2))) for name in PARTICIPANTS},
        heal_us=heal_us,
        items=tuple(sorted(items, key=lambda item: item.at_us)),
        window=streams.choice((WINDOW, WINDOW, WINDOW, 16, 8, 5, 4)),
        frame_legs_max=streams.choice((FRAME_LEGS_MAX, FRAME_LEGS_MAX, 3, 1)),
        connect_us=streams.choice((0, 0, SECOND // 3)),
    )


def draw_shared(seed: int) -> Plan:
    """The run of a seed on a journal that engines share: the same workload and faults, more engines, and faults between
    them."""
    plan = draw(seed)
    rng = random.Random(f"{seed} shared")
    nodes = max(plan.nodes, rng.choice((1, 2, 2, 3)))
    items = [dataclasses.replace(it, renamed=rng.random() < 0.3) if isinstance(it, Crash) else it for it in plan.items]

    def moment() -> int:
        return rng.randint(0, plan.heal_us - 2 * SECOND)

    for _ in range(rng.choice((0, 1, 2))):
        down_us = rng.choice((rng.randint(1000, SECOND), rng.randint(4 * SECOND, 12 * SECOND)))
        renamed, steps = rng.random() < 0.3, rng.randint(0, 60)
        items.append(Crash(moment(), rng.randrange(nodes), steps, False, down_us, 0, renamed=renamed))
    for _ in range(rng.choice((0, 1, 2, 4)) if nodes > 1 else 0):
        # Where there is something to do.
        at_us = rng.choice([item.at_us for item in plan.items if isinstance(item, Pay)]) + rng.randint(0, SECOND // 10)
        lasts_us = rng.choice((rng.randint(1000, SECOND), rng.randint(6 * SECOND, 9 * SECOND)))
        items.append(Pause(at_us, rng.randrange(nodes), rng.randint(0, 40), lasts_us, rng.random() < 0.7))
    for _ in range(rng.choice((0, 1, 2))):
        at_us = moment()
        lasts_us = min(rng.randint(50_000, 8 * SECOND), plan.heal_us - at_us - SECOND)
        items.append(DiskFault(at_us, lasts_us, rng.choice(SERVER_MODES), rng.randint(1, 12)))
    items.extend(_lines(random.Random(f"{seed} lines"), plan))
    if rng.random() < 0.15:
        items.append(ServerClockJump(moment(), rng.choice((-2 * SECOND, SECOND, 6 * SECOND))))
    if rng.random() < 0.1:
        items.append(WentBack(moment(), rng.randint(SECOND // 10, 5 * SECOND)))
    ordered = tuple(sorted(items, key=lambda item: item.at_us))
    return dataclasses.replace(plan, nodes=nodes, items=ordered, strays=rng.choice((0.0, 0.1, 0.5)))


def _lines(rng: random.Random, plan: Plan) -> list[Item]:
    """Lines to the server that are cut, and a server that stands still, at times when there is work."""
    items: list[Item] = []
    pays = [item.at_us for item in plan.items if isinstance(item, Pay)]
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        at_us = min(rng.choice(pays) + rng.randint(0, SECOND // 10), plan.heal_us - 2 * SECOND)
        mode = rng.choice(("cut", "cut_dead", "cut_dead", "frozen", "frozen"))
        longest_us = rng.choice((SECOND, 6 * SECOND, 12 * SECOND))
        lasts_us = min(rng.randint(50_000, longest_us), plan.heal_us - at_us - SECOND)
        items.append(DiskFault(at_us, lasts_us, mode, rng.randint(1, 14)))
    return items


def _readers(seed: int, items: list[Item], pays: list[Pay], heal_us: int) -> list[Item]:
    """Storms of queries and watchers, which change nothing else."""
    rng = random.Random(f"{seed} readers")
    storm = rng.choice((1, 1, 5, 100))
    read = [dataclasses.replace(it, times=rng.randint(1, storm)) if isinstance(it, Read) else it for it in items]
    watched = [rng.choice((None, rng.choice(pays).op)) for _ in range(rng.choice((0, 1, 1, 3)))]
    filters = random.Random(f"{seed} filters")
    read += [
        Watch(rng.randint(0, heal_us), of, f"merchant-{filters.randrange(3)}" if filters.random() < 0.4 else "")
        for of in watched
    ]
    return read


def _streams(rng: random.Random, pays: list[Pay], heal_us: int) -> list[Item]:
    """Participants' streams that break, stall before that, or are taken over while answers are slow."""
    items: list[Item] = []
    for _ in range(rng.choice((0, 0, 1, 4, 10))):
        busy_us = rng.choice(pays).at_us + rng.randint(-SECOND // 20, 2 * SECOND)
        at_us = min(max(0, rng.choice((busy_us, busy_us, rng.randint(0, heal_us)))), heal_us - 2 * SECOND)
        node, participant = rng.randrange(6), rng.choice(PARTICIPANTS)
        lasts_us = min(rng.choice((rng.randint(1000, SECOND), rng.randint(SECOND, 20 * SECOND))), heal_us - at_us)
        stalls = rng.random() < 0.6
        if stalls:
            items.append(StreamStall(at_us, node, participant, lasts_us))
            if rng.random() < 0.3:
                continue
            at_us += rng.randint(0, lasts_us)
        if rng.random() < 0.5:
            items.append(StreamBreak(at_us, node, participant, rng.randint(1000, heal_us - at_us)))
        else:
            armed = not stalls
            items.append(SecondStream(at_us, node, participant, armed))
            if armed:  # legs are sent again before the first copy is answered
                items.append(Slow(at_us, participant, 12 * SECOND, rng.randint(2 * SECOND, 6 * SECOND)))
    return items


def _payments(rng: random.Random, span_us: int, counters: int) -> list[Pay]:
    at_once = rng.random() < 0.3
    moments = [rng.randint(0, span_us) for _ in range(4 if at_once else 60)]
    holds = rng.choice((0.0, 0.0, 0.3, 0.8))
    codes, limits = rng.random() < 0.4, rng.random() < 0.4
    return [
        Pay(
            at_us=rng.choice(moments),
            op=op,
            amount_minor=1000 + op,
            issuer=rng.choice(ISSUERS),
            merchant=f"merchant-{rng.randint(0, 2)}",
            code=rng.randint(0, 4) if codes and rng.random() < 0.5 else None,
            counter=rng.randrange(counters) if limits and rng.random() < 0.6 else None,
            patience_us=rng.choice((200_000, 2_000_000, 30_000_000)),
            deadline_us=rng.choice((0, 0, 300_000, 2_000_000, 10_000_000)),
            hold_us=rng.choice((SECOND, 3 * SECOND, 20 * SECOND, HOUR)) if rng.random() < holds else 0,
        )
        for op in range(rng.randint(10, 40))
    ]


def _refunds(rng: random.Random, pays: list[Pay], heal_us: int) -> list[Refund]:
    refunds: list[Refund] = []
    for pay in rng.sample(pays, len(pays) // 3):
        moment = rng.randint(pay.at_us, heal_us)
        for _ in range(rng.randint(1, 4)):
            refunds.append(
                Refund(
                    at_us=moment if rng.random() < 0.6 else rng.randint(pay.at_us, heal_us),
                    op=len(pays) + len(refunds),
                    of=pay.op,
                    amount_minor=rng.choice((0, 1, pay.amount_minor // 3, pay.amount_minor // 2, pay.amount_minor)),
                    patience_us=rng.choice((200_000, 30_000_000)),
                )
            )
    return refunds


def _orders(rng: random.Random, pays: list[Pay], refunds: list[Refund], heal_us: int) -> tuple[list[Pay], list[Refund]]:
    """Some payments ask for a merchant's orders, several for the same one, and are refunded in full or in part, after
    which others ask for them too."""
    changed, more = list(pays), list(refunds)
    for order in range(rng.choice((0, 0, 1, 2))):
        merchant = f"merchant-{order}"
        asking = rng.sample(range(len(pays)), rng.randint(2, min(8, len(pays) // 2)))
        for at in asking:
            changed[at] = dataclasses.replace(changed[at], order=order, merchant=merchant)
        for at in rng.sample(asking, rng.randint(0, len(asking))):
            whole = changed[at].amount_minor
            parts = rng.choice(((0,), (0,), (whole // 2,), (whole // 2, whole - whole // 2)))
            more.extend(
                Refund(rng.randint(changed[at].at_us, heal_us), len(pays) + len(more) + part, at, amount, 30_000_000)
                for part, amount in enumerate(parts)
            )
    return changed, more


def _closings(rng: random.Random, heal_us: int) -> list[Item]:
    """Operators who close windows, alone or several at once, and crashes during it."""
    items: list[Item] = []
    for _ in range(rng.choice((0, 2, 5, 12))):
        moment = rng.randint(0, heal_us)
        for _ in range(rng.choice((1, 1, 2, 3))):
            at_us = moment + rng.choice((0, 0, rng.randint(0, SECOND // 100)))
            items.append(CloseWindow(at_us, rng.randrange(6), rng.choice((1, 1, 1, 1, 0, -1, 2))))
        if rng.random() < 0.1 and moment < heal_us - 2 * SECOND:
            node, steps = rng.randrange(6), rng.randint(0, 10)
            items.append(Crash(moment, node, steps, rng.random() < 0.5, rng.randint(1000, SECOND), 0, "closing"))
    return items


def _captures(rng: random.Random, pays: list[Pay]) -> list[Item]:
    """Captures of holds: alone, or racing with each other, a void and the end of the hold."""
    items: list[Item] = []
    for pay in pays:
        if not pay.hold_us or rng.random() < 0.15:
            continue
        race = rng.random() < 0.5
        moment = pay.at_us + (pay.hold_us if rng.random() < 0.3 else int(rng.expovariate(1 / SECOND)))
        for _ in range(rng.choice((1, 1, 2, 3))):
            at_us = moment + rng.choice((0, rng.randint(0, SECOND // 20), rng.randint(0, 10 * SECOND)))
            amounts = (0, pay.amount_minor, pay.amount_minor // 2, 1, pay.amount_minor + 1)
            items.append(Capture(at_us, pay.op, rng.choice(amounts)))
        if race:
            items.append(Cancel(moment + rng.choice((0, rng.randint(0, SECOND // 20))), pay.op))
    return items


def _others(rng: random.Random, pays: list[Pay], refunds: list[Refund], heal_us: int) -> list[Item]:
    items: list[Item] = []
    for _ in range(rng.randint(0, len(pays))):
        pay = rng.choice(pays)
        same_time = rng.random() < 0.4
        at_us = pay.at_us if same_time else rng.randint(pay.at_us, heal_us)
        items.append(Again(at_us, pay.op, other=rng.random() < 0.25))
    for refund in refunds:
        if rng.random() < 0.4:
            soon_us = rng.choice((0, rng.randint(0, SECOND // 2), rng.randint(0, 60 * SECOND)))
            items.append(Again(refund.at_us + soon_us, refund.op, other=rng.random() < 0.2))
    for _ in range(rng.randint(0, len(pays) // 3)):
        pay = rng.choice(pays)
        items.append(Cancel(pay.at_us + int(rng.expovariate(1 / SECOND)), pay.op))
    for _ in range(rng.randint(0, len(pays) // 2)):
        pay = rng.choice(pays)
        items.append(Read(rng.randint(pay.at_us, heal_us), pay.op))
    return items


def _faults(rng: random.Random, heal_us: int, nodes: int) -> list[Item]:
    items: list[Item] = []

    def moment() -> int:
        return rng.randint(0, heal_us - 2 * SECOND)

    def window(at_us: int, most_us: int) -> int:
        return min(rng.randint(50_000, most_us), heal_us - at_us - SECOND)

    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        power, clock_us = rng.random() < 0.5, rng.choice((0, 0, rng.randint(-2 * HOUR, 2 * HOUR)))
        down_us = rng.randint(1000, 3 * SECOND)
        items.append(Crash(moment(), rng.randrange(nodes), rng.randint(0, 60), power, down_us, clock_us))
    for _ in range(rng.choice((0, 0, 1, 3))):
        armed_by = rng.choice(("reversal", "reversal", "undoing", "undoing", "lie", "credit", "capture", "inquiry"))
        power = rng.random() < 0.5
        node, down_us = rng.randrange(nodes), rng.randint(1000, SECOND)
        latest_us = rng.choice((SECOND, rng.randint(1000, SECOND // 10)))
        items.append(Crash(moment(), node, rng.randint(0, 12), power, down_us, 0, armed_by, latest_us))
    if rng.random() < 0.3:
        items.append(TornCommit(moment(), rng.choice((0.0, rng.random(), 1.0)), rng.randint(1000, 3 * SECOND)))
    for _ in range(rng.choice((0, 1, 1, 2))):
        at_us = moment()
        mode = rng.choice(DISK_MODES)
        items.append(DiskFault(at_us, window(at_us, 8 * SECOND), mode, rng.randint(1, 12)))
    for _ in range(rng.choice((0, 0, 1, 3))):
        at_us = moment()
        noticed_us = rng.choice((0, rng.randint(0, 2 * SECOND)))
        items.append(Down(at_us, rng.choice(PARTICIPANTS), window(at_us, 20 * SECOND), noticed_us))
    for _ in range(rng.choice((0, 0, 1, 2))):
        at_us = moment()
        lasts_us = window(at_us, 20 * SECOND)
        items.append(Slow(at_us, rng.choice(PARTICIPANTS), lasts_us, rng.randint(10_000, 6 * SECOND)))
    if rng.random() < 0.15:
        items.append(ClockJump(moment(), rng.choice((SECOND, 60 * SECOND, 5 * HOUR, 8 * DAY, -8 * DAY))))
    return items
