"""Every text that a client can send, against a corpus of hostile ones. A new route joins by itself.

The quick runs give each place the values that break most and a rotating share of the rest; the slow one gives it all.
"""

import pytest

from tests.bad_input import corpus
from tests.bad_input.hostile import Attack
from tests.bad_input.operations import Operation, fields, operations
from tests.conftest import Platform

TEXT = frozenset({"string"})


async def attack_texts(platform: Platform, operation: Operation, *, is_whole: bool) -> None:
    attack = await Attack.begin(platform, operation)
    await attack.check_valid_request()
    turn = operation.turn
    places = [("path", one["name"], corpus.for_segment()) for one in operation.named("path")]
    places += [("query", one["name"], corpus.for_query()) for one in operation.named("query")]
    for number, (place, name, values) in enumerate(places, turn):
        for what, value in (values if is_whole else corpus.share(values, number)).items():
            request = attack.request(**{"segments" if place == "path" else "query": {name: value}})
            await attack.try_(f"{name} = {what}", request, field=(name,))
    for number, field in enumerate(fields(operation.service, operation.body, kinds=TEXT), turn):
        for what, text in (corpus.TEXTS if is_whole else corpus.share(corpus.TEXTS, number)).items():
            request = attack.request(body=attack.with_field(field, text))
            await attack.try_(f"{'.'.join(map(str, field))} = {what}", request, field=field)
    await attack.finish()


@pytest.mark.parametrize("operation", operations(), ids=str)
async def test_a_hostile_text_is_refused_or_harmless(platform: Platform, operation: Operation) -> None:
    await attack_texts(platform, operation, is_whole=False)


@pytest.mark.slow
@pytest.mark.parametrize("operation", operations(), ids=str)
async def test_no_hostile_text_of_all_does_harm(platform: Platform, operation: Operation) -> None:
    await attack_texts(platform, operation, is_whole=True)
