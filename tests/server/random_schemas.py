"""Random JSON schemas of the kind that people send.

(hypothesis-jsonschema draws values of a schema, and its newest release does not run with the
hypothesis of today.)
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Schema = dict[str, Any]

_NAMES = st.sampled_from(["a", "id", "name", "unit price", "größe", "x-y", 'quo"te'])
_VALUES = st.sampled_from([0, -7, 3.5, True, None, "", "yes", "né", ["a", 1], {"k": [None]}])
_PATTERNS = st.sampled_from(["^[a-z]{1,4}$", r"^\d{3}-\d{2}$", "^(yes|no)$", "[A-F]"])
_SMALL = st.integers(0, 4)
_BOUND = st.integers(-1000, 1000)


def _fixed(required: dict[str, Any], **optional: Any) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries(
        {name: value if isinstance(value, st.SearchStrategy) else st.just(value)
         for name, value in required.items()},
        optional=optional,
    )  # fmt: skip


_STRINGS = st.one_of(
    _fixed({"type": "string"}, minLength=_SMALL, maxLength=st.integers(4, 12)),
    _fixed({"type": "string", "pattern": _PATTERNS}),
    _fixed({"type": "string", "format": st.sampled_from(["date", "uuid", "ipv4", "time"])}),
)
_NUMBERS = st.one_of(
    _fixed({"type": "integer"}, minimum=_BOUND, exclusiveMaximum=_BOUND),
    _fixed({"type": "number"}, minimum=_BOUND, maximum=_BOUND),
    _fixed({"type": "integer", "multipleOf": st.integers(2, 9)}),
)
_LEAVES = st.one_of(
    _STRINGS,
    _NUMBERS,
    _fixed({"type": st.sampled_from(["boolean", "null", ["integer", "null"]])}),
    _fixed({"enum": st.lists(_VALUES, min_size=1, max_size=4)}),
    _fixed({"const": _VALUES}),
)


def _objects(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return _fixed(
        {
            "type": "object",
            "properties": st.dictionaries(_NAMES, inner, min_size=1, max_size=4),
            "required": st.lists(st.sampled_from(["a", "id", "name"]), max_size=2, unique=True),
        },
        additionalProperties=st.sampled_from([False, {"type": "integer"}]),
    )


def _compound(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    some = st.lists(inner, min_size=1, max_size=3)
    lists = _fixed(
        {"type": "array", "items": inner, "maxItems": st.integers(1, 3)},
        minItems=st.integers(0, 2),
    )
    objects = _objects(inner)
    return st.one_of(
        objects,
        objects.map(lambda schema: schema | {"required": sorted(schema["properties"])}),
        lists,
        _fixed({"type": "array", "prefixItems": some, "items": False}),
        _fixed({"anyOf": some}),
        _fixed({"allOf": st.tuples(objects, objects).map(list)}),
    )


SCHEMAS = _compound(st.recursive(_LEAVES, _compound, max_leaves=6))


def random_schemas(count: int) -> list[Schema]:
    """The same schemas every time, of which no two are alike."""
    found: list[Schema] = []

    @settings(
        max_examples=4 * count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(SCHEMAS)
    def collect(schema: Schema) -> None:
        if schema not in found and len(found) < count:
            found.append(schema)

    collect()
    return found
