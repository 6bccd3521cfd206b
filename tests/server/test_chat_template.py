"""Chat templates: what they find, and that whatever goes wrong in one is the request's error."""

import pytest

from engines.errors import InvalidRequest
from server.text.processor import TextProcessor
from tests.server.fakes import write_text_files


def test_a_trimming_template_can_be_continued_too(tmp_path):
    template = "{% for message in messages %}{{ message.content | trim }}<|im_end|>{% endfor %}"
    text = TextProcessor.load(write_text_files(tmp_path, template))
    ids = text.encode_chat(
        [{"role": "assistant", "content": "One, "}],
        add_generation_prompt=False,
        continue_final_message=True,
    )
    assert text.decode(ids) == "One,"


def test_a_template_that_drops_the_content_cannot_be_continued(tmp_path):
    text = TextProcessor.load(write_text_files(tmp_path, "nothing"))
    with pytest.raises(InvalidRequest, match="leaves out the content") as caught:
        text.encode_chat([{"role": "assistant", "content": "a"}], continue_final_message=True)
    assert caught.value.param == "continue_final_message"


def test_what_a_template_refuses_is_an_invalid_request(tmp_path):
    text = TextProcessor.load(write_text_files(tmp_path, "{{ raise_exception('no users here') }}"))
    with pytest.raises(InvalidRequest, match="no users here") as caught:
        text.encode_chat([{"role": "user", "content": "a"}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content + 1 }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}{{ nothing.at.all }}",
        "{% for i in range(10000000) %}{% endfor %}",
    ],
)
def test_a_template_that_breaks_is_an_invalid_request(tmp_path, template):
    text = TextProcessor.load(write_text_files(tmp_path, template))
    with pytest.raises(InvalidRequest, match="chat template cannot render"):
        text.encode_chat([{"role": "user", "content": "a"}])


def test_the_template_finds_what_templates_on_hubs_use(tmp_path):
    template = """
    {%- for message in messages %}
        {%- if loop.index > 1 %}{% break %}{% endif %}
        {%- generation %}{{ message.content }}{% endgeneration %}
    {%- endfor %}
    {{- eos_token }}{{ strftime_now('%Y')|length }}{{ {'a': '<é>'}|tojson }}"""
    text = TextProcessor.load(write_text_files(tmp_path, template))
    ids = text.encode_chat([{"role": "user", "content": "one"}, {"role": "user", "content": "two"}])
    assert text.decode(ids) == 'one<|im_end|>4{"a": "<é>"}'
    assert text.tokenizer.special_tokens["<|im_end|>"] in ids
