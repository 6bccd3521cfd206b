"""`/v1/embeddings` of a running server, by openai-python and by hand."""

from __future__ import annotations

import base64
import concurrent.futures

import numpy as np
import pytest

openai = pytest.importorskip("openai")

TEXTS = ["The quick brown fox", "What is 3 + 4?", "def total(values):", "fox " * 40]


@pytest.fixture(scope="module")
def client(reader_server):
    url = f"{reader_server.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def reference(reader_checkpoints):
    """What sentence-transformers computes: the last token's state, normalized."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    folder = reader_checkpoints["embedding"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def embed(text, dimensions=None):
        ids = tokenizer.encode(text).ids if isinstance(text, str) else text
        with torch.inference_mode():
            state = model(torch.tensor([ids])).last_hidden_state[0, -1][:dimensions]
        return torch.nn.functional.normalize(state, dim=0).numpy(), len(ids)

    return embed


def post(server, body):
    with server.client() as http:
        return http.post("/v1/embeddings", json={"model": "tiny-embedding"} | body)


def assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_texts_are_embedded_as_by_the_reference(client, reference):
    answer = client.embeddings.create(model="tiny-embedding", input=TEXTS)
    expected = [reference(text) for text in TEXTS]
    assert [item.index for item in answer.data] == [0, 1, 2, 3]
    assert_equal([item.embedding for item in answer.data], [row for row, _ in expected])
    assert answer.usage.prompt_tokens == sum(count for _, count in expected)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens
    assert answer.model == "tiny-embedding"


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("The quick", ["The quick"]),
        (["The quick"], ["The quick"]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6, 7], [8]], [[5, 6, 7], [8]]),
        (["The quick", [5, 6]], ["The quick", [5, 6]]),
    ],
)
def test_an_input_is_text_or_token_ids_or_a_list_of_them(client, reference, given, texts):
    answer = client.embeddings.create(model="tiny-embedding", input=given)
    assert_equal([item.embedding for item in answer.data], [reference(text)[0] for text in texts])


def test_both_encodings_say_the_same(reader_server):
    body = {"input": TEXTS[:2]}
    floats = post(reader_server, body).json()["data"]
    encoded = post(reader_server, body | {"encoding_format": "base64"}).json()["data"]
    for item, other in zip(floats, encoded, strict=True):
        values = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        assert values.tolist() == np.array(item["embedding"], np.float32).tolist()
        assert abs(np.linalg.norm(values) - 1) < 1e-5


def test_fewer_dimensions_are_cut_and_scaled_again(client, reference):
    answer = client.embeddings.create(model="tiny-embedding", input=TEXTS[0], dimensions=8)
    assert len(answer.data[0].embedding) == 8
    assert_equal(answer.data[0].embedding, reference(TEXTS[0], 8)[0])


def test_a_crowd_gets_what_each_gets_alone(client):
    texts = [f"{'word ' * (1 + i % 7)}{i}" for i in range(24)]

    def embed(text):
        return client.embeddings.create(model="tiny-embedding", input=text).data[0].embedding

    alone = [embed(text) for text in texts]
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        crowd = list(executor.map(embed, texts))
    np.testing.assert_allclose(crowd, alone, atol=1e-5)
    together = client.embeddings.create(model="tiny-embedding", input=texts)
    np.testing.assert_allclose([item.embedding for item in together.data], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "sentence"),
    [
        ({}, "input", "is missing"),
        ({"input": []}, "input", "must hold a text"),
        ({"input": ""}, "input", "is empty"),
        ({"input": ["a", ""]}, "input[1]", "is empty"),
        ({"input": ["a", 5]}, "input", "mixes"),
        ({"input": [[5], []]}, "input[1]", "is empty"),
        ({"input": [5, 9999]}, "input", "the token id 9999, but ids run from 0"),
        ({"input": [[5], [-1]]}, "input[1]", "the token id -1"),
        ({"input": 5}, "input", "must be a string or a list"),
        ({"input": ["a"] * 2049}, "input", "2049 texts, but a request may have at most 2048"),
        ({"input": "a", "dimensions": 65}, "dimensions", "embeddings have 64"),
        ({"input": "a", "dimensions": 0}, "dimensions", "at least 1"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "float, base64"),
        ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "truncating"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_names_the_field(reader_server, body, param, sentence):
    answer = post(reader_server, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert sentence in error["message"]


def test_a_text_that_is_too_long_names_itself(reader_server):
    answer = post(reader_server, {"input": ["a", "b " * 900]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "input[1]"
    assert "up to 256 tokens" in error["message"]


def test_other_kinds_of_models_do_not_embed(reader_server):
    answer = post(reader_server, {"input": "a", "model": "tiny-reranker"})
    assert answer.status_code == 404
    assert "is of kind rerank" in answer.json()["error"]["message"]
    with reader_server.client() as http:
        chat = {"model": "tiny-embedding", "messages": [{"role": "user", "content": "Hi"}]}
        assert http.post("/v1/chat/completions", json=chat).status_code == 404


def test_models_metrics_and_health_tell_of_readers(reader_server):
    with reader_server.client() as http:
        listed = {model["id"] for model in http.get("/v1/models").json()["data"]}
        assert listed == {"tiny-embedding", "tiny-reranker"}
        details = http.get("/v1/models/tiny-embedding").json()
        assert (details["kind"], details["embedding_width"]) == ("embedding", 64)
        assert details["max_model_len"] == 256
        assert http.get("/v1/models/tiny-reranker").json()["kind"] == "rerank"
        assert post(reader_server, {"input": "a"}).status_code == 200
        metrics = http.get("/metrics").text
        assert 'enginery_pooling_tokens_total{model_name="tiny-embedding"}' in metrics
        health = http.get("/health").json()
        assert [model["kind"] for model in health["models"]] == ["embedding", "rerank"]
