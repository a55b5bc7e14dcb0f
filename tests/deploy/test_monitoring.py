"""The dashboard and the alert rules ask only for what a real /metrics has, in PromQL that parses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import pytest_asyncio
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.faulty import BrokenEncoder
from tests.support.serving import drawn, make_model, serving

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text(encoding="utf-8"))
#: Labels that Prometheus itself puts to whatever it scrapes.
SCRAPED = {"instance", "job"}


def queries() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", re.sub(r"\$\w+", "5m", target["expr"])
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def parts(expression: promql.Expr) -> list[Any]:
    found: list[Any] = []
    promql.walk(expression, lambda part: found.append(part))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def samples() -> dict[str, set[str]]:
    """The names of all samples of a server that has had some of everything, and their labels."""
    encoder, labels = BrokenEncoder(), dict[str, set[str]]()
    async with serving(make_model(encoder)) as served:
        await served.post("/embed", drawn(1))
        await served.post("/embed", b"junk")
        encoder.broken = True
        await served.post("/embed", drawn(1))
        text = (await served.get("/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


QUERIES = list(queries())


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[where for where, _ in QUERIES])
async def test_a_query_parses_and_asks_for_series_and_labels_that_are_there(
    where: str, query: str, samples: dict[str, set[str]]
) -> None:
    found = parts(promql.parse(query))
    selectors = [part for part in found if isinstance(part, promql.VectorSelector)]
    assert selectors
    known = set(SCRAPED)
    for selector in selectors:
        assert selector.name in samples, f"{where}: no server has {selector.name}"
        known |= samples[selector.name]
        wanted = {matcher.name for matcher in selector.matchers.matchers}
        assert wanted <= samples[selector.name] | SCRAPED, f"{where}: {selector.name} has no such label"
    for part in found:
        if isinstance(part, promql.AggregateExpr) and part.modifier is not None:
            assert set(part.modifier.labels) <= known, f"{where}: nothing is told apart by that"


def test_every_alert_says_what_it_means_and_is_no_other_ones_name() -> None:
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]


def test_panels_lie_side_by_side_and_take_the_source_that_is_chosen() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
