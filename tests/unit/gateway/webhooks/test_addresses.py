"""To which URLs and addresses a webhook may go."""

from ipaddress import ip_network

import pytest

from gateway.errors import BadRequest
from gateway.webhooks.addresses import WebhookRules, host_of

RULES = WebhookRules()


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.100.100.200", "127.0.0.1", "127.255.255.255"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192"),
        *("192.168.1.1", "198.18.0.1", "203.0.113.7", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8"),
        *(
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
        ),
        *("2002:7f00:1::", "2002:808:808::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
        *("fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1", "2001:4860::1%eth0:x", "localhost", ""),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not RULES.permits(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450::1"]
)
def test_public_addresses_are_permitted(address: str) -> None:
    assert RULES.permits(address)


def test_only_configured_networks_are_reached_beside_the_public_ones() -> None:
    rules = WebhookRules(private_networks=(ip_network("10.20.0.0/16"), ip_network("fd00:1::/32")))
    assert rules.permits("10.20.3.4")
    assert rules.permits("fd00:1::5")
    assert not rules.permits("10.21.0.1")
    assert not rules.permits("::ffff:10.20.3.4")
    assert not rules.permits("fd00:2::5")


@pytest.mark.parametrize(
    "url",
    [
        b"https://example.com",
        b"https://Hooks.Example.com:8443/a?b=c%20d",
        b"https://example.com.:443/",
        b"https://8.8.8.8/x",
        b"https://[2606:4700:4700::1111]:8443/x",
        b"https://xn--bcher-kva.example/",
    ],
)
def test_urls_of_public_hosts_are_accepted_as_they_are(url: bytes) -> None:
    assert RULES.check_url(url) == url.decode()


@pytest.mark.parametrize(
    "url",
    [
        *(b"", b"example.com", b"/hook", b"//example.com/", b"ftp://example.com", b"https:///x"),
        *(b"http://example.com", b"https://user@example.com", b"https://a:b@example.com/"),
        *(b"https://example.com/#x", b"https://example.com:0/", b"https://example.com:22/"),
        *(b"https://example.com:99999/", b"https://example.com:x/", b"https://exa mple.com/"),
        *(b"https://b\xc3\xbccher.example/", b"https://example.com\\@evil.example/"),
        *(b"https://127.0.0.1/", b"https://[::1]/", b"https://[::ffff:8.8.8.8]/", b"https://[x]/"),
        *(b"https://-a.example/", b"https://a..example/", b"https://a%2eexample/"),
        *(b"https://169.254.169.254/latest/meta-data", b"https://example.com/" + b"a" * 2048),
    ],
)
def test_other_urls_are_refused_and_not_repeated(url: bytes) -> None:
    with pytest.raises(BadRequest, match="NVCF-Webhook-URL") as refused:
        RULES.check_url(url)
    assert "example" not in refused.value.detail


def test_a_list_of_hosts_permits_these_and_those_below_a_domain() -> None:
    rules = WebhookRules(hosts=("hooks.example.com", "*.example.org"))
    for host in (b"hooks.example.com", b"HOOKS.example.com.", b"a.example.org", b"a.b.example.org"):
        rules.check_url(b"https://" + host)
    for host in (b"example.com", b"a.hooks.example.com", b"example.org", b"badexample.org"):
        with pytest.raises(BadRequest, match="sends no webhooks"):
            rules.check_url(b"https://" + host)


def test_http_is_accepted_if_it_is_permitted() -> None:
    assert WebhookRules(allows_http=True).check_url(b"http://example.com/") == "http://example.com/"
    assert host_of("https://Hooks.Example.com:8443/x") == "hooks.example.com"
