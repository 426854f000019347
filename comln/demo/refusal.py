"""The one error of a request to the live page: a status of HTTP, and a line for the person at the page."""

__all__ = ["Refusal"]

from http import HTTPStatus


class Refusal(Exception):
    """A request is not answered. The message says why and, where there is one, the remedy."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status
