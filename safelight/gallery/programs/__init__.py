"""Drop-in interfaces for other programs: AUTOMATIC1111's `/sdapi/v1` and OpenAI's images."""

__all__: list[str] = []
