"""A trained policy behind the HTTP interface that most clients speak: OpenAI's."""
