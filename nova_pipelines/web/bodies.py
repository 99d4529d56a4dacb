"""Bodies of requests: JSON read as strictly as definitions are, then by a model. All input is hostile.

The content type is not asked for: `curl -d` says it sends a form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError

from nova_pipelines.domain.errors import DefinitionError
from nova_pipelines.domain.plain import plain_problems
from nova_pipelines.domain.text import load_json

#: characters of texts and keys in a body
MAX_CHARACTERS = 8_388_608
_Model = TypeVar("_Model", bound="Body")


class Body(BaseModel):
    """Base of the models of bodies: what is unknown is refused, types are not bent, no input stands in an error."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


async def text_of(request: Request) -> str:
    """The body as text. Raises HTTPException 400 for one that is not UTF-8."""
    try:
        return (await request.body()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the body is not UTF-8: byte {error.start}") from None


def body_of(model: type[_Model], *, optional: bool = False) -> Callable[[Request], Awaitable[_Model]]:
    """For `Depends`: the body as this model; `optional`: an empty body is an empty object.

    Raises HTTPException 400 for what is no JSON, DefinitionError for JSON that nobody means (repeated keys, infinities,
    NUL, too deep), RequestValidationError for what the model refuses.
    """

    async def read(request: Request) -> _Model:
        text = await text_of(request)
        if optional and not text.strip():
            text = "{}"
        try:
            return model.model_validate(plain_object(text))
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False, include_context=False)
            raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None

    return read


def plain_object(text: str) -> dict[str, Any]:
    """The JSON object in a text. Raises as `body_of` does."""
    try:
        data = load_json(text, source="the body")
    except DefinitionError as error:
        raise HTTPException(400, error.message) from None
    problems, _ = plain_problems(data, max_characters=MAX_CHARACTERS)
    if problems:
        raise DefinitionError(problems, source="the body")
    if not isinstance(data, dict):
        raise HTTPException(422, "the body must be a JSON object")
    return data


def documented(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """For `openapi_extra`: the body that `body_of` reads."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
