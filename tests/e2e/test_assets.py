"""Assets against the whole system: from the upload to a range of the file."""

import json
from pathlib import Path

import httpx
from typer.testing import CliRunner

from gateway.cli.program import app
from runtime.ids import new_uuid
from tests.support.dev import Dev
from tests.support.waiting import PATIENCE_S

ASSETS = "/v2/nvcf/assets"


def run(dev: Dev, *arguments: str) -> tuple[int, str]:
    env = {"GATEWAY_API_URL": dev.ready["api_url"], "GATEWAY_API_KEY": dev.ready["api_key"]}
    result = CliRunner(env=env).invoke(app, ["assets", *arguments])
    return result.exit_code, result.stdout


def test_a_client_of_nvcf_uploads_and_downloads(dev: Dev) -> None:
    headers = {"authorization": f"Bearer {dev.ready['api_key']}"}
    with httpx.Client(base_url=dev.ready["api_url"], headers=headers, timeout=PATIENCE_S) as api:
        made = api.post(ASSETS, json={"contentType": "image/png", "description": "a photo"})
        assert made.status_code == 200, made.text
        assert set(made.json()) == {"assetId", "uploadUrl", "contentType", "description"}
        path = f"{ASSETS}/{made.json()['assetId']}"
        assert api.get(path).status_code == 404
        sent = httpx.put(
            made.json()["uploadUrl"],
            content=b"0123456789",
            headers={"content-type": "image/png", "x-amz-meta-nvcf-asset-description": "a photo"},
        )
        assert sent.status_code == 200, sent.text
        asset = api.get(path).json()["asset"]
        assert set(asset) == {"assetId", "description", "contentType", "createdAt"}
        assert (asset["description"], asset["contentType"]) == ("a photo", "image/png")
        url = api.get(f"{path}/content-redirect").json()["presignedUrl"]
        part = httpx.get(url, headers={"range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"234")
        assert {"assetId": asset["assetId"]} in api.get(ASSETS).json()["assets"]
        assert api.delete(path).status_code == 204
        assert api.get(path).status_code == api.delete(path).status_code == 404
        assert httpx.get(url).status_code == 404


def test_the_command_line(dev: Dev, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(bytes(range(256)) * 3000)
    code, out = run(dev, "create", str(photo), "--description", "a photo", "--json")
    assert code == 0, out
    asset = json.loads(out)
    assert (asset["contentType"], asset["description"]) == ("image/png", "a photo")
    assert asset["assetId"] in run(dev, "list")[1]
    assert "a photo" in run(dev, "show", asset["assetId"])[1]
    back = tmp_path / "back.png"
    assert run(dev, "download", asset["assetId"], str(back)) == (0, "")
    assert back.read_bytes() == photo.read_bytes()
    assert run(dev, "delete", asset["assetId"])[0] == 0
    assert run(dev, "show", asset["assetId"])[0] == 1
    assert run(dev, "delete", new_uuid())[0] == 1
