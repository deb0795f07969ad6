"""Which way an address is reached, with proxies in the environment."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from empg_cli.services.errors import NoWayError
from empg_cli.services.proxies import proxy_for, trusted_certificates

PROXY = "http://10.0.0.1:3128"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]",
     "0.0.0.0", "[::]"],
)  # fmt: skip
@pytest.mark.parametrize("proxy", [PROXY, "socks5://10.0.0.1:9", "what is this"])
def test_this_machine_is_reached_straight(monkeypatch: pytest.MonkeyPatch, host: str, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    assert proxy_for(f"http://{host}:8000/v1") is None


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "http://x.org", None),
        ({"http_proxy": PROXY}, "http://x.org", PROXY),
        ({"http_proxy": PROXY}, "https://x.org", None),
        ({"HTTPS_PROXY": PROXY}, "https://x.org", PROXY),
        ({"ALL_PROXY": PROXY}, "https://x.org", PROXY),
        ({"ALL_PROXY": "10.0.0.1:3128"}, "https://x.org", PROXY),
        ({"ALL_PROXY": "http://10.0.0.9:1", "HTTPS_PROXY": PROXY}, "https://x.org", PROXY),
        ({"ALL_PROXY": PROXY}, "http://[::broken", None),
        ({"ALL_PROXY": PROXY}, "no address", None),
    ],
)
def test_the_variables_mean_what_they_mean_elsewhere(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_straight"),
    [
        ("*", "http://x.org", True),
        ("x.org", "http://x.org", True),
        ("x.org", "http://X.ORG.", True),
        ("x.org", "http://a.x.org", True),
        (".x.org", "http://a.x.org", True),
        ("*.x.org", "http://a.x.org", True),
        ("x.org", "http://xx.org", False),
        ("y.org, x.org", "http://x.org", True),
        ("", "http://x.org", False),
        (",", "http://x.org", False),
        ("x.org:8000", "http://x.org:8000", True),
        ("x.org:8000", "http://x.org:8001", False),
        ("http://x.org", "http://x.org", True),
        ("10.1.2.3", "http://10.1.2.3:9", True),
        ("10.0.0.0/8", "http://10.1.2.3:9", True),
        ("10.0.0.0/8", "http://11.1.2.3:9", False),
        ("10.1.2.3:9", "http://10.1.2.3:9", True),
        ("10.1.2.3:8", "http://10.1.2.3:9", False),
        ("fd00::/8", "http://[fd00::1]:9", True),
        ("[fd00::1]", "http://[fd00::1]:9", True),
        ("[fd00::1]:9", "http://[fd00::1]:9", True),
    ],
)
def test_exempt_addresses(monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str, is_straight: bool) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(url) is None) == is_straight


@pytest.mark.parametrize("proxy", ["ftp://u:pass@x", "http://", "http://u:pass@[::x", "::::", "http://u:pass@x:99999"])
def test_a_proxy_that_is_none_is_said_without_its_text(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(NoWayError, match=r"(?s)for x\.org is no address such as .*NO_PROXY") as raised:
        proxy_for("http://x.org")
    assert "pass" not in str(raised.value)


def test_a_socks_proxy_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://u:pass@10.0.0.1:9")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NoWayError, match=r"(?s)SOCKS proxy for x\.org.*socksio.*NO_PROXY") as raised:
        proxy_for("http://x.org")
    assert "pass@" not in str(raised.value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    assert proxy_for("http://x.org") == "socks5h://u:pass@10.0.0.1:9"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE"])
def test_certificates_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    trusted_certificates()
    monkeypatch.setenv(name, str(tmp_path / "none.pem"))
    with pytest.raises(NoWayError, match=rf"{name}=.*none\.pem holds no certificates"):
        trusted_certificates()
    (tmp_path / "none.pem").write_text("not a certificate")
    with pytest.raises(NoWayError, match=rf"{name}=.*none\.pem holds no certificates"):
        trusted_certificates()
