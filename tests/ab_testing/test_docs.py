"""What the documentation states about assignment is what the code does."""

import hashlib
import json
import re
from pathlib import Path

from mlops_platform.ab_testing.domain.assignment import unit_slots
from mlops_platform.ab_testing.domain.lifecycle import TRANSITIONS
from mlops_platform.contracts.ab_testing import ABTestCreate, ABTestStatus, OutcomeCreate, Route

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference/ab-testing.md").read_text(encoding="utf-8")
EXPLANATION = (DOCS / "explanation/ab-testing.md").read_text(encoding="utf-8")


def test_the_published_hash_vectors_hold():
    salt = re.search(r"salt `([0-9a-f]{32})`", EXPLANATION)
    assert salt is not None
    rows = re.findall(r"^\| (?:`(.+?)`|\(empty\)) \| `([0-9a-f]{32})` \| (\d+) \| (\d+) \|$", EXPLANATION, re.MULTILINE)
    assert len(rows) == 4
    for unit, digest, traffic, variant in rows:
        assert hashlib.sha256(f"{salt[1]}\x1f{unit}".encode()).hexdigest()[:32] == digest
        assert unit_slots(salt[1], unit) == (int(traffic), int(variant))


def test_the_examples_are_valid():
    create, route, outcome = re.findall(r"```json\n(.+?)\n```", REFERENCE, re.DOTALL)
    ABTestCreate.model_validate(json.loads(create))
    Route.model_validate(json.loads(route))
    OutcomeCreate.model_validate_json(outcome)


def test_the_documented_states_are_the_transition_table():
    table = REFERENCE.partition("### States")[2].partition("Anything else")[0]
    documented = {
        ABTestStatus(row[0]): {ABTestStatus(to) for to in re.findall(r"`(\w+)`", row[1])}
        for row in re.findall(r"^\| `(\w+)` \|(.*)\|$", table, re.MULTILINE)
    }
    assert documented == TRANSITIONS
