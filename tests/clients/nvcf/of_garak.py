"""garak's generator for NVCF, which calls and polls; only what it needs of garak is installed."""

import os
from importlib import import_module

os.environ["NVCF_API_KEY"] = os.environ["API_KEY"]

from garak.attempt import Conversation, Message, Turn
from garak.generators.nvcf import NvcfChat
from trying import try_all

BASE = f"{os.environ['BASE_URL']}/v2/nvcf/pexec"
TEXT = "one two three"


def generator() -> NvcfChat:
    config = import_module("garak._config")
    config.load_config()
    config.plugins.generators["nvcf"] = {
        "invoke_uri_base": f"{BASE}/functions/",
        "status_uri_base": f"{BASE}/status/",
        "version_id": os.environ["SLOW_VERSION"],
    }
    return NvcfChat(os.environ["SLOW_FUNCTION"])


def ask(made: NvcfChat) -> None:
    (reply,) = made._call_model(Conversation([Turn("user", Message(TEXT))]))  # noqa: SLF001
    assert reply.text == TEXT, reply


def calls() -> None:
    ask(generator())


def polls() -> None:
    made = generator()
    made.headers["NVCF-POLL-SECONDS"] = "1"
    ask(made)


try_all({"garak (NVCF): a call": calls, "garak (NVCF): a call that is polled": polls})
