"""``gateway gpus``: lists what deployments can ask for."""

import typer

from gateway.cli.api_client import run
from gateway.cli.options import DEFAULT_URL, JsonOption, KeyOption, UrlOption, api_target
from gateway.cli.output import print_json, print_table, say

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def gpus(
    api_url: UrlOption = DEFAULT_URL, api_key: KeyOption = "", as_json: JsonOption = False
) -> None:
    """List the GPUs that a deployment can use.

    The columns are values of --gpu, --backend and --instance-type of 'gateway deployments create'.
    """
    target = api_target(api_url, api_key)
    found = run(target, lambda api: api.get_list("supportedGpus"))
    if as_json:
        print_json(found)
        return
    if not found:
        say("The account has no GPUs: the gateway's settings list none for it ([[clusters]]).")
        return
    print_table(
        ("GPU*", "BACKEND*", "INSTANCE TYPE*", "DEFAULT"),
        [
            (gpu["gpu"], gpu["backend"], kind["name"], "yes" if kind["default"] else "")
            for gpu in found
            for kind in gpu["instanceTypes"]
        ],
    )
