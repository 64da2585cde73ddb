"""A population's issuers and acquirers, opened on their books."""

from __future__ import annotations

from collections.abc import Mapping

from clients.participants.books import Books
from clients.participants.simulated import Participants, SimulatedAcquirer, SimulatedIssuer, SimulatedParticipant
from clients.population import Population
from contract.secret import Secret


def assemble(population: Population, books: Books, *, magic_amounts: bool = True) -> Participants:
    """All participants on one set of books, with the accounts that the books know. Follow with `open_accounts`."""
    everybody: list[SimulatedParticipant] = [
        SimulatedIssuer(one.id, books, seed=population.seed, magic_amounts=magic_amounts) for one in population.issuers
    ]
    everybody += [
        SimulatedAcquirer(one.id, books, seed=population.seed, magic_amounts=magic_amounts)
        for one in population.acquirers
    ]
    return Participants(books, everybody)


def open_accounts(
    participants: Mapping[str, SimulatedParticipant], population: Population, tokens: Mapping[str, Secret[str]]
) -> None:
    """Opens every account that is not open yet: at issuers by token (`tokens`: wallet id to token), at acquirers by
    merchant id. Participants that are not in the mapping are left out. Durable on return."""
    for issuer in population.issuers:
        if issuer.id in participants:
            participants[issuer.id].ledger.open_accounts(
                (tokens[wallet.id].reveal(), wallet.currency, wallet.opening_minor)
                for wallet in population.wallets_of(issuer.id)
            )
    for acquirer in population.acquirers:
        if acquirer.id in participants:
            participants[acquirer.id].ledger.open_accounts(
                (shop.id, shop.currency, 0) for shop in population.merchants_of(acquirer.id)
            )
