"""One call of a client's app: whatever it does, an answer comes, and nobody else is touched.

An app may raise anything, `SystemExit` and `KeyboardInterrupt` included, return what is no reply, or change the
question that it was given. A Ctrl-C of the user still ends the run: only a real signal counts as one.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from flwr.app import Context, Message

from fedcl.core.bugs import in_one_line
from fedcl.flower.compat import error_reply, handed

App = Callable[[Message, Context], Message]


def reason(error: BaseException) -> str:
    """One line for the record: the type's name and the message, and of a bug the file and the line.

    The message is foreign code, too: it may raise whatever an app may.
    """
    words, unreadable = attempt(lambda: one_line(in_one_line(error)))
    return f"{type(error).__name__}, whose message cannot be read" if unreadable else words


def one_line(text: str) -> str:
    """Without line breaks and runs of blanks, at most 500 characters."""
    return " ".join(text[:5000].split())[:500]


def call_app(app: App, message: Message, context: Context) -> Message:
    """Reply of an app to a message; a failure is a reply with a reason.

    Raises:
        KeyboardInterrupt: the user wants an end.
    """

    def answer() -> tuple[Any, str | None]:
        reply = app(handed(message), context)
        return reply, _no_reply(reply, message)

    answered, error = attempt(answer)
    if error is not None:
        return error_reply(reason(error), message)
    reply, problem = answered
    return reply if problem is None else error_reply(problem, message)


def attempt(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Result of foreign code, or what it raised, whatever that is.

    Raises:
        KeyboardInterrupt: the user wants an end.
    """
    before, seen = signal.getsignal(signal.SIGINT), []
    # signals arrive in the main thread alone
    watched = threading.current_thread() is threading.main_thread() and callable(before)

    def handler(number: int, frame: FrameType | None) -> Any:
        seen.append(number)
        return before(number, frame)  # type: ignore[operator, misc]

    if watched:
        signal.signal(signal.SIGINT, handler)
    try:
        result, raised = call(), None
    except BaseException as error:
        result, raised = None, error
    finally:
        if watched:
            signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt
    return result, raised


def _no_reply(reply: Any, message: Message) -> str | None:
    """Reason why what an app returned is no answer to the message, or None."""
    if not isinstance(reply, Message):
        return f"the client's app returned a {type(reply).__name__}, not a message"
    about, asked = reply.metadata, message.metadata
    if (about.reply_to_message_id, about.src_node_id) != (asked.message_id, asked.dst_node_id):
        return "the client's app answered another message, or for another client"
    return None
