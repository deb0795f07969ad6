"""The way to a server: through the proxy that the environment names, or straight.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` mean what they mean elsewhere, with two differences: this
machine is always reached straight, and a proxy matters only to addresses that go through it.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

from empg_cli.extras import pip_install
from empg_cli.services.errors import NoWayError


def proxy_for(url: str) -> str | None:
    """The address of the proxy for `url`; None = straight.

    Raises:
        NoWayError: there is one that cannot be used.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # no address; the request will say so
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not host or not proxy or _is_this_machine(host) or _is_exempt(host, port, proxies.get("no", "")):
        return None
    return _usable(proxy if "://" in proxy else f"http://{proxy}", host)


def _usable(proxy: str, host: str) -> str:
    """Its text is never shown: it may hold a password."""
    try:
        parts = urlsplit(proxy)
        scheme, is_whole = parts.scheme, bool(parts.hostname) and parts.port != 0
    except ValueError:
        scheme, is_whole = "", False
    straight = f"or let NO_PROXY name {host}, which is then reached straight"
    if scheme not in ("http", "https", "socks5", "socks5h") or not is_whole:
        raise NoWayError(
            f"the proxy that the environment names for {host} is no address such as http://10.0.0.1:3128\n"
            f"  Put HTTP_PROXY, HTTPS_PROXY or ALL_PROXY right, {straight}."
        )
    if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise NoWayError(
            f"the environment names a SOCKS proxy for {host}, which needs the package socksio\n"
            f"  Install it: {pip_install('socksio')}, {straight}."
        )
    return proxy


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    """By the entries of NO_PROXY: `*`, a domain (with all below it), an address, a network, each maybe with a port."""
    return any(_covers(entry.strip().lower(), host.lower(), port) for entry in no_proxy.split(","))


def _covers(entry: str, host: str, port: int | None) -> bool:
    entry = entry.partition("://")[2] or entry
    if entry == "*":
        return True
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            pass  # no network: maybe an address with a port
    name, colon, its_port = entry.rpartition(":")
    if colon and its_port.isdecimal():
        if its_port != str(port):
            return False
        entry = name
    entry = entry.strip("[]").lstrip("*").lstrip(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def trusted_certificates() -> ssl.SSLContext:
    """What servers are checked with: SSL_CERT_FILE or SSL_CERT_DIR, else the usual authorities.

    Raises:
        NoWayError: they name nothing that can be read.
    """
    try:
        return httpx.create_ssl_context()
    except OSError as error:  # ssl.SSLError too
        named = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        place = named[0] if named else "the package certifi"
        raise NoWayError(f"{place} holds no certificates that can be read: {error.strerror or error}") from None
