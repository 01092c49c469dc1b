"""Bodies of requests and answers: pydantic models, which also make the OpenAPI document."""
