"""The chat template of the first Qwen, whose checkpoints have code in its place.

A conversation that does not begin with a system message gets the one that its `chat` function has.
Functions are described, and called, in lines of text: the words are those that the model was
trained on, in the order in which its own server put them. All that follows a question, calls and
what they returned, is one turn of the assistant, which a call's result leaves open.
"""

from __future__ import annotations

CHATML = "chatml"  # what its generation_config.json calls this form

CHATML_TEMPLATE = """\
{%- if not messages or messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- set turn = namespace(question=-1, names='', is_open=false) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set turn.question = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if tools and message.role == 'assistant' %}
        {{- '\\n' if turn.is_open else '<|im_start|>assistant\\n' }}
        {%- set turn.is_open = true %}
        {%- set content = message.content.strip() %}
        {%- if not message.tool_calls %}
            {{- 'Thought: I now know the final answer.\\nFinal Answer: ' + content }}
        {%- endif %}
        {%- for call in message.tool_calls or [] %}
            {{- '' if loop.first else '\\n' }}
            {{- content if content.startswith('Thought:') else 'Thought: ' + content }}
            {{- '\\nAction: ' + call.function.name + '\\nAction Input: ' }}
            {%- set input = call.function.arguments %}
            {{- input if input is string else input | tojson }}
        {%- endfor %}
    {%- elif tools and message.role == 'tool' %}
        {{- '\\nObservation: ' + message.content.strip() }}
        {{- '\\nThought:' if loop.last and add_generation_prompt }}
    {%- else %}
        {{- '<|im_end|>\\n' if turn.is_open }}
        {%- set turn.is_open = false %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if tools and loop.index0 == turn.question %}
            {{- 'Answer the following questions as best you can. ' }}
            {{- 'You have access to the following APIs:\\n\\n' }}
            {%- for tool in tools %}
                {%- set function = tool.function %}
                {%- set name = function.name_for_model or function.name %}
                {%- set human = function.name_for_human or name %}
                {%- set turn.names = turn.names + ('' if loop.first else ', ') + name %}
                {%- set use = function.description_for_model or function.description or '' %}
                {{- name + ': Call this tool to interact with the ' + human + ' API.' }}
                {{- ' What is the ' + human + ' API useful for? ' + use }}
                {{- ' Parameters: ' + (function.parameters or {}) | tojson + '\\n\\n' }}
            {%- endfor %}
            {{- 'Use the following format:\\n\\n' }}
            {{- 'Question: the input question you must answer\\n' }}
            {{- 'Thought: you should always think about what to do\\n' }}
            {{- 'Action: the action to take, should be one of [' + turn.names + ']\\n' }}
            {{- 'Action Input: the input to the action\\n' }}
            {{- 'Observation: the result of the action\\n' }}
            {{- '... (this Thought/Action/Action Input/Observation ' }}
            {{- 'can be repeated zero or more times)\\n' }}
            {{- 'Thought: I now know the final answer\\n' }}
            {{- 'Final Answer: the final answer to the original input question\\n\\n' }}
            {{- 'Begin!\\n\\nQuestion: ' }}
        {%- endif %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if turn.is_open and (not add_generation_prompt or messages[-1].role == 'assistant') %}
    {{- '<|im_end|>\\n' }}
    {%- set turn.is_open = false %}
{%- endif %}
{%- if add_generation_prompt and not turn.is_open %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
