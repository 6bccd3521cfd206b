"""`/tokenize` and `/detokenize`: what a text or a conversation is to a model, and back."""

from __future__ import annotations

from typing import Any

import msgspec
from falcon.asgi import Request, Response

from engines.errors import InvalidRequest
from server.registry import ChatModel, ModelRegistry
from server.routes.answering import off_loop
from server.schema.decode import decode
from server.schema.tokenize import DetokenizedText, DetokenizeRequest, TokenizeRequest, Tokens


class Tokenize:
    """The tokens of a prompt, or of a rendered conversation."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        body = await req.get_media()
        request = decode(body, TokenizeRequest)
        request.check()
        model = find_chat_model(self._models, request.model)
        req.context.record.model_id = model.id
        tokens = await off_loop(req, _encode, model, request, body)
        names = None
        if request.return_token_strs:
            names = [model.text.tokenizer.token_text(token)[0] for token in tokens]
        resp.media = Tokens(
            count=len(tokens),
            max_model_len=model.worker.max_context,
            tokens=tokens,
            token_strs=names,
        )


class Detokenize:
    """The text of tokens."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def on_post(self, req: Request, resp: Response) -> None:
        request = decode(await req.get_media(), DetokenizeRequest)
        model = find_chat_model(self._models, request.model)
        req.context.record.model_id = model.id
        vocab_size = model.worker.vocab_size
        for index, token in enumerate(request.tokens):
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"tokens[{index}] is {token}, but ids run from 0 to {vocab_size - 1}",
                    f"tokens[{index}]",
                )
        resp.media = DetokenizedText(prompt=await off_loop(req, model.text.decode, request.tokens))


def find_chat_model(models: ModelRegistry, name: str | None) -> ChatModel:
    """The chat model of a request, which may leave it out where there is only one.

    Raises:
        ApiError: There is none, or several and no name.
    """
    return models.find_only(ChatModel) if name is None else models.find(name, ChatModel)


def _encode(model: ChatModel, request: TokenizeRequest, body: dict[str, Any]) -> list[int]:
    if request.messages is None:
        assert request.prompt is not None
        if request.add_special_tokens is False:
            return model.text.tokenizer.encode(request.prompt)
        return model.text.encode_prompt(request.prompt)
    continues = bool(request.continue_final_message)
    opens_turn = request.add_generation_prompt
    return model.text.encode_chat(
        msgspec.to_builtins(request.messages),
        tools=body.get("tools") or None,
        add_generation_prompt=not continues if opens_turn is None else opens_turn,
        continue_final_message=continues,
        variables=request.chat_template_kwargs,
    )
