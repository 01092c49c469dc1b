"""The folder of an installation: who can read it, and that nothing of it is lost."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from gateway.cli.nats import app
from queueing.nats.setup.folder import GivenCertificate, Installation, make_installation
from queueing.nats.setup.keys import RotatedKey, make_keys
from queueing.nats.setup.plan import SetupPlan, SetupPlanError, plan_nodes
from tests.support.certificates import Authority

NOW = datetime.now(UTC)
PUBLIC = {"ca.pem", "tls.crt"}


def make(
    folder: Path, count: int = 3, given: GivenCertificate | None = None, host: str = ""
) -> Installation:
    nodes = plan_nodes(count, [host] if host else [])
    has_ca = given is None or given.authority is not None
    plan = SetupPlan(nodes, folder, 1 << 30, 1 << 30, "secret", has_tls=True, has_ca=has_ca)
    return make_installation(folder, plan, make_keys(os.urandom, 0), NOW, given)


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_holds_secrets_is_for_its_owner_only(tmp_path: Path) -> None:
    made = make(tmp_path / "nats")
    assert [server.name for server in made.servers] == ["nats-1", "nats-2", "nats-3"]
    for file in made.folder.rglob("*"):
        mode = stat.S_IMODE(file.stat().st_mode)
        assert file.name in PUBLIC or mode == (0o700 if file.is_dir() else 0o600), file
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    made = make(tmp_path / "nats")
    before = contents(made.folder)
    with pytest.raises(SetupPlanError, match="nothing is overwritten"):
        make(tmp_path / "nats")
    assert contents(made.folder) == before
    missing = GivenCertificate(tmp_path / "no.crt", tmp_path / "no.key", None)
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "other", 1, missing)
    assert [file.name for file in tmp_path.iterdir()] == ["nats"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert make(tmp_path).read_keys().at == 0


def test_a_rotation_that_was_cut_short_is_completed_by_the_next_write(tmp_path: Path) -> None:
    made = make(tmp_path / "nats")
    keys = made.read_keys().rotate(RotatedKey.OPERATOR, os.urandom, 0)
    changed = {str(file.relative_to(made.folder)) for file in made.write_keys(keys)}
    assert changed == {
        "gateway/operator-signing.nk",
        *(f"nats-{number}/accounts.conf" for number in (1, 2, 3)),
    }
    wanted = contents(made.folder)
    (made.servers[1] / "accounts.conf").unlink()
    made.write_keys(made.read_keys())
    assert contents(made.folder) == wanted


def test_commands_that_change_a_folder_exclude_each_other(tmp_path: Path) -> None:
    made = make(tmp_path / "nats")
    with made.locked():
        refused = CliRunner().invoke(app, ["rotate", str(made.folder), "operator"])
    assert (refused.exit_code, "Another command" in refused.stderr) == (2, True)
    assert made.read_keys().begun() is None
    rotated = CliRunner().invoke(app, ["rotate", str(made.folder), "operator"])
    assert rotated.exit_code == 0, rotated.output


def test_renewed_certificates_are_for_the_same_hosts_and_of_the_same_authority(
    tmp_path: Path,
) -> None:
    made = make(tmp_path / "nats")
    files = [server / "tls.crt" for server in made.servers]
    before = [file.read_bytes() for file in files]
    assert len(made.renew_certificates(NOW + timedelta(days=1))) == 6
    assert made.ca_file is not None
    authority = x509.load_pem_x509_certificate(made.ca_file.read_bytes())
    for file, old in zip(files, before, strict=True):
        new = x509.load_pem_x509_certificate(file.read_bytes())
        assert file.read_bytes() != old
        new.verify_directly_issued_by(authority)
        names = new.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert [str(name.value) for name in names.value] == ["127.0.0.1"]


def test_a_given_certificate_is_copied_to_each_server_if_it_fits(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("own", "*.nats.example.com")
    given = GivenCertificate(certificate, key, authority.file)
    made = make(tmp_path / "nats", 1, given, host="one.nats.example.com")
    (server,) = made.servers
    assert (server / "tls.crt").read_bytes() == certificate.read_bytes()
    assert (server / "ca.pem").read_bytes() == authority.file.read_bytes()
    with pytest.raises(SetupPlanError, match="has no authority of its own"):
        made.renew_certificates(NOW)
    other = authority.issue("other", "example.com")[1]
    for wrong, host, reason in (
        (given, "two.example.com", "not for two.example.com"),
        (given._replace(key=other), "one.nats.example.com", "is not the key of"),
        (given._replace(certificate=key), "one.nats.example.com", "must be PEM files"),
    ):
        with pytest.raises(SetupPlanError, match=reason):
            make(tmp_path / "refused", 1, wrong, host=host)


def test_a_folder_of_something_else_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SetupPlanError, match="has no operator-keys"):
        Installation(tmp_path).read_keys()
    (tmp_path / "operator-keys.json").write_text("{")
    with pytest.raises(SetupPlanError, match="is damaged"):
        Installation(tmp_path).read_keys()
