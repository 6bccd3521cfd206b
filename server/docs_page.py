"""`/docs`: the OpenAPI document as one page of HTML, without scripts and without any other file."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h2 { border-bottom: 1px solid #ddd; margin-top: 2rem }
summary { cursor: pointer; padding: .3rem 0 }
code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { background: #f5f5f5; padding: .7rem; overflow: auto }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .25rem .5rem;
  border-bottom: 1px solid #eee }
.method { display: inline-block; width: 4.5rem; font-weight: 600; text-transform: uppercase }
.note { color: #666 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } pre { background: #242424 }
  td, th, h2 { border-color: #333 } a { color: #8ab4f8 } .note { color: #999 }
}
"""
_SHOWN_LIMITS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "minLength": "characters, at least",
    "maxLength": "characters, at most",
    "minItems": "entries, at least",
    "maxItems": "entries, at most",
    "maxProperties": "entries, at most",
}
_REFERENCE = "#/components/schemas/"


def docs_page(document: Mapping[str, Any]) -> str:
    """The page: every route with what it takes, answers and can fail with, then every schema."""
    title = f"{document['info']['title']} {document['info']['version']}"
    return "".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            '<p>Made from <a href="/openapi.json">/openapi.json</a>.</p><h2>Routes</h2>',
            *_routes(document["paths"]),
            "<h2>Schemas</h2>",
            *_schemas(document["components"]["schemas"]),
            "</body></html>\n",
        ]
    )


def _routes(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in paths.items():
        for method, operation in methods.items():
            yield f'<details id="{operation["operationId"]}"><summary>'
            yield f'<span class="method">{method}</span> <code>{html.escape(path)}</code> '
            yield f"{html.escape(operation['summary'])}</summary>"
            yield from _parameters(operation.get("parameters", ()))
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                yield f"<p>Takes <code>{media_type}</code>: {_type(content.get('schema', {}))}</p>"
            yield "<table>"
            for status, response in operation["responses"].items():
                contents = "<br>".join(
                    f"<code>{media_type}</code> {_type(content.get('schema', {}))}"
                    for media_type, content in response["content"].items()
                )
                said = html.escape(response["description"])
                yield f"<tr><td>{status}</td><td>{said}</td><td>{contents}</td></tr>"
            yield "</table></details>"


def _parameters(parameters: Any) -> Iterator[str]:
    for parameter in parameters:
        name, place = html.escape(parameter["name"]), parameter["in"]
        yield f"<p>{place} <code>{name}</code>: {_type(parameter['schema'])}</p>"


def _schemas(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f'<h3 id="{name}">{name}</h3>'
        yield f'<p class="note">{html.escape(schema.get("description", ""))}</p>'
        if "properties" not in schema:
            yield f"<p>{_type(schema)}</p>"
            continue
        required = schema.get("required", ())
        yield "<table>"
        for field, described in schema["properties"].items():
            mark = "required" if field in required else _default(described)
            yield f"<tr><td><code>{html.escape(field)}</code></td><td>{_type(described)}</td>"
            yield f'<td class="note">{mark}</td></tr>'
        yield "</table>"


def _default(schema: Mapping[str, Any]) -> str:
    default = schema.get("default")
    return "" if default is None else f"default {html.escape(json.dumps(default))}"


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in words, with links to those that have a name."""
    reference = schema.get("$ref")
    if reference is not None:
        name = reference.removeprefix(_REFERENCE)
        return f'<a href="#{name}">{name}</a>'
    for word, joint in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if word in schema:
            return joint.join(map(_type, schema[word]))
    if "contentSchema" in schema.get("properties", {}).get("data", {}):
        return f"events of {_type(schema['properties']['data']['contentSchema'])}"
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"<code>{html.escape(json.dumps(value))}</code>" for value in values)
    kind = html.escape(str(schema.get("type", "anything")))
    if kind == "array" and isinstance(schema.get("items"), dict):
        kind = f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_type(schema['additionalProperties'])}"
    limits = [
        f"{words} {schema[limit]}" for limit, words in _SHOWN_LIMITS.items() if limit in schema
    ]
    return f"{kind} ({', '.join(limits)})" if limits else kind
