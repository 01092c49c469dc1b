"""Calls the gradio application with its own client; prints what it saw as JSON."""

import json
import sys
import tempfile
from pathlib import Path

from gradio_client import Client, handle_file

url, key, function_id = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}", "function-id": function_id}
client = Client(url, headers=headers, verbose=False)
job = client.submit("n", api_name="/count")
job.result()
with tempfile.TemporaryDirectory() as folder:
    quiet = Path(folder) / "quiet.txt"
    quiet.write_text("hush " * 10_000)
    loud = Path(client.predict(handle_file(str(quiet)), api_name="/shout"))
    shouted = loud.read_text()
sys.stdout.write(
    json.dumps(
        {
            "greet": client.predict("you", api_name="/greet"),
            "count": job.outputs(),
            "shout": shouted == "HUSH " * 10_000,
        }
    )
)
