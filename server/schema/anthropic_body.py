"""`/v1/messages`: what of a body is refused by name before it is decoded."""

from __future__ import annotations

from typing import Any

from server.schema.response_body import check_type, objects
from server.schema.unsupported import check_fields

_FIELDS = {
    "container": "containers",
    "context_management": "editing of the context",
    "mcp_servers": "MCP servers",
}
_TOOLS = frozenset({"custom"})
_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "tool_result"})
_TEXT = frozenset({"text"})
_READS_TEXT = "this model reads text only"


def check_body(body: Any) -> None:
    """Refuse what this server does not have.

    Raises:
        ApiError: 400, which names the field.
    """
    if not isinstance(body, dict):
        return
    fields = dict(_FIELDS)
    if _keeps_all(body.get("context_management")):
        del fields["context_management"]
    check_fields(body, fields)
    for index, tool in enumerate(objects(body.get("tools"))):
        check_type(tool, _TOOLS, f"tools[{index}]", "tools of the client are the only ones here")
    for index, message in enumerate(objects(body.get("messages"))):
        content = message.get("content") if isinstance(message, dict) else None
        for block_index, block in enumerate(objects(content)):
            field = f"messages[{index}].content[{block_index}]"
            check_type(block, _BLOCKS, field, _READS_TEXT)
            results = block.get("content") if isinstance(block, dict) else None
            for part_index, part in enumerate(objects(results)):
                check_type(part, _TEXT, f"{field}.content[{part_index}]", _READS_TEXT)


def _keeps_all(management: Any) -> bool:
    """Whether it edits nothing, as some clients say with every request."""
    edits = objects(management.get("edits")) if isinstance(management, dict) else []
    return bool(edits) and all(
        isinstance(edit, dict) and edit.get("keep") == "all" for edit in edits
    )
