"""Metrics of several processes as those of one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from clipsrv.server.workers import sums


def report(requests: int, lag: float) -> str:
    registry = CollectorRegistry()
    counter = Counter("clipsrv_requests", "Requests", ["route"], registry=registry)
    counter.labels('a "b" \\ c d').inc(requests)
    Histogram("clipsrv_seconds", "Seconds", buckets=(1, 2), registry=registry).observe(requests)
    Gauge("clipsrv_slots", "Slots", registry=registry).set(4)
    Gauge("clipsrv_loop_lag_seconds", "Lag", registry=registry).set(lag)
    Gauge("process_start_time_seconds", "Start", registry=registry).set(1000 + requests)
    return generate_latest(registry).decode()


def values(families: sums.Families) -> dict[str, float]:
    return {sample: value for family in families.values() for sample, value in family.samples.items()}


def test_counts_are_added_the_worst_lag_and_the_first_start_are_the_whole_s() -> None:
    whole = values(sums.together([sums.parse(report(1, 0.5)), sums.parse(report(2, 0.1))]))
    assert whole['clipsrv_requests_total{route="a \\"b\\" \\\\ c d"}'] == 3
    assert [whole[f'clipsrv_seconds_bucket{{le="{le}"}}'] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert whole["clipsrv_seconds_sum"] == 3
    assert whole["clipsrv_slots"] == 8
    assert whole["clipsrv_loop_lag_seconds"] == 0.5
    assert whole["process_start_time_seconds"] == 1001


def test_what_is_written_is_what_was_read() -> None:
    read = sums.parse(report(1, 0.5))
    assert sums.parse(sums.written(read)) == read
    assert sums.written(read).splitlines()[:2] == [
        "# HELP clipsrv_requests_total Requests",
        "# TYPE clipsrv_requests_total counter",
    ]


def test_of_one_that_has_ended_counts_stay_and_gauges_go() -> None:
    kept = sums.counted(sums.parse(report(2, 0.5)))
    whole = values(sums.together([kept, sums.parse(report(1, 0.1))]))
    assert whole['clipsrv_requests_total{route="a \\"b\\" \\\\ c d"}'] == 3
    assert whole["clipsrv_slots"] == 4
    assert whole["clipsrv_loop_lag_seconds"] == 0.1


def test_adding_leaves_the_reports_as_they_were() -> None:
    one = sums.parse(report(1, 0.5))
    before = sums.written(one)
    sums.together([one, sums.parse(report(2, 0.1))])
    assert sums.written(one) == before
