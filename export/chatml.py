"""The chat template of the first Qwen, whose checkpoints have code in its place.

A conversation that does not begin with a system message gets the one that its `chat` function has.
Its server's `function` messages are turned into text before they come here.
"""

from __future__ import annotations

CHATML = "chatml"  # what its generation_config.json calls this form

CHATML_TEMPLATE = """\
{%- if not messages or messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
