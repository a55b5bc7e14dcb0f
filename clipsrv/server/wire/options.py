"""What a caller asks of the answer: the query's options, and the forms its Accept allows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from aiohttp import hdrs, web

from clipsrv.server.wire.envelope import InvalidFieldError, NotAcceptableError, UnknownOptionError
from clipsrv.server.wire.replies import JSON_TYPE, LINES, NDJSON_TYPE, NPY, NPY_TYPE

_WEIGHT = re.compile(r"q[ \t]*=[ \t]*(0(?:\.\d*)?|1(?:\.0*)?)", re.ASCII)
#: Characters of Accept that are read; of 128 lines in the worst case, the first.
_LONGEST = 8192


def read_options(
    request: web.Request, allowed: Mapping[str, Sequence[str]], *, free: Collection[str] = ()
) -> dict[str, str]:
    """The query's options, the first value of each `allowed` where not given, and those of the `free`, of which any
    value is taken once, that are given.

    Raises UnknownOptionError: a misspelt option must not silently change the answer.
    """
    options = {name: values[0] for name, values in allowed.items()}
    for name, value in request.query.items():
        if name in free:
            if options.setdefault(name, value) != value:
                raise UnknownOptionError(f"{name} is given twice.")
            continue
        if name not in allowed:
            known = ", ".join(sorted([*allowed, *free])) or "none"
            raise UnknownOptionError(f"Unknown query option {name[:40]!r}; known here: {known}.")
        if value not in allowed[name]:
            raise UnknownOptionError(f"{name}={value[:40]!r} is not one of {', '.join(allowed[name])}.")
        options[name] = value
    return options


def whole_number(options: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """The number of an option that is given, or the default. Raises UnknownOptionError."""
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
        bounds = f"from {least} to {most:,}" if least else f"up to {most:,}"
        raise UnknownOptionError(f"{name}={text[:40]!r} is not a whole number {bounds}.")
    return int(text)


def one_model(*named: str | None) -> str | None:
    """The model that a request names, in its query or in its body. Raises InvalidFieldError."""
    names = set(named) - {None}
    if len(names) > 1:
        raise InvalidFieldError("The query and the body name different models.")
    return next(iter(names), None)


def negotiate(request: web.Request, encoding: str, *, lines: bool = False) -> str:
    """npy, or lines where they are offered, where Accept prefers it to JSON, else the query's `encoding`. Raises
    NotAcceptableError."""
    offers = (JSON_TYPE, NPY_TYPE, *((NDJSON_TYPE,) if lines else ()))
    wanted = preferred(request.headers.getall(hdrs.ACCEPT, ()), offers)
    if wanted is None:
        raise NotAcceptableError(f"Accept must allow {', '.join(offers[:-1])} or {offers[-1]}.")
    return {NPY_TYPE: NPY, NDJSON_TYPE: LINES}.get(wanted, encoding)


def require_json(request: web.Request) -> None:
    """Raises NotAcceptableError unless Accept allows JSON."""
    if preferred(request.headers.getall(hdrs.ACCEPT, ()), (JSON_TYPE,)) is None:
        raise NotAcceptableError(f"Accept must allow {JSON_TYPE}.")


def preferred(accept: Iterable[str], offers: Sequence[str]) -> str | None:
    """The offer (in lower case) with the highest weight in the lines of Accept; None if every one is refused.

    RFC 9110, 12.5.1: the most precise range that fits an offer gives its weight. Of offers that weigh the same, one
    named outright goes before one that only fits a pattern, then the last offer named, or the first of those not named.
    No range at all allows everything.
    """
    ranges = list(_ranges(accept))
    best, found = (0.0, 0), None
    for offer in offers:
        # How precise, and how heavy: the type itself, all of its kind, everything.
        fitting = [(kind.count("*"), weight) for kind, weight in ranges if kind in (offer, _all_like(offer), "*/*")]
        stars, weight = min(fitting, default=(2, 0.0 if ranges else 1.0))
        rank = (weight, 2 - stars)
        if weight and (rank > best or (rank == best and not stars)):
            best, found = rank, offer
    return found


def _ranges(accept: Iterable[str]) -> Iterable[tuple[str, float]]:
    for item in ",".join(accept)[:_LONGEST].lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        if kind:
            weights = (match[1] for match in map(_WEIGHT.fullmatch, parameters) if match)
            yield kind, float(next(weights, 1.0))


def _all_like(offer: str) -> str:
    return offer.partition("/")[0] + "/*"
