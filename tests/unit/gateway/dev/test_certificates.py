"""The authority and the certificate of `gateway dev --tls`."""

import stat
from pathlib import Path

from cryptography import x509

from gateway.dev.certificates import make_certificates


def test_the_authority_stays_and_speaks_for_this_machine_only(tmp_path: Path) -> None:
    first = make_certificates(tmp_path / "tls")
    contents = [file.read_bytes() for file in first]
    assert make_certificates(tmp_path / "tls") == first
    assert [file.read_bytes() for file in first] == contents
    for key in (first.key, tmp_path / "tls" / "ca.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    authority = x509.load_pem_x509_certificate(first.authority.read_bytes())
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    names = [str(name.value) for name in constraints.value.permitted_subtrees or ()]
    assert names == ["localhost"]


def test_what_is_missing_or_unusable_is_made_again(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    authority = files.authority.read_bytes()
    chain = files.chain.read_bytes()
    files.key.write_text("nonsense")
    make_certificates(tmp_path)
    assert files.authority.read_bytes() == authority
    renewed = files.chain.read_bytes()
    assert renewed != chain
    # Without the authority's key nothing can be renewed: there is a new one.
    (tmp_path / "ca.key").unlink()
    make_certificates(tmp_path)
    assert files.authority.read_bytes() != authority
    own = x509.load_pem_x509_certificate(files.chain.read_bytes())
    own.verify_directly_issued_by(x509.load_pem_x509_certificate(files.authority.read_bytes()))
