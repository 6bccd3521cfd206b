"""`/v1/responses`: what a body may leave out, and what of it is refused by name."""

from __future__ import annotations

from typing import Any

from server.schema.unsupported import check_fields, refusal

_FIELDS = {
    "audio": "spoken output",
    "background": "answers in the background",
    "context_management": "compaction of the context (use truncation)",
    "conversation": "conversations (use previous_response_id)",
    "prompt": "stored prompts (send the text as instructions or input)",
}
_ITEMS = frozenset(
    {"message", "function_call", "function_call_output", "reasoning", "item_reference"}
)
_PARTS = frozenset({"input_text", "output_text", "refusal", "summary_text", "reasoning_text"})
_TOOLS = frozenset({"function"})
_CHOICES = frozenset({"function", "allowed_tools"})


def prepare(body: Any) -> Any:
    """The body with a `type` for every message, so that it can be decoded.

    Raises:
        ApiError: 400, it asks for what this server does not have; `param` names the field.
    """
    if not isinstance(body, dict):
        return body
    check_fields(body, _FIELDS)
    for index, tool in enumerate(objects(body.get("tools"))):
        check_type(tool, _TOOLS, f"tools[{index}]", "functions are the only tools here")
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        check_type(choice, _CHOICES, "tool_choice", "functions are the only tools here")
    text = body.get("text")
    if isinstance(text, dict) and text.get("verbosity") in ("low", "high"):
        raise refusal(
            f'text.verbosity is "{text["verbosity"]}", but this server knows "medium" only: say '
            "in the instructions how long the answer should be",
            "text.verbosity",
        )
    items = body.get("input")
    if not isinstance(items, list):
        return body
    return body | {"input": [_prepare_item(item, index) for index, item in enumerate(items)]}


def _prepare_item(item: Any, index: int) -> Any:
    if not isinstance(item, dict):
        return item
    if "type" not in item and "role" in item:
        item = {"type": "message"} | item
    check_type(item, _ITEMS, f"input[{index}]", "items are messages, functions and reasoning")
    for field in ("content", "output"):
        for part_index, part in enumerate(objects(item.get(field))):
            param = f"input[{index}].{field}[{part_index}]"
            check_type(part, _PARTS, param, "this model reads text only")
    return item


def check_type(value: Any, known: frozenset[str], param: str, why: str) -> None:
    """Refuse an object whose `type` is not one of those known, where it has one."""
    given = value.get("type") if isinstance(value, dict) else None
    if isinstance(given, str) and given not in known:
        shown = given if len(given) <= 64 else f"{given[:61]}..."
        raise refusal(f'{param}.type is "{shown}", but {why}', f"{param}.type")


def objects(value: Any) -> list[Any]:
    """The entries of a list, none of anything else."""
    return value if isinstance(value, list) else []
