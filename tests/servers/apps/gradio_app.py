"""A gradio interface as its quickstart shows it: a function, a generator, a file."""

import sys
from collections.abc import Iterator
from pathlib import Path

import gradio


def greet(name: str) -> str:
    return f"Hello {name}!"


def count(name: str) -> Iterator[str]:
    for number in range(3):
        yield f"{name} {number}"


def shout(path: str) -> str:
    loud = Path(path).with_suffix(".loud")
    loud.write_text(Path(path).read_text().upper())
    return str(loud)


if __name__ == "__main__":
    with gradio.Blocks() as app:
        name, text = gradio.Textbox(), gradio.Textbox()
        file, answer = gradio.File(), gradio.File()
        gradio.Button().click(greet, name, text, api_name="greet")
        gradio.Button().click(count, name, text, api_name="count")
        gradio.Button().click(shout, file, answer, api_name="shout")
    app.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]))
