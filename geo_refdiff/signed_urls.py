"""Signed URLs: the signature grants access, and is no part of what they name."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

_QUERY = re.compile(r"\?([^\s\"'<>]*[^\s\"'<>:;,.)\]])")
_SEPARATOR = re.compile(r"(&(?:amp;)?)")
_USER = re.compile(r"(?<=://)[^/@\s\"'<>]+@")
_SIGNATURE = re.compile(
    r"x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|expires|policy|key-pair-id|"
    r"security-token|token|access_token|auth_token|sas_token|api_key|apikey|hdnts|__gda__"
)
_AZURE = re.compile(r"s[a-z]{1,4}|saoid|suoid|scid")
"""Parameters beside `sig` in a shared access signature: st, se, sp, sv, sr, skoid and so on."""


def unsigned(text: str) -> str:
    """A URL, or a text with URLs in it such as a VRT, without signatures, tokens and passwords.

    Parameters of a query that belong to signatures of AWS, CloudFront, Google, Azure and others go; the others stay, in
    their order, as do URLs within GDAL's names (`/vsicurl/https://...`, `/vsicurl?url=...`).
    """
    if "?" not in text and "@" not in text:
        return text
    return _QUERY.sub(_without_signature, _USER.sub("", text))


def _without_signature(query: re.Match[str]) -> str:
    first, *rest = _SEPARATOR.split(query[1])
    parts = [("", first), *zip(rest[::2], rest[1::2], strict=True)]  # each with what stands before it
    azure = any(part.partition("=")[0].lower() == "sig" for _, part in parts)
    kept: list[tuple[str, str]] = []
    for before, part in parts:
        key, _, value = part.partition("=")
        name = key.lower()
        if _SIGNATURE.fullmatch(name) or (azure and _AZURE.fullmatch(name)):
            continue
        if name == "url":
            plain = unquote(value)
            part = part if unsigned(plain) == plain else f"{key}={quote(unsigned(plain), safe='')}"
        kept.append((before, part))
    return "?" + kept[0][1] + "".join(before + part for before, part in kept[1:]) if kept else ""
