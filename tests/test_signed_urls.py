"""What remains of URLs once their signatures are gone."""

from __future__ import annotations

import pytest

from geo_refdiff.errors import InputError
from geo_refdiff.signed_urls import unsigned

URL = "https://a.example/b/c.tif"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{URL}?X-Amz-Date=1&X-Amz-Signature=ab&versionId=2", f"{URL}?versionId=2"),
        (f"{URL}?Expires=1&Signature=a%2Fb%3D&Key-Pair-Id=K", URL),
        (f"{URL}?GoogleAccessId=me&Expires=1&Signature=x", URL),
        (f"{URL}?st=1&se=2&sp=r&sv=3&sr=b&skoid=4&sig=a%2Fb%3D", URL),
        (f"{URL}?st=1&item=2", f"{URL}?st=1&item=2"),  # parameters of Azure only beside its signature
        (f"/vsicurl/{URL}?token=x", f"/vsicurl/{URL}"),
        (
            "/vsicurl?use_head=no&url=https%3A%2F%2Fa%2Fb.tif%3Fsig%3Dx%26st%3D1%26item%3D2",
            "/vsicurl?use_head=no&url=https%3A%2F%2Fa%2Fb.tif%3Fitem%3D2",
        ),
        ("https://user:word@a.example/b.tif", "https://a.example/b.tif"),
        (f"<S>{URL}?st=1&amp;sig=b</S><S>{URL}?sig=c&amp;item=1</S>", f"<S>{URL}</S><S>{URL}?item=1</S>"),
        (f"{URL}?sig=b: cannot be read ({URL}?token=x); why?", f"{URL}: cannot be read ({URL}); why?"),
        ("/data/me@home/what?.tif", "/data/me@home/what?.tif"),
        (URL, URL),
    ],
)
def test_signatures_go_and_the_rest_stays(text: str, expected: str) -> None:
    assert unsigned(text) == expected
    assert unsigned(expected) == expected


def test_errors_are_without_signatures() -> None:
    assert str(InputError(f"{URL}?sig=x: no such file")) == f"{URL}: no such file"
