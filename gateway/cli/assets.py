"""``gateway assets``: uploads files that calls can name as their input."""

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import aiohttp
import typer

from gateway.cli.api_client import PAGE, ApiClient, Json, error_of, run
from gateway.cli.errors import CommandError, Unreachable
from gateway.cli.options import (
    DEFAULT_URL,
    JsonOption,
    KeyOption,
    UrlOption,
    api_target,
    check_readable,
    ids,
)
from gateway.cli.output import print_json, print_members, print_table, print_text, say

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)

AssetArgument = Annotated[str, typer.Argument(metavar="ASSET", help="Id of the asset.")]
_READ_BYTES = 262_144
_SILENCE_S = 60.0


@app.callback()
def group() -> None:
    """Upload, list, download and delete assets.

    A call names assets as its input in the header NVCF-INPUT-ASSET-REFERENCES: their ids, separated
    by commas. The function finds the files in the folder that NVCF-ASSET-DIR says. These commands
    need the scope invoke_function.
    """


@app.command()
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to upload.")],
    content_type: Annotated[
        str,
        typer.Option(
            metavar="TYPE", help="Content type. Default: what the file's name ends with says."
        ),
    ] = "",
    description: Annotated[
        str, typer.Option(metavar="TEXT", help="Description. Default: the file's name.")
    ] = "",
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Upload a file as an asset and print its id."""
    check_readable(file)
    guessed = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    body = {
        "contentType": content_type or guessed,
        "description": description or file.name.encode("ascii", "replace").decode(),
    }

    async def upload(api: ApiClient) -> Json:
        created = await api.call("POST", "assets", body)
        headers = {
            "content-type": body["contentType"],
            "x-amz-meta-nvcf-asset-description": body["description"],
            "content-length": str(file.stat().st_size),
        }
        async with _session() as session:
            await _put(session, created["uploadUrl"], headers, file)
        shown: Json = (await api.get(f"assets/{created['assetId']}"))["asset"]
        return shown

    asset = run(api_target(api_url, api_key), upload)
    if as_json:
        print_json(asset)
    else:
        print_text(asset["assetId"])


@app.command("list")
def list_assets(
    api_url: UrlOption = DEFAULT_URL, api_key: KeyOption = "", as_json: JsonOption = False
) -> None:
    """List the ids of the account's assets."""
    found = run(api_target(api_url, api_key), _list)
    if as_json:
        print_json(found)
    elif not found:
        say("There are no assets.")
    else:
        print_table(("ASSET",), [(asset["assetId"],) for asset in found])


@app.command()
def show(
    asset: AssetArgument,
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show an asset."""
    (asset_id,) = ids(asset)
    found = run(api_target(api_url, api_key), lambda api: api.get(f"assets/{asset_id}"))["asset"]
    if as_json:
        print_json(found)
        return
    print_members(
        [
            ("Id", found["assetId"]),
            ("Description", found["description"]),
            ("Content type", found["contentType"]),
            ("Created", found["createdAt"]),
        ]
    )


@app.command()
def download(
    asset: AssetArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    api_url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = "",
) -> None:
    """Download the file of an asset."""
    (asset_id,) = ids(asset)

    async def fetch(api: ApiClient) -> None:
        found = await api.get(f"assets/{asset_id}/content-redirect")
        async with _session() as session:
            await _get(session, found["presignedUrl"], file)

    run(api_target(api_url, api_key), fetch)


@app.command()
def delete(asset: AssetArgument, api_url: UrlOption = DEFAULT_URL, api_key: KeyOption = "") -> None:
    """Delete an asset."""
    (asset_id,) = ids(asset)
    run(api_target(api_url, api_key), lambda api: api.call("DELETE", f"assets/{asset_id}"))


async def _list(api: ApiClient) -> list[Json]:
    found: list[Json] = []
    query = {"limit": str(PAGE)}
    while True:
        page = await api.get("assets", **query)
        found += page["assets"]
        if "cursor" not in page:
            return found
        query["cursor"] = page["cursor"]


def _session() -> aiohttp.ClientSession:
    """Return a session without the credential, which the URL does not need."""
    timeout = aiohttp.ClientTimeout(total=None, connect=_SILENCE_S, sock_read=_SILENCE_S)
    return aiohttp.ClientSession(timeout=timeout, auto_decompress=False)


async def _put(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], file: Path
) -> None:
    try:
        async with session.put(url, data=_contents(file), headers=headers) as response:
            await _check(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"the upload failed: {error}") from None


async def _get(session: aiohttp.ClientSession, url: str, file: Path) -> None:
    try:
        async with session.get(url) as response:
            await _check(response)
            with _whole(file) as output:
                async for data in response.content.iter_chunked(_READ_BYTES):
                    await asyncio.to_thread(output.write, data)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreachable(f"the download failed: {error}") from None
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror}") from None


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """Write ``file``, which is there, or replaced, once the block has ended without an error."""
    if file.exists() and not file.is_file():
        # A pipe or a device.
        with file.open("wb") as output:
            yield output
        return
    target = file.resolve()
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as output:
            yield output
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        raise error_of(response.status, await response.content.read(_READ_BYTES))


async def _contents(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while data := await asyncio.to_thread(opened.read, _READ_BYTES):
            yield data
