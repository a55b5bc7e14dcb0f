"""Which form of answer an Accept header asks for, by RFC 9110's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsrv.server.wire.options import preferred
from tests.support.serving import request, serving

JSON, NPY = "application/json", "application/x-npy"
CASES: dict[str, tuple[list[str], str | None]] = {
    "no header": ([], JSON),
    "an empty header": ([""], JSON),
    "blanks and commas": ([" , ,"], JSON),
    "everything": (["*/*"], JSON),
    "a kind": (["application/*"], JSON),
    "what curl sends for npy": ([NPY], NPY),
    "npy, else anything": ([f"{NPY};q=1, */*;q=0.1"], NPY),
    "npy before anything of the same weight": ([f"{NPY}, */*"], NPY),
    "both named": ([f"{JSON}, {NPY}"], NPY),
    "JSON heavier": ([f"{JSON}, {NPY};q=0.1"], JSON),
    "npy refused": ([f"{NPY};q=0, {JSON}"], JSON),
    "npy refused, anything else": ([f"{NPY};q=0, */*"], JSON),
    "npy refused in three decimals": ([f"{NPY};q=0.000, */*"], JSON),
    "JSON refused": ([f"*/*, {JSON};q=0"], NPY),
    "JSON lighter than the rest of its kind": ([f"application/*;q=0.9, {JSON};q=0.2"], NPY),
    "two lines, the second allows JSON": (["text/html", JSON], JSON),
    "two lines, the second refuses npy": ([f"{JSON};q=0.5", f"{NPY};q=0"], JSON),
    "allowed and refused": ([f"{NPY}, {NPY};q=0, {JSON};q=0.5"], JSON),
    "a weight that is none": ([f"{NPY};q=nan, {JSON};q=0.5"], NPY),
    "nonsense": (["nonsense"], None),
    "any case, any spacing": ([f" Application/X-NPY ; Q=0.8 ,\t{JSON};q=0.5"], NPY),
    "parameters": ([f"{JSON};charset=utf-8;q=0.9, {NPY};v=1;q=0.3"], JSON),
    "a weight above one": ([f"{NPY};q=7, {JSON}"], NPY),
    "a browser": (["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], JSON),
    "pages only": (["text/html"], None),
    "all refused": (["*/*;q=0"], None),
    "both refused": ([f"{JSON};q=0, {NPY};q=0, */*"], None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_heaviest_offer_is_given_and_a_weight_of_nothing_refuses(name: str) -> None:
    lines, offer = CASES[name]
    assert preferred(lines, (JSON, NPY)) == offer


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=200), max_size=3))
def test_nothing_that_can_stand_in_a_header_breaks_it(lines: list[str]) -> None:
    assert preferred(lines, (JSON, NPY)) in (JSON, NPY, None)


@pytest.mark.parametrize(
    ("lines", "status", "kind"),
    [
        (["Accept:"], 200, JSON),
        (["Accept: text/html", f"Accept: {JSON}"], 200, JSON),
        ([f"Accept: {NPY};q=0, {JSON}"], 200, JSON),
        ([f"Accept: {NPY}"], 200, NPY),
        (["Accept: */*;q=0"], 406, JSON),
    ],
)
async def test_the_answer_has_the_form_that_accept_asks_for(lines: list[str], status: int, kind: str) -> None:
    body = b'{"text": "a"}'
    async with serving() as served:
        reply = await served.send(request("POST", "/embed/text", body, "Content-Type: application/json", *lines))
    assert (reply.status, reply.headers["content-type"].partition(";")[0]) == (status, kind)
